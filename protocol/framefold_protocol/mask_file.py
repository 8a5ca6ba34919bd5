"""Masks from a file: `.npy` (B, h, w), or MATLAB `.mat` with an (h, w, B) array `mask`, as the public SCI clips have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from framefold_protocol.errors import InputError, installing


def read_mask_file(path: Path, ratio: int, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The first `ratio` masks of a file as a (B, h, w) cell of {0, 1}, uint8.

    A file of the frame's size or larger is cropped to it; a smaller one is repeated. Raises `InputError` when the file is
    missing, not a mask array, not binary, or holds fewer than `ratio` masks.
    """
    if not path.is_file():
        raise InputError(f"mask file {path} does not exist", hint="Put it there, or name another")
    masks = _read_mat(path) if path.suffix == ".mat" else _read_npy(path)
    if masks.ndim != 3 or not masks.size or not np.isin(masks, (0, 1)).all():
        raise InputError(f"mask file {path} holds {masks.dtype} {masks.shape}, expected (B, h, w) of zeros and ones")
    if not masks[:ratio].any():
        raise InputError(f"mask file {path} exposes no pixel in its first {ratio} masks", hint="Every frame would be lost")
    if len(masks) < ratio:
        raise InputError(f"mask file {path} holds {len(masks)} masks, expected at least {ratio}", hint="Use a smaller ratio")
    return np.ascontiguousarray(masks[:ratio, : shape[0], : shape[1]], dtype=np.uint8)


def _read_npy(path: Path) -> npt.NDArray[np.generic]:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"mask file {path} cannot be read as .npy: {error}", hint="Save it with numpy.save") from error


def _read_mat(path: Path) -> npt.NDArray[np.generic]:
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise InputError(f"mask file {path} needs scipy to be read", hint=f"Install it: {installing('io')}") from error
    try:
        return np.asarray(loadmat(path)["mask"]).transpose(2, 0, 1)
    except (MatReadError, KeyError, ValueError, NotImplementedError, OSError) as error:
        raise InputError(f"mask file {path} has no readable (h, w, B) array 'mask': {error}") from error
