"""Settings of the decoder daemon. Keys of the TOML file; each also as `FRAMEFOLD_DECODER_KEY` in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from framefold_decoder.reconstruct.onnx_runtime import Precision, Provider
from framefold_protocol.endpoint import check_endpoint, is_loopback
from framefold_protocol.errors import SettingsError
from framefold_protocol.keys import KeyPair, read_secret_key
from framefold_protocol.settings import load_settings


class DecoderSettings(BaseModel):
    """What the service needs to know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path = Field(Path("framefold-data"), description="Folder of the stores and the catalogue; made when missing")
    ingest: str = Field("tcp://127.0.0.1:5571", description="Address encoders connect to, tcp://HOST:PORT")
    http: str = Field("127.0.0.1:8571", description="Address of the REST service, HOST:PORT")
    model: str = Field("auto", description="Reconstruct with: auto (the net that fits, else gap-tv), a model's name, or none")
    models: Path | None = Field(None, description="Folder of further models, NAME.onnx with NAME.json")
    provider: Provider = Field("auto", description="ONNX Runtime provider")
    precision: Precision = Field(
        "auto", description="half: nets in 16 bits; auto: half in OpenVINO on CPUs with bfloat16, else single"
    )
    threads: int = Field(0, ge=0, description="Threads of a reconstruction; 0: one per core")
    masks: Path | None = Field(None, description="Folder of mask files, for streams folded with masks of kind 'file'")
    credit: int = Field(32, ge=1, le=10_000, description="Messages an encoder may have under way beyond what is stored")
    journal_limit_mb: int = Field(1000, ge=1, description="Bound on what one stream may have waiting for the store, in MB")
    key: Path | None = Field(None, description="Secret key file of this decoder, made with keygen; needed off loopback")
    allowed_keys: Path | None = Field(None, description="Folder of the public keys of encoders that may connect; with key")
    max_message_mb: int = Field(512, ge=128, le=2048, description="Largest message an encoder may send, in MB")
    max_mask_bits: int = Field(2**29, ge=1, le=2**32, description="Largest masks derived for a stream, in bits, all families")
    tokens: Path | None = Field(None, description="File of REST tokens, made with token; needed off loopback")
    http_certificate: Path | None = Field(None, description="TLS certificate of the REST service, PEM; with http_key")
    http_key: Path | None = Field(None, description="Private key of the TLS certificate, PEM")

    @property
    def http_address(self) -> tuple[str, int]:
        """Host and port of the REST service. Raises `SettingsError` unless it is HOST:PORT, on loopback or with tokens."""
        host, _, port = self.http.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise SettingsError(f"http is {self.http!r}, expected HOST:PORT", hint="For example 127.0.0.1:8571")
        if not is_loopback(host.strip("[]")) and not self.tokens:
            hint = "Make one with framefold-decoder token NAME --scope read --tokens FILE, and name the file in tokens"
            raise SettingsError(f"http is {self.http!r}, but without tokens only loopback is accepted", hint=hint)
        return host.strip("[]"), int(port)

    @property
    def key_pair(self) -> KeyPair | None:
        """This decoder's keys; None: the link has none. Raises `SettingsError` when only half of what they need is there."""
        _check_both("key", self.key, "allowed_keys", self.allowed_keys)
        if self.key is None or self.allowed_keys is None:
            return None
        if not self.allowed_keys.is_dir():
            hint = "Make it, and copy the public key files of the encoders into it"
            raise SettingsError(f"allowed_keys is {self.allowed_keys}, which is no folder", hint=hint)
        return read_secret_key(self.key, "key")

    def check(self) -> None:
        """Raise `SettingsError` when keys contradict each other, or an address is open to the network without protection."""
        check_endpoint(self.ingest, "ingest", keys=self.key_pair is not None)
        _check_both("http_certificate", self.http_certificate, "http_key", self.http_key)
        _ = self.http_address


def load_decoder_settings(config: Path | None, overrides: Mapping[str, Any]) -> DecoderSettings:
    """Defaults, TOML file, environment, command line. Raises `SettingsError`."""
    return load_settings(DecoderSettings, "FRAMEFOLD_DECODER_", config, overrides)


def _check_both(first: str, one: Path | None, second: str, other: Path | None) -> None:
    if (one is None) != (other is None):
        missing, present = (first, second) if one is None else (second, first)
        raise SettingsError(f"{present} is set, but {missing} is not", hint=f"Set both {first} and {second}, or neither")
