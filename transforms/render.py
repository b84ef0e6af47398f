"""Planes as their files store them to pictures of grey levels, at the size that a model is shown."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.transforms import compiled
from medmllm_plugin.transforms.beginnings import encoded
from medmllm_plugin.transforms.resize import (
    FOUR,
    PACKED,
    by_torch,
    resample,
    resample_files,
    resize_four,
    resize_stack,
)
from medmllm_plugin.transforms.straight import NONE, line_of
from medmllm_plugin.volume import Lying, Stored

Window = Callable[[NDArray[np.float32]], NDArray[np.uint8]]
"""Modality values of any shape to grey levels of that shape, value by value, as `window.apply_window`."""

Levels = dict[tuple[int, int], tuple[NDArray[np.float32], Window, NDArray[np.uint8], NDArray[np.int32]]]
"""By the identities of table and window: both, which so live as long, the grey levels of the table, and the
line that they lie on, or `straight.NONE`."""

_AT_A_TIME = 1 << 16
"""Pixels that are looked up together without the compiled part: as many as lie in the cache."""


def render(
    stored: Stored,
    windows: Sequence[Sequence[Window]],
    shape: tuple[int, int] | None = None,
    *,
    known: Levels | None = None,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Pictures of planes: the window of each value, then the size.

    A window is computed once for the 65,536 values of a table, not for each voxel; the grey levels are those
    that it gives for the float32 values themselves.

    Args:
        stored: The planes.
        windows: What is shown of each plane, in its order: one window for a grey picture, three for red,
            green and blue; as many for each plane. A single entry is for all planes.
        shape: (rows, columns) of the pictures, resized as by `resize.resize`; None leaves the planes' own.
        known: Grey levels that other calls with the same tables and windows left here, and may use.
        out: Where to put the result.

    Returns:
        Contiguous, shape (planes, rows, columns) for one window, (planes, rows, columns, 3) for three.

    Raises:
        ValueError: If there are not as many windows as planes, or not one or three for each.

    >>> stored = Stored(raw=np.array([[[0, 1]]], np.uint16), tables=(np.arange(65536, dtype=np.float32),))
    >>> render(stored, [[lambda values: np.where(values > 0, 255, 7).astype(np.uint8)]]).tolist()
    [[[7, 255]]]
    """
    planes, rows, columns = stored.raw.shape
    if len(windows) == 1:
        windows = [windows[0]] * planes
    channels = {len(one) for one in windows}
    if len(windows) != planes or not (channels <= {1} or channels <= {3}):
        raise ValueError(
            f"expected 1 or 3 windows for each of {planes} planes, got {len(windows)} entries of "
            f"{sorted(channels)} windows"
        )
    deep = 3 if channels == {3} else 1
    levels, lines, which = _levels(stored.tables, windows, {} if known is None else known)
    target = shape or (rows, columns)
    if compiled.pictures is not None and planes:
        result = np.empty((planes, *target, deep), np.uint8) if out is None else out
        raw = np.require(stored.raw, requirements=["C", "A"])
        resample(raw, (levels, lines, which), result.reshape(planes, *target, deep))
        return result.reshape(planes, *target, deep) if deep == 3 else result.reshape(planes, *target)
    if deep == 1 and target != (rows, columns) and by_torch():
        result = np.empty((planes, *target), np.uint8) if out is None else out
        for first in range(0, planes, FOUR):
            some = slice(first, first + FOUR)
            resize_four(_packed(stored.raw[some], levels, which[some]), result[some])
        return result
    pictures = np.empty((planes * deep, rows, columns), np.uint8)
    for n, number in enumerate(which):
        _look_up(levels[number], stored.raw[n // deep], pictures[n])
    pictures = resize_stack(pictures, target)
    if deep == 3:
        pictures = np.ascontiguousarray(np.moveaxis(pictures.reshape(planes, deep, *target), 1, -1))
    if out is None:
        return pictures
    out[:] = pictures
    return out


def render_lying(
    lying: Lying,
    windows: Sequence[Sequence[Window]],
    *,
    known: Levels,
    out: NDArray[np.uint8],
) -> int:
    """Pictures of planes that lie in files, each read and drawn before the next: it never leaves the cache.

    Args:
        lying: The planes.
        windows: As many as planes, as `render` takes them.
        known: As for `render`.
        out: Where to put the pictures, as `render` returns them.

    Returns:
        How many were done, from the first: what follows must be read as usual, which says what is wrong
        with it. None are done without the compiled part.
    """
    if compiled.pictures is None or compiled.read is None:
        return 0
    deep = len(windows[0])
    levels, lines, which = _levels(lying.tables, windows, known)
    return resample_files(
        (encoded(lying.files), lying.offsets),
        (levels, lines, which),
        out.reshape(*out.shape[:3], deep),
        shape=(lying.rows, lying.columns),
    )


def _look_up(levels: NDArray[np.uint8], raw: NDArray[np.uint16], out: NDArray[np.uint8]) -> None:
    """A part at a time, as numpy makes numbers of 64 bits of them first; they can't leave the table."""
    step = max(1, _AT_A_TIME // max(1, raw.shape[1]))
    for first in range(0, len(raw), step):
        rows = slice(first, first + step)
        np.take(levels, raw[rows], out=out[rows], mode="wrap")


def _packed(
    raw: NDArray[np.uint16], levels: NDArray[np.uint8], which: NDArray[np.int32]
) -> NDArray[np.uint32]:
    """Grey levels of up to four planes as `resize_four` takes them: each table puts them in their place."""
    tables = [levels[number].astype(PACKED) << 8 * place for place, number in enumerate(which)]
    packed = np.empty(raw.shape[1:], PACKED)
    step = max(1, _AT_A_TIME // max(1, raw.shape[2]))
    other = np.empty((step, raw.shape[2]), PACKED)
    for first in range(0, raw.shape[1], step):
        rows = slice(first, first + step)
        mine = packed[rows]
        np.take(tables[0], raw[0, rows], out=mine, mode="wrap")
        for plane, table in zip(raw[1:], tables[1:], strict=True):
            next_one = other[: len(mine)]
            mine |= np.take(table, plane[rows], out=next_one, mode="wrap")
    return packed


def shown(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey pictures as `Slice.pixels` has them, three equal channels, without a copy.

    Args:
        grey: Shape (rows, columns), or (pictures, rows, columns).

    Returns:
        Read-only, of that shape and 3, stride 0 along the channels.

    >>> shown(np.array([[5]], np.uint8)).tolist()
    [[[5, 5, 5]]]
    """
    return np.broadcast_to(grey[..., None], (*grey.shape, 3))


def _levels(
    tables: Sequence[NDArray[np.float32]], windows: Sequence[Sequence[Window]], known: Levels
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
    """Grey levels of all patterns, shape (tables, 65536), their lines, and which of them for each channel."""
    numbers: dict[tuple[int, int], int] = {}
    which = []
    for table, channels in zip(tables, windows, strict=True):
        for window in channels:
            key = id(table), id(window)
            if key not in known:
                lasting = not table.flags.writeable and isinstance(window, Hashable)
                made = _levels_of(_Pair(table, window)) if lasting else (window(table), NONE)
                known[key] = table, window, *made
            which.append(numbers.setdefault(key, len(numbers)))
    if not numbers:
        return np.empty((0, 65536), np.uint8), np.empty((0, 7), np.int32), np.empty(0, np.int32)
    levels = np.stack([known[key][2] for key in numbers])
    return levels, np.stack([known[key][3] for key in numbers]), np.array(which, np.int32)


class _Pair:
    """A table that nobody can change, by its identity, and a window, by its value."""

    __slots__ = ("table", "window")

    def __init__(self, table: NDArray[np.float32], window: Window) -> None:
        self.table = table
        self.window = window

    def __hash__(self) -> int:
        return hash((id(self.table), self.window))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Pair) and other.table is self.table and other.window == self.window


@lru_cache(maxsize=32)  # the series of a department have few rescales, and are shown in few windows
def _levels_of(pair: _Pair) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    levels = pair.window(pair.table)
    return levels, line_of(pair.table, pair.window, levels)
