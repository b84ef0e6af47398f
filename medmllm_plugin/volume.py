"""A series or file as planes of values whose place is known, decoded only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medmllm_plugin.geometry import Matrix, grid_affine
from medmllm_plugin.resampled import Source

_BLOCK = 8
"""Planes read at a time where all are wanted, so that they are still in the cache when they are turned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """Which study this is, without a name in it."""

    modality: str
    """Modality (0008,0060), such as CT; for a volume file such as NIfTI what the user said, else OT."""
    study_instance_uid: str | None = None
    """Study Instance UID (0020,000D)."""
    series_instance_uid: str | None = None
    """Series Instance UID (0020,000E) of the images shown."""
    frame_of_reference_uid: str | None = None
    """Frame of Reference UID (0020,0052)."""
    phantom: str | None = None
    """The kind of our own synthetic phantom (see `medmllm_plugin.phantoms`), None for everything else."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Plane:
    """One image of a volume and its place."""

    source: Source
    """The instance, frame or file slice it is; or how it was computed from several."""
    rows: int
    columns: int
    to_patient: Matrix | None
    """Shape (4, 4): (column, row, 0, 1) to LPS mm; None where the image has no place in the patient
    (a projection radiograph, a photograph)."""
    spacing: tuple[float, float] | None
    """Between rows, then between columns, mm (at the detector for a radiograph); None where unknown."""
    patient_orientation: tuple[str, str] | None = None
    """Where a row, then a column leads by Patient Orientation (0020,0020), in letters L, R, A, P, S, I, such
    as ('L', 'I'); says left and right where there is no matrix. None if the header doesn't say."""
    window: tuple[float, float] | None = None
    """Window Center and Width (0028,1050), (0028,1051) that the header suggests."""
    padding: tuple[float, float] | None = None
    """Lowest and highest value that is padding, Pixel Padding Value (0028,0120): it shows nothing of the
    patient, so it is displayed black and counts in no percentile."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stored:
    """Planes as their files store them, and the tables that make modality values of them.

    Whatever is done to single values (rescale, Modality LUT, window) can be done to the 65,536 entries of a
    table instead of every voxel.
    """

    raw: NDArray[np.uint16]
    """Shape (planes, rows, columns): the 16 bits of each voxel, whatever they mean."""
    tables: tuple[NDArray[np.float32], ...]
    """For each plane shape (65536,): the modality value of each pattern of bits. Planes of one rescale share
    one array."""

    def values(self, n: int) -> NDArray[np.float32]:
        """Modality values of the nth of these planes, float32 (rows, columns)."""
        return np.asarray(self.tables[n][self.raw[n]], np.float32)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Lying:
    """Where planes lie that files hold just as `Stored.raw` has them."""

    files: tuple[str, ...]
    """For each plane its file."""
    offsets: NDArray[np.int64]
    """For each where it begins in that file, bytes."""
    rows: int
    columns: int
    tables: tuple[NDArray[np.float32], ...]
    """As `Stored.tables`."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class InFiles:
    """A `Volume.read_stored` of planes that lie in files as they are, for others to read them themselves."""

    read: Callable[[Sequence[int]], Stored | None]
    lying: Callable[[Sequence[int]], Lying]
    """Where planes of those numbers lie; they are read as `read` reads them."""

    def __call__(self, ks: Sequence[int]) -> Stored | None:
        """See `Volume.read_stored`."""
        return self.read(ks)


class _Shift(NamedTuple):
    by: int
    limit: int
    """Patterns below this, read as signed numbers, are their value less `by`."""


def _shift(table: NDArray[np.float32]) -> _Shift | None:
    """How a table adds one whole number to patterns, so that no sum leaves 16 bits; None if it doesn't."""
    patterns = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.float32)
    by = float(table[0])
    same = np.flatnonzero(table - patterns != by)
    limit = int(same[0]) if len(same) else 1 << 16
    reached = table[:limit]
    fits = by.is_integer() and reached.min() >= -(1 << 15) and reached.max() < 1 << 15
    return _Shift(int(by), limit) if fits and -(1 << 15) <= by < 1 << 15 else None


