"""A net in half precision for GPUs: its convolutions in float16, which their tensor cores take, all else in float32.

Projections divide by exposures and noise, whose range float16 does not have; convolutions see features of about 1.
"""

from __future__ import annotations

from pathlib import Path

from framefold_protocol.errors import ModelError

HALF = frozenset({"Conv", "Relu"})
"""What is computed in half precision."""


def in_half_precision(path: Path) -> bytes:
    """The ONNX file with `HALF` in float16, the same inputs and outputs. Raises `ModelError` when it cannot be made."""
    try:
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        hint = "pip install onnx, or ask for single precision"
        raise ModelError(f"half precision needs the package onnx: {error}", hint=hint) from error
    try:
        model = onnx.load(path)
        for k, node in enumerate(model.graph.node):  # older converters name their casts by it alone
            node.name = node.name or f"node_{k}"
        others = sorted({node.op_type for node in model.graph.node} - HALF)
        converted = convert_float_to_float16(model, keep_io_types=True, op_block_list=others)
        return bytes(converted.SerializeToString())
    except Exception as error:  # what the two packages raise shares no base
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} has no half precision: {reason}", hint="Ask for single precision") from error
