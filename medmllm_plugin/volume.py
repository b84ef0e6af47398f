"""A series or file as planes of values whose place is known, decoded only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medmllm_plugin.geometry import Matrix, grid_affine
from medmllm_plugin.source import ImageRef


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """Which study this is, without a name in it."""

    modality: str
    """Modality (0008,0060), such as CT; for a NIfTI file what the user said, else OT."""
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

    source: ImageRef
    """The instance, frame or file slice it is."""
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
    `read_plane` gives the same values."""
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

    def voxels(self) -> NDArray[np.float32] | NDArray[np.uint8]:
        """All planes decoded, shape (slices, rows, columns[, 3])."""
        stored = self.read_stored(range(len(self)))
        if stored is not None:
            return np.stack([stored.values(n) for n in range(len(self))])
        planes: list[NDArray[Any]] = [self.read_plane(k) for k in range(len(self))]
        return np.stack(planes)
