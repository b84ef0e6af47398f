"""Values between the planes of a volume; planes are read when first needed, and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import StudyError
from medmllm_plugin.geometry import Matrix
from medmllm_plugin.resampled import Grid
from medmllm_plugin.volume import Stored, Volume

_BATCH = 16
"""Planes that are asked for at once, so that what a reader holds beside them stays small."""
_ON_GRID = 1e-6
"""Places this close to a row, column or plane, as a part of the way to the next, are on it."""

_ROWS = 64
"""Rows that are computed at once, so that what lies between steps stays in the processor's cache."""

Index = NDArray[np.int64]
Tap = tuple[Index, Index, NDArray[np.float32]]
"""For places on one axis: the voxel below, the one above, and the part of the way to that."""


class PlaneCache:
    """The planes of a volume, kept as they are stored, 2 bytes a voxel, or as values, 4 bytes.

    Values are kept where there is no one table that makes them of what is stored. Beyond a
    bound those that were not used for the longest time are dropped.

    Args:
        volume: What is read.
        memory: Most bytes of voxels kept; two planes are kept in any case.
    """

    def __init__(self, volume: Volume, *, memory: int) -> None:
        self._volume, self._memory, self._least = volume, memory, 2
        self._shape = (volume.planes[0].rows, volume.planes[0].columns)
        self._table: NDArray[np.float32] | None = None
        self._kept: NDArray[Any] = np.empty(0)
        self._slots: OrderedDict[int, int] = OrderedDict()
        self.lock = Lock()
        """To be held from `load` to the last `values` of what was loaded."""

    @property
    def capacity(self) -> int:
        """How many planes are kept at once; known to the full once a plane was loaded."""
        plane = (4 if self._table is None else 2) * self._shape[0] * self._shape[1]
        return min(len(self._volume), max(self._least, self._memory // plane))

    def load(self, planes: Sequence[int]) -> Index:
        """Read those of these planes, at most `capacity`, that are not kept.

        Returns:
            For each plane of the volume where it is kept; 0 for those that are not.

        Raises:
            StudyError: If they can't be decoded, or are colour images.
        """
        for k in planes:
            if k in self._slots:
                self._slots.move_to_end(k)
        missing = [k for k in planes if k not in self._slots]
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            stored = self._volume.read_stored(batch)
            if not self._kept.size:
                self._table = None if stored is None else stored.tables[0]
                self._make_room()
            if self._table is not None and not _all_by(self._table, stored):
                self._table, self._least = None, max(2, len(planes))
                self._make_room()
                return self.load(planes)
            self._keep(batch, stored)
        slots = np.zeros(len(self._volume), np.int64)
        for k, slot in self._slots.items():
            slots[k] = slot
        return slots

    def values(self, at: Index) -> NDArray[np.float32]:
        """Values of loaded voxels by their flat places: (slot · rows + row) · columns + column."""
        found: NDArray[Any] = self._kept.reshape(-1).take(at)
        return np.asarray(found if self._table is None else self._table.take(found), np.float32)

    def _make_room(self) -> None:
        kind = np.float32 if self._table is None else np.uint16
        self._slots, self._kept = OrderedDict(), np.empty((self.capacity, *self._shape), kind)

    def _keep(self, planes: Sequence[int], stored: Stored | None) -> None:
        for n, k in enumerate(planes):
            slot = len(self._slots)
            if slot >= len(self._kept):
                slot = self._slots.popitem(last=False)[1]
            if stored is None:
                self._kept[slot] = grey_plane(self._volume, k)
            else:
                self._kept[slot] = stored.values(n) if self._table is None else stored.raw[n]
            self._slots[k] = slot


def _all_by(table: NDArray[np.float32], stored: Stored | None) -> bool:
    """Whether planes were given as stored, and all with this table."""
    return stored is not None and all(one is table or np.array_equal(one, table) for one in stored.tables)


def grey_plane(volume: Volume, k: int) -> NDArray[np.float32]:
    """The values of a plane that is to be mixed with others.

    Raises:
        StudyError: If it can't be decoded, or is a colour image.
    """
    values = volume.read_plane(k)
    if values.ndim != 2:
        raise StudyError(
            found=f"{volume.study.modality} images in colour",
            expected="one value for each pixel",
            where="a reformat or slab",
            remedy="show the images as they are",
        )
    return np.asarray(values, np.float32)


def sample(
    cache: PlaneCache, grid: Grid, to_patient: Matrix, *, rows: int, columns: int, outside: float
) -> NDArray[np.float32]:
    """The values of a plane laid through a volume, by linear interpolation along the grid's three directions.

    Within half a voxel beyond the outermost centres the outermost values stand, as in ITK.

    Args:
        cache: The volume's planes.
        grid: Their geometry.
        to_patient: Shape (4, 4): (column, row, 0, 1) of the wanted plane to LPS mm.
        rows: Of the wanted plane.
        columns: Of the wanted plane.
        outside: The value of what lies outside of the volume.

    Returns:
        Shape (rows, columns).

    Raises:
        StudyError: If a plane can't be decoded, or is a colour image.
    """
    places = _places(grid, to_patient, rows, columns)
    limits = (len(grid), grid.rows, grid.columns)
    inside = np.ones((rows, columns), bool)
    for place, limit in zip(places, limits, strict=True):
        inside &= (place >= -0.5 - _ON_GRID) & (place <= limit - 0.5 + _ON_GRID)
    result = np.full((rows, columns), outside, np.float32)
    if not inside.any():
        return result
    taps = [_tap(place, limit) for place, limit in zip(places, limits, strict=True)]
    needed = _needed(taps[0], inside, len(grid))
    with cache.lock:
        cache.load(needed[:1])
        if len(needed) <= cache.capacity:
            slots = cache.load(needed)
            for start in range(0, rows, _ROWS):
                part = slice(start, start + _ROWS)
                some = [_rows(tap, part) for tap in taps]
                np.copyto(result[part], _mix(cache, slots, some, grid), where=inside[part])
            return result
        start = 0
        while start < len(grid):
            run = cache.capacity - 1
            here = inside & (taps[0][0] >= start) & (taps[0][0] < start + run)
            if here.any():
                some = [_chosen(tap, here) for tap in taps]
                slots = cache.load(_needed(some[0], here[here], len(grid)))
                result[here] = _mix(cache, slots, some, grid)
            start += run
    return result


def _places(grid: Grid, to_patient: Matrix, rows: int, columns: int) -> list[NDArray[np.float64]]:
    """(position, row, column) in the grid of each pixel; of length 1 where they don't change."""
    affine = _regular(grid)
    to_grid = np.linalg.inv(grid.first if affine is None else affine) @ to_patient
    across, down = np.arange(columns)[None, :], np.arange(rows)[:, None]
    column, row, position = (_linear(rates, across, down) for rates in to_grid[:3])
    if affine is None:
        position, shift = grid.along(position)
        column, row = column - shift[..., 0], row - shift[..., 1]
    return [position, row, column]


def _regular(grid: Grid) -> Matrix | None:
    """(column, row, position, 1) to LPS mm, where one matrix says it for all planes."""
    along = np.arange(len(grid))[:, None] / (len(grid) - 1)
    steps = np.column_stack([grid.shifts, grid.heights / grid.heights[-1]])
    if np.abs(steps - along * steps[-1]).max() > _ON_GRID / len(grid):
        return None
    affine = grid.first.copy()
    affine[:3, 2] = grid.first[:3, :3] @ [*grid.shifts[-1], grid.heights[-1]] / (len(grid) - 1)
    return affine


def _linear(
    rates: NDArray[np.float64], across: NDArray[np.int64], down: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Rates · (across, down, 0, 1), without what would change nothing over the whole plane."""
    place = np.full((1, 1), rates[3])
    for rate, steps in zip(rates[:2], (across, down), strict=True):
        if abs(rate) * steps.size > _ON_GRID / 10:
            place = place + rate * steps
    return place


def _tap(places: NDArray[np.float64], limit: int) -> Tap:
    held = np.clip(places, 0, limit - 1)
    low = np.floor(held + _ON_GRID).astype(np.int64)
    part = held - low
    part[part < _ON_GRID] = 0
    return low, np.minimum(low + 1, limit - 1), part.astype(np.float32)


def _rows(tap: Tap, part: slice) -> Tap:
    low, high, up = tap
    return (low[part], high[part], up[part]) if len(low) > 1 else tap


def _chosen(tap: Tap, here: NDArray[np.bool_]) -> Tap:
    low, high, part = tap
    low, high = (np.broadcast_to(one, here.shape)[here] for one in (low, high))
    return low, high, np.broadcast_to(part, here.shape)[here]


def _needed(tap: Tap, inside: NDArray[np.bool_], planes: int) -> list[int]:
    """The planes that the pixels inside need."""
    low, high, part = tap
    flat = tuple(axis for axis, size in enumerate(low.shape) if size == 1)
    used = inside.any(axis=flat, keepdims=True)
    needed = np.zeros(planes, bool)
    needed[low[used]] = True
    needed[high[used & (part > 0)]] = True
    return [int(k) for k in np.flatnonzero(needed)]


def _mix(cache: PlaneCache, slots: Index, taps: Sequence[Tap], grid: Grid) -> NDArray[np.float32]:
    """Values between the eight voxels around each place; fewer where all are on a plane, row or column."""
    planes, rows, columns = taps

    def along_columns(start: Index) -> NDArray[np.float32]:
        return _between(columns, lambda column: cache.values(start + column))

    def along_rows(plane: Index) -> NDArray[np.float32]:
        first = slots[plane] * grid.rows
        return _between(rows, lambda row: along_columns((first + row) * grid.columns))

    return _between(planes, along_rows)


def _between(tap: Tap, values: Any) -> NDArray[np.float32]:
    low, high, part = tap
    below: NDArray[np.float32] = values(low)
    if not part.any():
        return below
    above: NDArray[np.float32] = values(high)
    return below + part * (above - below)
