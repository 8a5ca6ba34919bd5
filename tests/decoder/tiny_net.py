"""A tiny honest net with the contract's inputs and output, written as ONNX: no weights, any ratio, any size.

It averages the five snapshots, weighted 1 to 5, over 5 x 5 pixels and, half and half, over blocks of 4 x 4 of that; then it
moves the result towards the snapshot, the less the noisier. A pixel depends on others up to 5 pixels away, and on where the
blocks lie.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from framefold_protocol.model import REACH, SNAPSHOTS, ModelCard

WEIGHTS = (1, 2, 3, 4, 5)


def write_net(
    folder: Path,
    name: str = "tiny",
    *,
    scale: float = 1.0,
    inputs: dict[str, str] | None = None,
    only: int | None = None,
    **card,
) -> ModelCard:
    """Write NAME.onnx and NAME.json.

    `scale` multiplies the frames; `inputs` renames inputs; the net takes any B, or `only` one; `card` replaces card fields.
    """
    path = folder / f"{name}.onnx"
    onnx.save(_model(scale, inputs or {}, only or "B"), path)
    return write_card(path, **card)


def write_card(path: Path, **changes) -> ModelCard:
    """The card beside an ONNX file, as the file is now."""
    fields = {
        "name": path.stem,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "ratios": (4,),
        "mask_kinds": ("balanced", "random", "ones"),
        "densities": (0.25, 0.5),
        "dose_range": (3.0, 200.0),
        "multiple": 4,
        "halo": 5,
        "parameters": 0,
        "kmac_per_frame_pixel": 0.1,
    }
    card = ModelCard(**(fields | changes))
    card.write(path.with_suffix(".json"))
    return card


def _model(scale: float, renamed: dict[str, str], ratio: int | str) -> onnx.ModelProto:
    constants = {
        "box": np.ones((1, SNAPSHOTS, 5, 5), np.float32) * np.array(WEIGHTS, np.float32)[:, None, None],
        "least_exposure": np.float32(0.04),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "scale": np.float32(scale),
        "four": np.array([1, 1, 4, 4], np.float32),
        "first": np.array([REACH]),
        "last": np.array([REACH + 1]),
        "axis": np.array([1]),
        "as_image": np.array([-1, 1, 1, 1]),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["snapshots", "box"], ["counts"], pads=[2, 2, 2, 2]),
        node("Conv", ["exposures", "box"], ["frames_seen"], pads=[2, 2, 2, 2]),
        node("Max", ["frames_seen", "least_exposure"], ["seen"]),
        node("Div", ["counts", "seen"], ["fine"]),
        node("AveragePool", ["fine"], ["blocks"], kernel_shape=[4, 4], strides=[4, 4]),
        node(
            "Resize",
            ["blocks", "", "four"],
            ["coarse"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        node("Add", ["fine", "coarse"], ["both"]),
        node("Mul", ["both", "half"], ["base"]),
        node("Slice", ["snapshots", "first", "last", "axis"], ["snapshot"]),
        node("ReduceSum", ["masks", "axis"], ["exposure"], keepdims=1),
        node("Max", ["exposure", "one"], ["exposed"]),
        node("Mul", ["base", "exposure"], ["explained"]),
        node("Sub", ["snapshot", "explained"], ["missing"]),
        node("Add", ["noise", "one"], ["relaxed"]),
        node("Reshape", ["relaxed", "as_image"], ["relaxation"]),
        node("Mul", ["exposed", "relaxation"], ["divisor"]),
        node("Div", ["missing", "divisor"], ["step"]),
        node("Mul", ["masks", "step"], ["back"]),
        node("Add", ["base", "back"], ["estimate"]),
        node("Mul", ["estimate", "scale"], ["frames"]),
    ]
    five = ["n", SNAPSHOTS, "H", "W"]
    shapes = {"snapshots": five, "exposures": five, "masks": ["n", ratio, "H", "W"], "noise": ["n"]}
    for one in nodes:
        for position, name in enumerate(one.input):
            one.input[position] = renamed.get(name, name)
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(renamed.get(name, name), TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, ["n", "B", "H", "W"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
