"""The fold, compiled: `Y = sum_t C_t * X_t`, an exact integer sum, at the speed memory can be read.

64 pixels and their 64 mask bits a step, as portable LLVM vector code (a select on `<64 x i1>`), which LLVM turns into what the
CPU has: one masked move with AVX-512, a few more with AVX2 or SSE2. Several frames a visit, so that sums are seldom loaded and
stored; tiles of rows, so that they stay in the cache meanwhile. Nothing but loops over what `folding.py` has prepared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

WORD = 64
"""Pixels of a mask word, and the width of a block of the block map."""
VISIT = 5
"""Frames added between loading and storing the sums of 64 pixels."""
AHEAD = 2048
"""Bytes by which each frame is prefetched. Five streams side by side are more than the hardware follows by itself: without,
the fold reached 0.45-0.65 of the read bandwidth, with it 0.65-0.85; 1 and 4 KiB did less."""
CACHE_LINE = 64
TILE_PIXELS = 32768
"""Pixels whose sums stay in the level 2 cache (64 or 128 KiB) while all frames are added."""

Frames = npt.NDArray[np.unsignedinteger]


def masked_add(count: int, ahead: int) -> Callable[..., None]:
    """An intrinsic that adds 64 pixels of `count` frames, each under its mask word, to 64 sums.

    It prefetches what lies `ahead` bytes behind each; 0: nothing.
    """

    @intrinsic
    def add(typing: Any, sums: Any, frames: Any, words: Any, pixel: Any, word: Any, frame_stride: Any, word_stride: Any) -> Any:
        """sums[pixel:+64] += words[word + k * word_stride] ? frames[pixel + k * frame_stride:+64] : 0, for k below count."""

        def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            sum_data, frame_data, word_data = (
                context.make_array(kind)(context, builder, array).data
                for kind, array in zip((sums, frames, words), arguments[:3], strict=True)
            )
            at_pixel, at_word, by_frame, by_word = arguments[3:]
            narrow, wide = ir.IntType(frames.dtype.bitwidth), ir.IntType(sums.dtype.bitwidth)
            pixels, totals = ir.VectorType(narrow, WORD), ir.VectorType(wide, WORD)
            place = builder.bitcast(builder.gep(sum_data, [at_pixel]), totals.as_pointer())
            total = builder.load(place, align=wide.width // 8)
            for k in range(count):
                at = builder.add(at_pixel, builder.mul(by_frame, ir.Constant(by_frame.type, k)))
                values = builder.bitcast(builder.gep(frame_data, [at]), pixels.as_pointer())
                bits = builder.gep(word_data, [builder.add(at_word, builder.mul(by_word, ir.Constant(by_word.type, k)))])
                for line in range(0, WORD * narrow.width // 8 if ahead else 0, CACHE_LINE):
                    _prefetch(builder, values, ahead + line)
                mask = builder.bitcast(builder.load(bits), ir.VectorType(ir.IntType(1), WORD))
                chosen = builder.select(mask, builder.load(values, align=narrow.width // 8), ir.Constant(pixels, [0] * WORD))
                total = builder.add(total, chosen if narrow == wide else builder.zext(chosen, totals))
            builder.store(total, place, align=wide.width // 8)
            return context.get_dummy_value()

        return types.void(sums, frames, words, *(types.intp,) * 4), emit

    return add


def _prefetch(builder: ir.IRBuilder, pointer: ir.Value, distance: int) -> None:
    """Ask for the cache line `distance` bytes behind a pointer; past the end of memory it is a no-op."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    name = "llvm.prefetch.p0i8"
    signature = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    prefetch = builder.module.globals.get(name) or ir.Function(builder.module, signature, name)
    line = builder.gep(builder.bitcast(pointer, byte), [ir.Constant(ir.IntType(64), distance)])
    builder.call(prefetch, [line, *(ir.Constant(word, value) for value in (0, 3, 1))])  # for reading, kept, data


_add_one = masked_add(1, AHEAD)
_add_several = masked_add(VISIT, AHEAD)


@njit(nogil=True, cache=True)
def fold_rows(
    frames: Frames,
    first: int,
    words: npt.NDArray[np.uint64],
    block_map: npt.NDArray[np.uint8],
    sums: Frames,
    start: int,
    stop: int,
) -> None:
    """Add frames `first` to `first + n - 1` of a group, rows `start` to `stop - 1`; frame 0 begins the sums anew.

    frames: (n, H, W) contiguous; words: (families, B, h, q) uint64, the cell of each family, repeated over the frame, bit i of
    word j is pixel 64 j + i; block_map: (ceil(H / 64), ceil(W / 64)) uint8, each block's family; sums: (H, W) contiguous, wide
    enough for the result.
    """
    n, _, width = frames.shape
    rows = max(1, TILE_PIXELS // width)
    for top in range(start, stop, rows):
        bottom = min(top + rows, stop)
        if first == 0:
            sums[top:bottom] = 0
        done = 0
        while done < n:
            count = VISIT if done + VISIT <= n else 1
            _add_words(frames, done, count, first, words, block_map, sums, top, bottom)
            _add_edge(frames, done, count, first, words, block_map, sums, top, bottom)
            done += count


@njit(nogil=True, cache=True)
def _add_words(frames, index, count, first, words, block_map, sums, top, bottom):  # type: ignore[no-untyped-def]
    """The whole words of each row: `count` frames from `index` on, 1 or VISIT."""
    _, height, width = frames.shape
    _, ratio, h, q = words.shape
    pixels, bits, totals = frames[index:].reshape(-1), words.reshape(-1), sums.reshape(-1)
    for y in range(top, bottom):
        for j in range(width // WORD):
            word = ((block_map[y // WORD, j] * ratio + first + index) * h + y % h) * q + j % q
            if count == 1:
                _add_one(totals, pixels, bits, y * width + j * WORD, word, height * width, h * q)
            else:
                _add_several(totals, pixels, bits, y * width + j * WORD, word, height * width, h * q)


@njit(nogil=True, cache=True)
def _add_edge(frames, index, count, first, words, block_map, sums, top, bottom):  # type: ignore[no-untyped-def]
    """The pixels of each row behind its last whole word."""
    width = frames.shape[2]
    h, q = words.shape[2:]
    j = width // WORD
    if j * WORD == width:
        return
    for y in range(top, bottom):
        family = words[block_map[y // WORD, j]]
        for t in range(index, index + count):
            word = family[first + t, y % h, j % q]
            for x in range(j * WORD, width):
                sums[y, x] += frames[t, y, x] * ((word >> np.uint64(x - j * WORD)) & np.uint64(1))
