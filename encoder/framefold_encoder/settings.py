"""Settings of the encoder daemon. Keys of the TOML file; each also as `FRAMEFOLD_ENCODER_KEY` in the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from framefold_encoder.exposure import SMALLEST_RATIO
from framefold_encoder.ratio import RatioRange
from framefold_protocol.anscombe import VarianceStabilised
from framefold_protocol.endpoint import check_endpoint
from framefold_protocol.errors import InputError, SettingsError
from framefold_protocol.keys import LinkKeys, read_public_key, read_secret_key
from framefold_protocol.masks import MAX_PERIOD, MaskKind, MaskSpec
from framefold_protocol.noise import NoiseModel
from framefold_protocol.settings import load_settings

FREE = RatioRange(4, 32)
"""The B that a wire ratio chooses from: what block maps need, to what nets are trained on."""
Numbers = BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value)
"""A list, in TOML; numbers with commas between them elsewhere."""


class EncoderSettings(BaseModel):
    """What the daemon needs to know besides its source."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: str = Field("tcp://127.0.0.1:5571", description="Address of the decoder's link, tcp://HOST:PORT")
    ratio: Annotated[RatioRange, PlainValidator(RatioRange.parse)] = Field(
        RatioRange(20, 20), description="B, frames per snapshot; 10..30 or auto: as many as the link asks for, within bounds"
    )
    wire_ratio: float | None = Field(
        None,
        gt=1,
        allow_inf_nan=False,
        description="Bytes of frames over bytes sent: every group gets as few frames as keep the stream to it, or with "
        "adaptive as many as a still scene bears, 4 to 32, "
        "or within ratio's range; fewer where the scene becomes another",
    )
    mask: MaskKind = Field("balanced", description="Mask kind")
    density: float = Field(0.25, gt=0, le=1, description="Fraction of ones in the masks")
    adaptive: bool | Literal["auto"] = Field(
        "auto",
        description="Each 64x64 block that moves little is folded with one of still_densities instead: more electrons, "
        "and up to a third more bytes; auto: unless masks are chosen, or a snapshot may have fewer than 4 frames",
    )
    still_densities: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Numbers] = Field(
        (0.5, 1.0), min_length=1, max_length=255, description="Fractions of ones for blocks that move less and less"
    )
    still_below: Annotated[tuple[float, ...], Numbers] = Field(
        (4.0, 0.3), description="Motion below which a block gets each of them: averaging's error by motion over that by noise"
    )
    period: int = Field(64, ge=0, le=MAX_PERIOD, description="Side of the repeated mask cell in pixels; 0: no repetition")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the masks")
    mask_file: Path | None = Field(None, description="Masks of kind 'file': a .npy (B, h, w) or .mat file")
    coder: Literal["lossless", "variance-stabilised"] = Field(
        "lossless",
        description="Exact snapshots, or bins of step_sigma standard deviations of the noise: about 0.6 of the bytes",
    )
    step_sigma: Annotated[float, Field(ge=0.01, le=4)] | Literal["auto"] = Field(
        0.5,
        description="Width of a bin of the variance-stabilised coder, in sigma; auto: 1 to 2, as wire_ratio's bytes allow",
    )
    counts_per_electron: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Detector gain, where the source does not know it; else it is measured"
    )
    audit: int = Field(
        0, ge=0, lt=2**31, description="Send every so many-th group raw as well: the decoder measures its error on it; 0: none"
    )
    threads: int = Field(1, ge=1, le=256, description="Threads that fold, and as many that code")
    memory_mb: int = Field(512, ge=1, description="Bound on the messages in memory until they are stored or journalled, in MB")
    journal: Path | None = Field(
        None, description="Folder that keeps messages until the decoder has stored them, across restarts; none: memory only"
    )
    journal_limit_mb: int = Field(20_000, ge=1, description="Bound on the messages in the journal folder, in MB")
    silence_s: float = Field(3.0, gt=0, description="Ask the decoder again after this many seconds without an answer")
    linger_s: float = Field(10.0, ge=0, description="After an interrupt, wait at most this long for the decoder, in seconds")
    key: Path | None = Field(None, description="Secret key file of this encoder, made with keygen; needed off loopback")
    decoder_key: Path | None = Field(None, description="Public key file of the decoder; with key")

    @model_validator(mode="before")
    @classmethod
    def _leave_the_ratio_free(cls, values: Any) -> Any:
        """Unless a range is given, a wire ratio chooses among all B that nets are trained on."""
        free = isinstance(values, dict) and values.get("wire_ratio") is not None and "ratio" not in values
        return values | {"ratio": FREE} if free else values

    @property
    def adapts(self) -> bool:
        """Whether each block's masks go by how much it moves."""
        if self.adaptive == "auto":
            chosen = self.mask != "balanced" or self.density != type(self).model_fields["density"].default
            return not chosen and self.ratio.smallest >= SMALLEST_RATIO
        return self.adaptive

    @property
    def families(self) -> tuple[MaskSpec, ...]:
        """The stream's mask families at their largest ratio. Raises `InputError` when the keys contradict each other."""
        file = self.mask_file.name if self.mask_file else ""
        if self.mask == "file" and not file:
            raise InputError(
                "mask is file, but no mask_file is given", hint="Name one, a .npy (B, h, w) or .mat file: --mask-file"
            )
        if file and self.ratio.smallest != self.ratio.largest:
            hint = "Give one ratio, the number of masks in the file"
            raise InputError(f"ratio is {self.ratio}, but the masks of file {file} have one only", hint=hint)
        if self.wire_ratio and self.ratio.smallest == self.ratio.largest:
            hint = "Give ratio a range such as 4..32, or leave it out"
            raise InputError(f"ratio is {self.ratio}, which leaves wire_ratio nothing to choose", hint=hint)
        first = MaskSpec(self.mask, self.ratio.largest, self.density, self.period, self.seed, file)
        return (first, *self._still_families(first)) if self.adapts else (first,)

    def _still_families(self, first: MaskSpec) -> Iterator[MaskSpec]:
        if self.mask == "file":
            raise InputError("adaptive is set, but the masks are a file's", hint="Choose another mask kind, or not adaptive")
        if self.ratio.smallest < SMALLEST_RATIO:
            hint = "Choose a larger ratio, or not adaptive"
            raise InputError(f"ratio is {self.ratio}, expected at least {SMALLEST_RATIO} with adaptive", hint=hint)
        if len(self.still_densities) != len(self.still_below) or list(self.still_below) != sorted(self.still_below)[::-1]:
            found = f"still_densities is {self.still_densities} and still_below is {self.still_below}"
            raise InputError(f"{found}, expected as many thresholds as densities, falling", hint="Correct the two keys")
        for density in self.still_densities:
            yield replace(first, kind="balanced", density=density)

    @property
    def widths_free(self) -> bool:
        """Whether bins are as wide as each snapshot's bytes ask for. Raises `InputError` where nothing says how many."""
        if self.step_sigma != "auto":
            return False
        if self.coder == "lossless":
            raise InputError("step_sigma is auto, but coder lossless has no bins", hint="Choose coder variance-stabilised, too")
        if not self.wire_ratio:
            hint = "Give a wire_ratio, too, or a step_sigma such as 0.5"
            raise InputError("step_sigma is auto, but no wire_ratio says how many bytes there are for bins", hint=hint)
        return True

    def quantisation(self, noise: NoiseModel | None, width: float | None = None) -> VarianceStabilised | None:
        """How one frame of a detector with this noise would be coded; None: exactly. Raises `InputError` for an absurd gain.

        Of a noise that nobody knows: electrons are counted, one by one. `width` of the bins, where that is free.
        """
        if self.coder == "lossless":
            return None
        noise = noise or NoiseModel()
        step = width or (1.0 if self.step_sigma == "auto" else self.step_sigma)
        return VarianceStabilised(noise.counts_per_electron, noise.offset_counts, noise.read_noise_counts, step)

    @property
    def link_keys(self) -> LinkKeys | None:
        """The keys of the link; None: it has none. Raises `SettingsError` when one is missing or cannot be used."""
        if self.key and self.decoder_key:
            return LinkKeys(read_secret_key(self.key, "key"), read_public_key(self.decoder_key, "decoder_key"))
        if self.key or self.decoder_key:
            present, missing = ("key", "decoder_key") if self.key else ("decoder_key", "key")
            raise SettingsError(f"{present} is set, but {missing} is not", hint="Set both, or neither on loopback")
        return None


