"""ONNX Runtime, imported when a net is first loaded, and the provider that was asked for: got, or an error that says why not.

The provider that really computes is the session's first. Asked for one it cannot start, ONNX Runtime logs a line and computes
on the CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import io
import json
import logging
from pathlib import Path
from typing import Any, Literal

from framefold_decoder.reconstruct.half import in_half_precision
from framefold_protocol.errors import ModelError, installing
from framefold_protocol.processor import multiplies_bfloat16

Provider = Literal["auto", "cpu", "openvino", "cuda", "tensorrt"]
Precision = Literal["auto", "single", "half"]
"""half: convolutions in float16 on GPUs, everything in bfloat16 by OpenVINO, on CPUs that multiply it; auto: half there, else
single."""

_log = logging.getLogger(__name__)
CPU = "CPUExecutionProvider"
_OPENVINO = "OpenVINOExecutionProvider"
ON_CPU = frozenset({CPU, _OPENVINO})
"""Providers that need no GPU."""
_PREFERRED = {
    "cpu": (CPU,),
    "openvino": (_OPENVINO, CPU),
    "cuda": ("CUDAExecutionProvider", CPU),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", CPU),
}
_AUTO = ("CUDAExecutionProvider", _OPENVINO, CPU)
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
_KEPT = "100"
"""Compiled operators that OpenVINO keeps for frames of other sizes. Of its 5000 each size takes megabytes, which add up for
weeks; with a hundred, 400 sizes took 1.1 GB in all, and those in use stay as fast."""
_LIBRARIES = {_OPENVINO: "openvino", "CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "tensorrt"}


class ProviderError(ModelError):
    """ONNX Runtime, or the provider asked for, cannot be used: no other model would help."""


def open_session(path: Path, provider: Provider, threads: int, precision: Precision = "auto") -> Any:
    """An `onnxruntime.InferenceSession` of the file, on `provider`; `auto` takes CUDA where there is one, then OpenVINO.

    Raises `ProviderError` when the provider cannot be had, `ModelError` when the file is no model or has no half precision.
    """
    runtime = import_runtime()
    wanted = _providers(runtime, provider)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    # What fails arrives as an exception; the rest it says is about its own graph rewriting.
    options.log_severity_level = 4
    runtime.set_default_logger_severity(4)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it cannot find; `_obstacle` tells that better
            if not ON_CPU.issuperset(wanted):
                runtime.preload_dlls()  # CUDA libraries that came with pip are found no other way
            half = in_half(wanted[0], precision)
            model = in_half_precision(path) if half and wanted[0] != _OPENVINO else str(path)
            configured = [(one, _openvino(threads, half)) if one == _OPENVINO else one for one in wanted]
            session = runtime.InferenceSession(model, options, providers=configured)
    except ModelError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base
        hint = "Export the model again, or take it out of the model folder"
        raise ModelError(f"{path} cannot be loaded by ONNX Runtime {runtime.__version__}: {_line(error)}", hint=hint) from error
    got = session.get_providers()[0]
    if got != wanted[0]:
        reason = f"ONNX Runtime {runtime.__version__} computes on {got}, because {_obstacle(runtime, wanted[0])}"
        if provider != "auto":
            hint = f"Get the libraries with {installing(_extra(wanted[0]))}, or ask for cpu"
            if wanted[0] != _OPENVINO:
                hint = f"Check the driver with nvidia-smi. {hint}"
            raise ProviderError(f"provider {provider} was asked for, but {reason}", hint=hint)
        _log.warning("%s", reason)
    return session


def in_half(provider: str, precision: Precision) -> bool:
    """Whether ONNX Runtime's `provider` computes in half precision when `precision` is asked for.

    Raises `ProviderError` where OpenVINO would have to imitate it, or would compute in single without a word.
    """
    if provider != _OPENVINO:
        return precision == "half"
    possible = multiplies_bfloat16()
    if precision == "half" and not possible:
        hint = "Ask for auto or single"
        raise ProviderError("half precision was asked for, but this CPU has no instructions for bfloat16", hint=hint)
    return possible and precision != "single"


def check_installation() -> None:
    """Raise `ProviderError` when ONNX Runtime is installed twice; that it is missing shows when a net is loaded."""
    installed = [name for name in _DISTRIBUTIONS if _is_installed(name)]
    if len(installed) > 1:
        # They share one folder: the CPU one wins without a word, and removing either breaks the other.
        hint = f"pip uninstall {' '.join(installed)}, then {installing('decoder')}, '.[openvino]' or '.[gpu]', only one of them"
        raise ProviderError(f"{' and '.join(installed)} are installed together, expected one of them", hint=hint)


def import_runtime() -> Any:
    """The module `onnxruntime`. Raises `ProviderError` when it is missing, or installed twice."""
    check_installation()
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        hint = f"{installing('decoder')}, or '.[gpu]' where there is an NVIDIA GPU"
        raise ProviderError(f"ONNX Runtime cannot be imported: {_line(error)}", hint=hint) from error


def _providers(runtime: Any, provider: Provider) -> list[str]:
    """What to ask ONNX Runtime for, the preferred first; all of it is in this build."""
    available = runtime.get_available_providers()
    if provider == "auto":
        return [name for name in _AUTO if name in available]
    wanted = _PREFERRED[provider]
    if wanted[0] not in available:
        raise ProviderError(
            f"provider {provider} was asked for, but this build of ONNX Runtime {runtime.__version__} has only "
            f"{', '.join(available)}",
            hint=f"pip uninstall onnxruntime, then {installing(_extra(wanted[0]))}, or ask for cpu",
        )
    return [name for name in wanted if name in available]


def _extra(provider: str) -> str:
    """What to install for it."""
    return "openvino" if provider == _OPENVINO else "gpu"


def _openvino(threads: int, half: bool) -> dict[str, str]:
    """Its options: on the CPU, one request at a time on all threads, and little kept of sizes of frames that are gone."""
    properties = {
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
        "NUM_STREAMS": "1",
        "CPU_RUNTIME_CACHE_CAPACITY": _KEPT,
    }
    if threads:
        properties["INFERENCE_NUM_THREADS"] = str(threads)
    return {"device_type": "CPU", "load_config": json.dumps({"CPU": properties})}


def _obstacle(runtime: Any, provider: str) -> str:
    """Why a provider did not start: what the loader says of its library."""
    folder = Path(runtime.__file__).parent / "capi"
    with contextlib.suppress(OSError):
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), ctypes.RTLD_GLOBAL)
    try:
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{_LIBRARIES[provider]}.so"))
    except OSError as error:
        return _line(error)
    return "no device answers, though its libraries are there"


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _line(error: Exception) -> str:
    """An error's text on one line, without a full stop."""
    return " ".join(str(error).split()).rstrip(".")