def _whole(values: NDArray[Any]) -> NDArray[np.int16]:
    with np.errstate(invalid="ignore"):  # what doesn't fit is found out below
        whole = values.astype(np.int16)
    if values.ndim != 2 or not np.array_equal(whole, values):
        raise ValueError("the values are not whole numbers of 16 bits; take them as floating-point numbers")
    return whole


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Volume:
    """A stack of planes, sorted along their normal, of one series.

    Each plane has its own exact matrix, so uneven gaps and gantry tilt need no repair.
    """

    planes: Sequence[Plane]
    """May be made as they are asked for."""
    read_plane: Callable[[int], NDArray[np.float32] | NDArray[np.uint8]] = field(repr=False)
    """Decodes plane k: float32 (rows, columns) of modality values (CT: Hounsfield units), or uint8
    (rows, columns, 3) for colour."""
    study: Study
    read_stored: Callable[[Sequence[int]], Stored | None] = field(default=lambda ks: None, repr=False)
    """Planes of those numbers as stored, read side by side; None where that is no gain (colour, float files).
    `read_plane` gives the same values. May be `InFiles`."""
    compressed: bool = False
    """Whether planes are decoded when they are read, best many at a time."""
    unit: str = ""
    """Unit of the values: `HU` for CT, else empty."""
    inverted: bool = False
    """True for MONOCHROME1: the lowest value is displayed white (PS3.3 C.7.6.3.1.2)."""
    headers: Sequence[Dataset] = field(default=(), repr=False)
    """One header without pixel data for each instance, in the order of the planes; empty if not DICOM. May be
    read as they are asked for."""
    notes: tuple[str, ...] = ()
    """What the reader should know: which series was chosen and why, what was left out and why."""

    def __post_init__(self) -> None:
        if not self.planes:
            raise ValueError("a volume needs at least one plane")

    def __len__(self) -> int:
        return len(self.planes)

    @property
    def affine(self) -> Matrix:
        """(column, row, slice, 1) to LPS mm.

        Raises:
            GeometryError: If the planes are not one regular grid, or have no place.
        """
        return grid_affine([p.to_patient for p in self.planes if p.to_patient is not None])

    def integers(self) -> NDArray[np.int16]:
        """All planes as whole numbers, shape (slices, rows, columns): CT in Hounsfield units.

        Half the memory of `voxels`, and several times as fast.

        Raises:
            ValueError: If the values are not whole numbers of 16 bits.
        """
        result = np.empty((len(self), self.planes[0].rows, self.planes[0].columns), np.int16)
        self._fill(result)
        return result

    def voxels(self) -> NDArray[np.float32] | NDArray[np.uint8]:
        """All planes decoded, shape (slices, rows, columns[, 3])."""
        if self.read_stored([0]) is None:
            planes: list[NDArray[Any]] = [self.read_plane(k) for k in range(len(self))]
            return np.stack(planes)
        result = np.empty((len(self), self.planes[0].rows, self.planes[0].columns), np.float32)
        self._fill(result)
        return result

    def _fill(self, result: NDArray[np.int16] | NDArray[np.float32]) -> None:
        shifts: dict[int, tuple[NDArray[np.float32], _Shift | None]] = {}
        for start in range(0, len(self), _BLOCK):
            ks = range(start, min(start + _BLOCK, len(self)))
            stored = self.read_stored(ks)
            for n, k in enumerate(ks):
                if stored is None:
                    result[k] = (
                        self.read_plane(k) if result.dtype == np.float32 else _whole(self.read_plane(k))
                    )
                    continue
                table, raw = stored.tables[n], stored.raw[n]
                if id(table) not in shifts:
                    shifts[id(table)] = table, _shift(table)
                shift = shifts[id(table)][1]
                if shift is not None and (shift.limit > 0xFFFF or raw.max() < shift.limit):
                    np.add(raw.view(np.int16), result.dtype.type(shift.by), out=result[k])
                else:
                    values = stored.values(n)
                    result[k] = values if result.dtype == np.float32 else _whole(values)
