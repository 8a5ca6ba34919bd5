"""The nets by name: `fast` for two CPU cores, `best` for a GPU, `birnat` the reference they are held against."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from framefold_training.birnat import Birnat, BirnatSpec
from framefold_training.model import Net, NetSpec

AnyNet = Net | Birnat
AnySpec = NetSpec | BirnatSpec
CONVOLUTIONS = nn.Conv2d, nn.ConvTranspose2d

TIERS: dict[str, AnySpec] = {
    "fast": NetSpec(),
    "best": NetSpec(stages=6, blocks=(2, 2, 2), halo=64),
    "birnat": BirnatSpec(),
}


def build(spec: AnySpec) -> AnyNet:
    """A fresh net of a size."""
    return Net(spec) if isinstance(spec, NetSpec) else Birnat(spec)


def describe(spec: AnySpec) -> dict[str, Any]:
    """A spec as plain values, for a checkpoint."""
    return {"kind": type(spec).__name__, **asdict(spec)}


def recall(values: dict[str, Any]) -> AnySpec:
    """The spec that `describe` told."""
    fields: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
    del fields["kind"]
    return NetSpec(**fields) if values["kind"] == "NetSpec" else BirnatSpec(**fields)


def multiply_adds(net: nn.Module, *inputs: Tensor) -> int:
    """Multiply-adds of the net's convolutions on these inputs."""
    total = 0

    def count(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, CONVOLUTIONS)
        turned = isinstance(layer, nn.ConvTranspose2d)  # its patches do not overlap
        total += output.numel() * (len(layer.weight) if turned else layer.weight[0].numel())

    hooks = [layer.register_forward_hook(count) for layer in net.modules() if isinstance(layer, CONVOLUTIONS)]
    net(*inputs)
    for hook in hooks:
        hook.remove()
    return total
