"""The fold, compiled: `Y = sum_t C_t * X_t`, an exact integer sum, at the speed memory can be read.

64 pixels a step, as portable vector code that LLVM turns into what the CPU has. Several frames a visit, so that sums are seldom
loaded and stored; tiles of rows, so that they stay in the cache meanwhile. The bits of a row's masks are spread to whole pixels
once for each visit, not for each pixel: without AVX-512 a core spends longer on that than on everything else. Nothing but loops
over what `folding.py` has prepared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from framefold_protocol.compiled import compiled

WORD = 64
"""Pixels of a mask word, and the width of a block of the block map."""
VISIT = 5
"""Frames at most that are added between loading and storing the sums of 64 pixels."""
AHEAD = 256
"""Bytes by which each frame is prefetched: up to a tenth faster than with no prefetch, and 1 KiB was slower than either. The
hardware follows five streams well enough once they are long; it is their starts that cost, hence the size of the tiles."""
CACHE_LINE = 64
TILE_PIXELS = 262144
"""Pixels whose sums stay in the level 2 cache (512 KiB of uint16) while all frames are added. With an eighth of them one thread
folded at 0.6 of the read bandwidth instead of 0.9."""

Frames = npt.NDArray[np.unsignedinteger]


def _masked_add(
    typing: Any, sums: Any, frames: Any, masks: Any, pixel: Any, mask: Any, strides: Any, count: Any, ahead: Any, anew: Any
) -> Any:
    """sums[pixel:+64] += frames[pixel + k * strides[0]:+64] & masks[mask + k * strides[1]:+64], for k below `count`.

    `count` is 1 to VISIT. `anew`: the sums begin with 0, whatever they hold. What lies `ahead` bytes behind the frames' pixels
    is prefetched.
    """

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        sum_data, frame_data, mask_data = _data(context, builder, (sums, frames, masks), arguments)
        at_pixel, at_mask, by, number, distance, begin = arguments[3:]
        by_frame, by_mask = (builder.extract_value(by, k) for k in range(2))
        pixels, totals = _vector(frames), _vector(sums)
        size = pixels.element.width // 8
        place = builder.bitcast(builder.gep(sum_data, [at_pixel]), totals.as_pointer())
        total = builder.load(place, align=totals.element.width // 8)
        total = builder.select(begin, ir.Constant(totals, None), total)
        end, found = builder.append_basic_block("all added"), []
        for k in range(VISIT):
            at = builder.add(at_pixel, builder.mul(by_frame, ir.Constant(by_frame.type, k)))
            values = builder.bitcast(builder.gep(frame_data, [at]), pixels.as_pointer())
            under = builder.add(at_mask, builder.mul(by_mask, ir.Constant(by_mask.type, k)))
            chosen = builder.bitcast(builder.gep(mask_data, [under]), pixels.as_pointer())
            for line in range(0, WORD * size, CACHE_LINE):
                _prefetch(builder, values, builder.add(distance, ir.Constant(distance.type, line)))
            masked = builder.and_(builder.load(values, align=size), builder.load(chosen, align=size))
            total = builder.add(total, masked if pixels.element == totals.element else builder.zext(masked, totals))
            found.append((total, builder.block))
            if k + 1 < VISIT:
                next_frame = builder.append_basic_block("next frame")
                builder.cbranch(builder.icmp_signed(">", number, ir.Constant(number.type, k + 1)), next_frame, end)
                builder.position_at_end(next_frame)
        builder.branch(end)
        builder.position_at_end(end)
        total = builder.phi(totals)
        for value, block in found:
            total.add_incoming(value, block)
        builder.store(total, place, align=totals.element.width // 8)
        return context.get_dummy_value()

    numbers = types.intp, types.intp, strides, types.intp, types.intp, types.boolean
    return types.void(sums, frames, masks, *numbers), emit


def _spread_bits(typing: Any, masks: Any, words: Any, mask: Any, word: Any) -> Any:
    """masks[mask:+64] = all bits of a pixel where the bit of words[word] is 1, none where it is 0."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        mask_data, word_data = _data(context, builder, (masks, words), arguments)
        pixels = _vector(masks)
        bits = builder.bitcast(builder.load(builder.gep(word_data, [arguments[3]])), ir.VectorType(ir.IntType(1), WORD))
        place = builder.bitcast(builder.gep(mask_data, [arguments[2]]), pixels.as_pointer())
        builder.store(builder.sext(bits, pixels), place, align=pixels.element.width // 8)
        return context.get_dummy_value()

    return types.void(masks, words, types.intp, types.intp), emit


masked_add: Callable[..., None] = intrinsic(_masked_add)
_spread: Callable[..., None] = intrinsic(_spread_bits)


def _data(context: Any, builder: ir.IRBuilder, kinds: tuple[Any, ...], arguments: Any) -> list[ir.Value]:
    """Pointers to the elements of the first arguments, which are arrays."""
    pairs = zip(kinds, arguments[: len(kinds)], strict=True)
    return [context.make_array(kind)(context, builder, array).data for kind, array in pairs]


def _vector(array: Any) -> ir.VectorType:
    """64 elements of an array of integers."""
    return ir.VectorType(ir.IntType(array.dtype.bitwidth), WORD)


def _prefetch(builder: ir.IRBuilder, pointer: ir.Value, distance: ir.Value) -> None:
    """Ask for the cache line `distance` bytes behind a pointer; past the end of memory it is a no-op."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    name = "llvm.prefetch.p0i8"
    signature = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    prefetch = builder.module.globals.get(name) or ir.Function(builder.module, signature, name)
    line = builder.gep(builder.bitcast(pointer, byte), [distance])
    builder.call(prefetch, [line, *(ir.Constant(word, value) for value in (0, 3, 1))])  # for reading, kept, data


@compiled()
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

    frames: (n, H, W) contiguous; words: (h, B, families, q) uint64, the cell of each family, repeated over the frame, bit i of
    word j is pixel 64 j + i; block_map: (ceil(H / 64), ceil(W / 64)) uint8, each block's family; sums: (H, W) contiguous, wide
    enough for the result.
    """
    n, _, width = frames.shape
    _, _, families, q = words.shape
    masks = np.empty((VISIT, families, q * WORD), frames.dtype)
    rows = max(1, TILE_PIXELS // width)
    for top in range(start, stop, rows):
        bottom = min(top + rows, stop)
        done = 0
        while done < n:
            count = min(VISIT, n - done)
            _add(frames, done, count, first, words, block_map, masks, sums, top, bottom)
            done += count


@compiled()
def _add(
    frames: Frames,
    index: int,
    count: int,
    first: int,
    words: npt.NDArray[np.uint64],
    block_map: npt.NDArray[np.uint8],
    masks: Frames,
    sums: Frames,
    top: int,
    bottom: int,
) -> None:
    """Rows of `count` frames from `index` on, at most VISIT; `masks` (VISIT, families, q * 64) is written over for each row.

    The words of a row's masks lie side by side: from places far apart they came so late that memory waited for them.
    """
    _, height, width = frames.shape
    h, ratio, families, q = words.shape
    pixels, bits, chosen, totals = frames[index:].reshape(-1), words.reshape(-1), masks.reshape(-1), sums.reshape(-1)
    cell, anew = q * WORD, first + index == 0
    strides = height * width, families * cell
    for y in range(top, bottom):
        word = (y % h * ratio + first + index) * families * q
        for i in range(count * families * q):
            _spread(chosen, bits, i * WORD, word + i)
        for j in range(width // WORD):
            mask = block_map[y // WORD, j] * cell + j % q * WORD
            masked_add(totals, pixels, chosen, y * width + j * WORD, mask, strides, count, AHEAD, anew)
        for x in range(width // WORD * WORD, width):
            if anew:
                sums[y, x] = 0
            for k in range(count):
                sums[y, x] += frames[index + k, y, x] & masks[k, block_map[y // WORD, x // WORD], x % cell]
