"""Planes as their files store them to pictures of grey levels, at the size that a model is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.transforms import compiled
from medmllm_plugin.transforms.resize import resample, resize_stack
from medmllm_plugin.volume import Stored

Window = Callable[[NDArray[np.float32]], NDArray[np.uint8]]
"""Modality values of any shape to grey levels of that shape, value by value, as `window.apply_window`."""


def render(
    stored: Stored, windows: Sequence[Sequence[Window]], shape: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Pictures of planes: the window of each value, then the size.

    A window is computed once for the 65,536 values of a table, not for each voxel; the grey levels are those
    that it gives for the float32 values themselves.

    Args:
        stored: The planes.
        windows: What is shown of each plane, in its order: one window for a grey picture, three for red,
            green and blue; as many for each plane. A single entry is for all planes.
        shape: (rows, columns) of the pictures, resized as by `resize.resize`; None leaves the planes' own.

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
    levels, which = _levels(stored, windows)
    target = shape or (rows, columns)
    if compiled.pictures is not None and planes:
        out = np.empty((planes, *target, deep), np.uint8)
        resample(np.require(stored.raw, requirements=["C", "A"]), (levels, which), out)
        return out if deep == 3 else out[..., 0]
    pictures = np.empty((planes * deep, rows, columns), np.uint8)
    for n, number in enumerate(which):
        np.take(levels[number], stored.raw[n // deep], out=pictures[n], mode="clip")
    pictures = resize_stack(pictures, target)
    if deep == 1:
        return pictures
    return np.ascontiguousarray(np.moveaxis(pictures.reshape(planes, deep, *target), 1, -1))


def shown(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A grey picture as `Slice.pixels` has it, three equal channels, without a copy.

    Args:
        grey: Shape (rows, columns).

    Returns:
        Read-only, shape (rows, columns, 3), stride 0 along the channels.

    >>> shown(np.array([[5]], np.uint8)).tolist()
    [[[5, 5, 5]]]
    """
    return np.broadcast_to(grey[:, :, None], (*grey.shape, 3))


def _levels(
    stored: Stored, windows: Sequence[Sequence[Window]]
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Grey levels of all patterns, shape (tables, 65536), and for each plane and channel which of them."""
    made: dict[tuple[int, int], int] = {}
    levels: list[NDArray[np.uint8]] = []
    which = []
    for table, channels in zip(stored.tables, windows, strict=True):
        for window in channels:
            key = id(table), id(window)
            if key not in made:
                made[key] = len(levels)
                levels.append(window(table))
            which.append(made[key])
    return np.stack(levels) if levels else np.empty((0, 65536), np.uint8), np.array(which, np.int32)