def _is_drawn(settings: EncoderSettings) -> bool:
    """Whether any of the masks are drawn by chance."""
    return settings.mask not in ("ones", "file") or settings.adapts


_EFFECT: Mapping[str, tuple[str, Callable[[EncoderSettings], bool]]] = {
    "step_sigma": ("--coder variance-stabilised", lambda settings: settings.coder != "lossless"),
    "density": ("--mask balanced or random", lambda settings: settings.mask in ("balanced", "random")),
    "mask_file": ("--mask file", lambda settings: settings.mask == "file"),
    "period": ("--mask balanced, random or one-hot", _is_drawn),
    "seed": ("--mask balanced, random or one-hot", _is_drawn),
    "coder": ("a --ratio above 1", lambda settings: settings.ratio.largest > 1 or settings.coder == "lossless"),
    "audit": ("a --ratio above 1", lambda settings: settings.ratio.largest > 1 or not settings.audit),
    "journal_limit_mb": ("--journal FOLDER", lambda settings: settings.journal is not None),
}
"""Keys that do nothing without another setting. A file may hold all keys; who types one expects something of it."""


def load_encoder_settings(config: Path | None, overrides: Mapping[str, Any]) -> EncoderSettings:
    """Defaults, TOML file, environment, command line. Raises `SettingsError`, also for an option that would do nothing."""
    settings = load_settings(EncoderSettings, "FRAMEFOLD_ENCODER_", config, overrides)
    check_endpoint(settings.to, "to", keys=settings.link_keys is not None)
    for key, (other, has_effect) in _EFFECT.items():
        if overrides.get(key) is not None and not has_effect(settings):
            option = "--" + key.replace("_", "-")
            hint = f"Give {other}, too, or leave {option} out"
            raise SettingsError(f"command line: {option} is {overrides[key]}, but does nothing without {other}", hint=hint)
    return settings
