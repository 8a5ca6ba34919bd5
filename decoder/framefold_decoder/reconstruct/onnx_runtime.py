"""ONNX Runtime, imported when a net is first loaded, and the provider that was asked for: got, or an error that says why not.

The provider that really computes is the session's first, but for what it does not know. Asked for one it cannot start, ONNX
Runtime logs a line and computes on the CPU.
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
"""half: convolutions in float16, which only GPUs do faster; by OpenVINO everything in bfloat16, which has float32's range.
auto: half by OpenVINO on CPUs that multiply bfloat16, else single."""

_log = logging.getLogger(__name__)
CPU = "CPUExecutionProvider"
_OPENVINO = "OpenVINOExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"
ON_CPU = frozenset({CPU, _OPENVINO})
"""Providers that need no GPU."""
_NAMES = {"cpu": CPU, "openvino": _OPENVINO, "cuda": _CUDA, "tensorrt": _TENSORRT}
_AUTO = (_CUDA, _OPENVINO, CPU)
_WITH = {CPU: (CPU,), _OPENVINO: (_OPENVINO, CPU), _CUDA: (_CUDA, CPU), _TENSORRT: (_TENSORRT, _CUDA, CPU)}
"""Each, and those that compute what it does not know."""
_EXTRAS = {_OPENVINO: "openvino", _CUDA: "gpu", _TENSORRT: "gpu"}
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
_LIBRARIES = {_OPENVINO: "openvino", _CUDA: "cuda", _TENSORRT: "tensorrt"}
_KEPT = "100"
"""Compiled operators that OpenVINO keeps for frames of other sizes. Of its 5000 each size takes megabytes, which add up for
weeks; with a hundred, 400 sizes took 1.1 GB in all, and those in use stay as fast."""


class ProviderError(ModelError):
    """ONNX Runtime, or the provider asked for, cannot be used: no other model would help."""


def open_session(path: Path, provider: Provider, threads: int, precision: Precision = "auto") -> tuple[Any, bool]:
    """An `onnxruntime.InferenceSession` of the file on `provider`, and whether it computes in half precision.

    `auto` takes CUDA where it starts, else OpenVINO, else the CPU. Raises `ProviderError` when the provider cannot be had,
    `ModelError` when the file is no model or has no half precision.
    """
    runtime = import_runtime()
    # What fails arrives as an exception; the rest it says is about its own graph rewriting.
    runtime.set_default_logger_severity(4)
    for name in _candidates(runtime, provider):
        half = _in_half(name, precision)
        session = _start(runtime, path, name, threads, half)
        got = session.get_providers()[0]
        if got == name:
            return session, half
        reason = f"ONNX Runtime {runtime.__version__} computes on {got}, because {_obstacle(runtime, name)}"
        if provider != "auto":
            driver = "" if name == _OPENVINO else "Check the driver with nvidia-smi. "
            hint = f"{driver}Get the libraries with {installing(_EXTRAS[name])}, or ask for cpu"
            raise ProviderError(f"provider {provider} was asked for, but {reason}", hint=hint)
        _log.warning("%s", reason)
    raise ProviderError(f"ONNX Runtime {runtime.__version__} has no provider", hint=f"Install it anew: {_installing_any()}")


def _start(runtime: Any, path: Path, name: str, threads: int, half: bool) -> Any:
    """A session of the provider, or of another when it does not start."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    providers: list[Any] = [one for one in _WITH[name] if one in runtime.get_available_providers()]
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it cannot find; `_obstacle` tells that better
            if name == _OPENVINO:
                providers[0] = (name, _openvino(threads, half))
            elif name != CPU:
                runtime.preload_dlls()  # CUDA libraries that came with pip are found no other way
            model = in_half_precision(path) if half and name != _OPENVINO else str(path)
            return runtime.InferenceSession(model, options, providers=providers)
    except ModelError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base
        hint = "Export the model again, or take it out of the model folder"
        raise ModelError(f"{path} cannot be loaded by ONNX Runtime {runtime.__version__}: {_line(error)}", hint=hint) from error


def _in_half(name: str, precision: Precision) -> bool:
    """Whether a provider is to compute in half precision.

    Raises `ProviderError` on CPUs where OpenVINO would imitate it, at a third of the speed, or take single without a word.
    """
    if name != _OPENVINO:
        return precision == "half"
    if precision == "half" and not multiplies_bfloat16():
        hint = "Ask for auto or single"
        raise ProviderError("half precision was asked for, but this CPU has no instructions for bfloat16", hint=hint)
    return multiplies_bfloat16() and precision != "single"


def check_installation() -> None:
    """Raise `ProviderError` when ONNX Runtime is installed twice; that it is missing shows when a net is loaded."""
    installed = [name for name in _DISTRIBUTIONS if _is_installed(name)]
    if len(installed) > 1:
        # They share one folder: the CPU one wins without a word, and removing either breaks the other.
        hint = f"pip uninstall {' '.join(installed)}, then one of {_installing_any()}"
        raise ProviderError(f"{' and '.join(installed)} are installed together, expected one of them", hint=hint)


def import_runtime() -> Any:
    """The module `onnxruntime`. Raises `ProviderError` when it is missing, or installed twice."""
    check_installation()
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ProviderError(f"ONNX Runtime cannot be imported: {_line(error)}", hint=_installing_any()) from error


def _candidates(runtime: Any, provider: Provider) -> list[str]:
    """Providers to try, the preferred first; all of them are in this build."""
    available = runtime.get_available_providers()
    if provider == "auto":
        return [name for name in _AUTO if name in available]
    name = _NAMES[provider]
    if name not in available:
        build = f"this build of ONNX Runtime {runtime.__version__} has only {', '.join(available)}"
        installed = " ".join(one for one in _DISTRIBUTIONS if _is_installed(one))
        hint = f"pip uninstall {installed}, then {installing(_EXTRAS[name])}, or ask for cpu"
        raise ProviderError(f"provider {provider} was asked for, but {build}", hint=hint)
    return [name]


def _installing_any() -> str:
    return f"{installing('decoder')}, '.[openvino]' on an x86-64 CPU, or '.[gpu]' where there is an NVIDIA GPU"


def _openvino(threads: int, half: bool) -> dict[str, str]:
    """Its options: on the CPU, one request at a time on all threads, wherever the system lets them run; by itself it binds them
    to the first cores, where another decoder's are bound, too."""
    properties = {"INFERENCE_PRECISION_HINT": "bf16" if half else "f32", "NUM_STREAMS": "1"}
    properties |= {"ENABLE_CPU_PINNING": "NO", "CPU_RUNTIME_CACHE_CAPACITY": _KEPT}
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
    return "it finds no device, though its libraries are there"


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _line(error: Exception) -> str:
    """An error's text on one line, without a full stop."""
    return " ".join(str(error).split()).rstrip(".")
