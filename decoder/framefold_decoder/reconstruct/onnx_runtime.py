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
import logging
from pathlib import Path
from typing import Any, Literal

from framefold_decoder.reconstruct.half import in_half_precision
from framefold_protocol.errors import ModelError, installing

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
Precision = Literal["single", "half"]
"""half: convolutions in float16, for GPUs; a CPU would only be slower."""

_log = logging.getLogger(__name__)
CPU = "CPUExecutionProvider"
_PREFERRED = {
    "cpu": (CPU,),
    "cuda": ("CUDAExecutionProvider", CPU),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", CPU),
}
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu")
_LIBRARIES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "tensorrt"}


class ProviderError(ModelError):
    """ONNX Runtime, or the provider asked for, cannot be used: no other model would help."""


def open_session(path: Path, provider: Provider, threads: int, precision: Precision = "single") -> Any:
    """An `onnxruntime.InferenceSession` of the file, on `provider`; `auto` takes CUDA where there is one.

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
            if len(wanted) > 1:
                runtime.preload_dlls()  # CUDA libraries that came with pip are found no other way
            model = str(path) if precision == "single" else in_half_precision(path)
            session = runtime.InferenceSession(model, options, providers=wanted)
    except ModelError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base
        hint = "Export the model again, or take it out of the model folder"
        raise ModelError(f"{path} cannot be loaded by ONNX Runtime {runtime.__version__}: {_line(error)}", hint=hint) from error
    got = session.get_providers()[0]
    if got != wanted[0]:
        reason = f"ONNX Runtime {runtime.__version__} computes on {got}, because {_obstacle(runtime, wanted[0])}"
        if provider != "auto":
            hint = f"Check the driver with nvidia-smi, get the libraries with {installing('gpu')}, or ask for cpu"
            raise ProviderError(f"provider {provider} was asked for, but {reason}", hint=hint)
        _log.warning("%s", reason)
    return session


def check_installation() -> None:
    """Raise `ProviderError` when ONNX Runtime is installed twice; that it is missing shows when a net is loaded."""
    installed = [name for name in _DISTRIBUTIONS if _is_installed(name)]
    if len(installed) > 1:
        # They share one folder: the CPU one wins without a word, and removing either breaks the other.
        hint = f"pip uninstall {' '.join(installed)}, then {installing('decoder')} or '.[gpu]', never both"
        raise ProviderError(f"{' and '.join(installed)} are both installed, expected one of them", hint=hint)


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
        return [name for name in _PREFERRED["cuda"] if name in available]
    wanted = _PREFERRED[provider]
    if wanted[0] not in available:
        raise ProviderError(
            f"provider {provider} was asked for, but this build of ONNX Runtime {runtime.__version__} has only "
            f"{', '.join(available)}",
            hint=f"pip uninstall onnxruntime, then {installing('gpu')}, or ask for cpu",
        )
    return [name for name in wanted if name in available]


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
