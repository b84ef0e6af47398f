"""Grey levels and colours at another size, with the same bits on every machine.

The arithmetic is that of torch's antialiased bicubic on uint8, which the processors of vision-language
models use: Keys' cubic (a = -0.5), stretched when a picture shrinks, with weights of 16 bits in fixed point;
first along the rows, then along the columns, each time rounded to 0..255. Three routes give the same bytes:
the compiled module, torch if it is already imported, and numpy.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.transforms import compiled
from medmllm_plugin.transforms.threads import in_parts

CUBIC = -0.5
REACH = 2
"""Source pixels to each side that the kernel reaches, when the picture doesn't shrink."""

MAX_BITS = 22
"""Most fractional bits of a weight."""

BLOCK = 32
"""Output pixels that are multiplied out at once: their sources are nearly the same."""

FOUR = 4
"""Grey pictures that torch resizes at once."""
PACKED = np.dtype("<u4")
"""A pixel of each of them: the first in the lowest byte."""

_WORTH_A_THREAD = 1 << 20
"""Output bytes below which a thread costs more than it saves."""

FLOAT32_EXACT = 1 << 24
"""Whole numbers up to this are exact in float32, whatever the order of a sum."""


def resize(picture: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture with `shape` (rows, columns), antialiased bicubic.

    Pixel (row, column) is an area: both pictures cover the same rectangle, so centre i of the result lies at
    (i + 0.5) · scale - 0.5 of the picture; see `crop.scale_matrix`.

    Args:
        picture: Shape (rows, columns), or (rows, columns, 3). A grey picture that is shown as three equal
            channels by a stride of 0 comes back in the same manner, computed once.
        shape: (rows, columns) of the result, each at least 1.

    Returns:
        Of `shape`, with the channels of the picture; the picture itself if it has that shape.

    Raises:
        ValueError: If the picture is not uint8 of such a shape, or a side is below 1.

    >>> resize(np.array([[0, 100], [100, 200]], np.uint8), (2, 4)).tolist()
    [[0, 21, 79, 109], [91, 121, 179, 209]]
    """
    if picture.ndim == 3 and picture.shape[2] == 3 and picture.strides[2] == 0:
        grey = resize_stack(picture[None, :, :, 0], shape)[0]
        return np.broadcast_to(grey[:, :, None], (*grey.shape, 3))
    resized: NDArray[np.uint8] = resize_stack(picture[None], shape)[0]
    return resized


def resize_stack(pictures: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """All pictures of a stack with `shape` (rows, columns), as `resize` does each.

    Args:
        pictures: Shape (pictures, rows, columns), or (pictures, rows, columns, 3).
        shape: (rows, columns) of the result.

    Returns:
        Contiguous, shape (pictures, *shape[, 3]); the stack itself if its pictures have that shape.

    Raises:
        ValueError: As `resize`.

    >>> resize_stack(np.full((2, 5, 7, 3), 9, np.uint8), (3, 3)).shape
    (2, 3, 3, 3)
    """
    colours = pictures.shape[3:]
    if pictures.dtype != np.uint8 or pictures.ndim not in (3, 4) or colours not in ((), (3,)):
        raise ValueError(
            "pictures are uint8 (rows, columns) or (rows, columns, 3), "
            f"got {pictures.dtype} {pictures.shape[1:]}"
        )
    if 0 in pictures.shape[1:] or min(shape) < 1:
        raise ValueError(f"sides are at least 1 px, got {pictures.shape[1:3]} to {shape}")
    if pictures.shape[1:3] == tuple(shape) or len(pictures) == 0:
        return pictures if len(pictures) else np.empty((0, *shape, *colours), np.uint8)
    if compiled.pictures is not None:
        out = np.empty((len(pictures), *shape, *colours), np.uint8)
        deep = (*pictures.shape, 1)[:4]
        resample(np.ascontiguousarray(pictures).reshape(deep), None, out.reshape(len(out), *shape, deep[3]))
        return out
    if by_torch():
        return _by_torch(pictures, shape)
    return np.stack([_by_numpy(one, shape) for one in pictures])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Taps:
    """Which pixels of a line make each pixel of the resized line."""

    starts: NDArray[np.int32]
    """For each output pixel the first source pixel; the others follow it."""
    counts: NDArray[np.int32]
    """How many of them weigh anything, rounded up to a pair."""
    weights: NDArray[np.int16]
    """Shape (output pixels, source pixels that make one), in units of 2 ** -bits. The latter is even, for
    pairs; if the line is odd, the last may lie one pixel beyond it, and weighs nothing."""
    bits: int


@lru_cache(maxsize=64)
def taps(source: int, target: int) -> Taps:
    """The taps to resize a line of `source` pixels to `target` pixels.

    >>> taps(2, 2).weights.tolist(), taps(2, 2).bits
    ([[16384, 0], [0, 16384]], 14)
    """
    scale = source / target
    stretch = max(scale, 1.0)
    reach = REACH * stretch
    centers = scale * (np.arange(target) + 0.5)
    starts = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    counts = np.minimum((centers + reach + 0.5).astype(np.int64), source) - starts
    width = int(counts.max() + counts.max() % 2)
    offsets = np.arange(width)
    weights = _cubic((offsets + starts[:, None] - centers[:, None] + 0.5) * (1.0 / stretch))
    weights[offsets >= counts[:, None]] = 0.0
    total = np.zeros(target)
    for column in weights.T:  # in this order: the sum's last bit must not depend on numpy's own
        total += column
    weights /= total[:, None]
    bits = 0
    while bits < MAX_BITS and int(0.5 + weights.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    fixed = np.trunc(weights * (1 << bits) + np.copysign(0.5, weights))
    # Near the end of the line, start earlier, so that taps don't lead beyond it.
    shifts = np.maximum(starts + width - (source + source % 2), 0)
    moved = offsets - shifts[:, None]
    fixed = np.where(moved >= 0, np.take_along_axis(fixed, np.maximum(moved, 0), axis=1), 0)
    last = np.where(fixed != 0, offsets + 1, 0).max(axis=1)
    return Taps(
        starts=(starts - shifts).astype(np.int32),
        counts=(last + last % 2).astype(np.int32),
        weights=np.ascontiguousarray(fixed, np.int16),
        bits=bits,
    )


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * CUBIC - 4 * CUBIC
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _by_torch(pictures: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    import torch

    if pictures.ndim == 3:
        resized = np.empty((len(pictures), *shape), np.uint8)
        for first in range(0, len(pictures), FOUR):
            some = pictures[first : first + FOUR].astype(PACKED)
            for place in range(1, len(some)):
                some[0] |= some[place] << 8 * place
            resize_four(some[0], resized[first : first + FOUR])
        return resized
    tensor = torch.from_numpy(np.array(pictures, order="C")).permute(0, 3, 1, 2)
    return np.ascontiguousarray(_interpolated(tensor, shape).permute(0, 2, 3, 1).numpy())


def by_torch() -> bool:
    """Whether torch does the resizing: there is no compiled module, and somebody else needed torch."""
    return compiled.pictures is None and "torch" in sys.modules


def resize_four(four: NDArray[Any], out: NDArray[np.uint8]) -> None:
    """Resize up to four grey pictures by torch, as the four channels of one.

    That takes a fifth of the time of one by one, as long as they come pixel by pixel: torch would lay them so
    itself, and take as long for it as for all the rest.

    Args:
        four: Shape (rows, columns), of `PACKED`: the levels of a pixel of each, the first in the lowest byte.
        out: Shape (pictures, rows, columns), 1 to 4 pictures.
    """
    import torch

    tensor = torch.from_numpy(four.view(np.uint8).reshape(1, *four.shape, FOUR)).permute(0, 3, 1, 2)
    done = _interpolated(tensor, out.shape[1:]).permute(0, 2, 3, 1).contiguous()
    resized = done.numpy().view(PACKED)[0, :, :, 0]
    for place, picture in enumerate(out):
        picture[:] = resized >> 8 * place  # what doesn't fit a byte is cut off


def _interpolated(tensor: Any, shape: tuple[int, ...]) -> Any:
    from torch.nn.functional import interpolate

    return interpolate(tensor, size=list(shape), mode="bicubic", antialias=True, align_corners=False)


def _by_numpy(picture: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Along each axis, blocks of output pixels are one small matrix product; its whole numbers are exact."""
    for axis, target in ((1, shape[1]), (0, shape[0])):
        if picture.shape[axis] != target:
            lines = np.moveaxis(picture, axis, -1)
            picture = np.moveaxis(_along_lines(lines, taps(picture.shape[axis], target)), -1, axis)
    return np.ascontiguousarray(picture)


def _along_lines(lines: NDArray[np.uint8], line: Taps) -> NDArray[np.uint8]:
    width = line.weights.shape[1]
    bound = 255 * int(np.abs(line.weights.astype(np.int64)).sum(axis=1).max()) + (1 << line.bits)
    number: Any = np.float32 if bound < FLOAT32_EXACT else np.float64
    values = lines.astype(number)
    out = np.empty((*lines.shape[:-1], len(line.starts)), np.uint8)
    for first in range(0, len(line.starts), BLOCK):
        starts = line.starts[first : first + BLOCK]
        low, high = int(starts.min()), int(starts.max()) + width
        matrix = np.zeros((len(starts), high - low), number)
        columns = (starts - low)[:, None] + np.arange(width)
        np.put_along_axis(matrix, columns, line.weights[first : first + BLOCK].astype(number), axis=1)
        sums = values[..., low:high] @ matrix[:, : lines.shape[-1] - low].T
        sums += number(1 << line.bits >> 1)
        sums *= number(1 / (1 << line.bits))
        np.clip(np.floor(sums, out=sums), 0, 255, out=sums)
        out[..., first : first + BLOCK] = sums
    return out


def resample(
    source: NDArray[np.uint8] | NDArray[np.uint16],
    levels: tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]] | None,
    out: NDArray[np.uint8],
) -> None:
    """The compiled route: look up grey levels, if there are any, and resize.

    Args:
        source: Contiguous; uint8 (pictures, rows, columns, channels), or with levels uint16 (pictures, rows,
            columns).
        levels: Grey levels (tables, 65536), the lines they lie on (tables, 7), and which of them for each
            picture and channel of the result.
        out: Contiguous, shape (pictures, rows, columns, channels), 1 or 3 channels.

    Raises:
        ValueError: If the shapes don't fit each other.
        MemoryError: If there is none for one picture half done.
    """
    fast = compiled.pictures
    assert fast is not None
    table, straight, which = levels or (b"", b"", np.empty(0, np.int32))
    deep = out.shape[3] if levels else 0
    lines = [_line(*sides) for sides in zip(source.shape[1:3], out.shape[1:3], strict=True)]

    def part(start: int, stop: int) -> None:
        chosen = which[start * deep : stop * deep]
        sizes = stop - start, out.shape[3]
        fast.resample(
            fast.KERNELS - 1, *sizes, source[start:stop], table, straight, chosen, out[start:stop], *lines
        )

    in_parts(part, len(out), least=-(-_WORTH_A_THREAD // max(1, out[:1].size)))


def resample_files(
    source: tuple[tuple[bytes, ...], NDArray[np.int64]],
    levels: tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]],
    out: NDArray[np.uint8],
    *,
    shape: tuple[int, int],
) -> int:
    """As `resample`, of planes of 16 bits that are read from files, one by one; in the caller's thread.

    Args:
        source: The files, and where in each the plane begins.
        levels: As for `resample`.
        out: As for `resample`.
        shape: (rows, columns) of the planes.

    Returns:
        How many pictures were done, up to the first whose plane isn't all there.

    Raises:
        ValueError: If the shapes don't fit each other.
        MemoryError: If there is none for one picture half done.
    """
    fast = compiled.pictures
    assert fast is not None
    lines = [_line(*sides) for sides in zip(shape, out.shape[1:3], strict=True)]
    done: int = fast.resample(fast.KERNELS - 1, len(out), out.shape[3], source, *levels, out, *lines)
    return done


def _line(source: int, target: int) -> tuple[Any, ...]:
    if source == target:
        return source, target, 0, 0, b"", b"", b""
    line = taps(source, target)
    return source, target, line.weights.shape[1], line.bits, line.starts, line.counts, line.weights
