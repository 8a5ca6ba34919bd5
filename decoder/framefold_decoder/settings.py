"""Settings of the decoder daemon. Keys of the TOML file; each also as `FRAMEFOLD_DECODER_KEY` in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from framefold_protocol.endpoint import check_endpoint, is_loopback
from framefold_protocol.errors import SettingsError
from framefold_protocol.settings import load_settings


class DecoderSettings(BaseModel):
    """What the service needs to know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path = Field(Path("framefold-data"), description="Folder of the stores and the catalogue; made when missing")
    ingest: str = Field("tcp://127.0.0.1:5571", description="Address encoders connect to, tcp://HOST:PORT")
    http: str = Field("127.0.0.1:8571", description="Address of the REST service, HOST:PORT")
    model: str = Field("auto", description="Reconstruct with: auto (the net that fits, else gap-tv), a model's name, or none")
    models: Path | None = Field(None, description="Folder of further models, NAME.onnx with NAME.json")
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field("auto", description="ONNX Runtime provider")
    threads: int = Field(0, ge=0, description="Threads of a reconstruction; 0: one per core")
    masks: Path | None = Field(None, description="Folder of mask files, for streams folded with masks of kind 'file'")
    credit: int = Field(32, ge=1, description="Messages an encoder may have under way beyond what is stored")

    @property
    def http_address(self) -> tuple[str, int]:
        """Host and port of the REST service. Raises `SettingsError` unless it is a loopback HOST:PORT."""
        host, _, port = self.http.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise SettingsError(f"http is {self.http!r}, expected HOST:PORT", hint="For example 127.0.0.1:8571")
        if not is_loopback(host.strip("[]")):
            hint = "Put a reverse proxy with access control before it"
            raise SettingsError(f"http is {self.http!r}, but the service knows no users: only loopback is accepted", hint=hint)
        return host.strip("[]"), int(port)


def load_decoder_settings(config: Path | None, overrides: Mapping[str, Any]) -> DecoderSettings:
    """Defaults, TOML file, environment, command line. Raises `SettingsError`."""
    settings = load_settings(DecoderSettings, "FRAMEFOLD_DECODER_", config, overrides)
    check_endpoint(settings.ingest, "ingest")
    _ = settings.http_address
    return settings
