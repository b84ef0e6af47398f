"""Where the voxels of a file lie, what they mean and where they are in the patient → a `Volume`.

What NIfTI, NRRD and MetaImage have in common. Their readers make a `VoxelFile` of a header; nothing is read
or allocated before it was compared with the size of the file. Slices are cut along the third stored axis,
whatever it is in the patient, so `FileImage.index` names a slice of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import GeometryError, InputError, StudyError
from medmllm_plugin.geometry import Matrix
from medmllm_plugin.source import FileImage
from medmllm_plugin.transforms.entries import one_line
from medmllm_plugin.transforms.gaps import spacing_notes
from medmllm_plugin.transforms.in_plane import AS_STORED, radiological
from medmllm_plugin.transforms.unpack import MOST_PACKED, Packing, Unpacked
from medmllm_plugin.volume import Plane, Stored, Study, Volume

LARGEST_VOLUME = 16 << 30
"""Most bytes of one volume: more is a damaged header or a bomb."""
LARGEST_SLICE = 1 << 30
"""Most bytes of one slice."""
SUSPECT = 1 << 30
"""A packed volume larger than this must not be more than `SUSPECT_RATIO` times its file."""
SUSPECT_RATIO = 200
WIDEST = 10_000.0
"""Longest axis, mm: what is longer is no patient, so a unit or a direction is wrong."""

_SAMPLED = 16


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VoxelFile:
    """A file of one or more 3-D volumes, as its header describes it."""

    path: Path
    """The file that was given; errors name it."""
    kind: str
    """NIfTI, NRRD or MetaImage."""
    data: Path
    """The file that holds the voxels: the same one, or another beside it."""
    offset: int
    """Where the voxels begin: in the unpacked bytes for gzip as NIfTI and NRRD have it, else in the file."""
    start: int = 0
    """Where packed bytes begin in the file."""
    packing: Packing = "none"
    dtype: np.dtype[Any]
    """Of one value as stored, with its byte order."""
    shape: tuple[int, int, int]
    """Sizes of the three axes in space, the fastest first."""
    volumes: int = 1
    """How many volumes the file has."""
    volumes_axis: int = 3
    """Where the axis of the volumes stands among the stored ones, 0 to 3; 3 is one volume after the other."""
    volumes_are: str = "along an axis that the file does not name"
    """What tells them apart."""
    colour: bool = False
    """Whether each voxel is three bytes, red, green, blue."""
    slope: float = 1.0
    inter: float = 0.0
    """value = stored x slope + inter."""
    affine: Matrix | None
    """Stored (i, j, k, 1) to LPS mm; None where the file doesn't say where left is."""
    spacing: tuple[float, float] | None = None
    """Where there is no affine: between rows, then between columns, mm, if that is known."""
    modality: str | None = None
    """What the file itself says that it shows."""
    notes: tuple[str, ...] = ()


def refused(path: Path, found: str, *, kind: str = "NIfTI") -> StudyError:
    """The error for a file that is no whole volume of numbers."""
    return StudyError(
        found=found,
        expected=f"one whole {kind} volume of plain numbers",
        where=path,
        remedy="split or convert it, or fetch it again",
    )


def data_beside(path: Path, named: str, *, kind: str) -> Path:
    """The file of voxels that a header names, in its own folder or below.

    Raises:
        StudyError: If it is not there, or elsewhere: a header must not make us read any file.
    """
    data = path.parent / named
    parts = Path(named.replace("\\", "/")).parts
    if not parts or Path(named).is_absolute() or ".." in parts:
        raise refused(path, f"voxels in {one_line(named)!r}, outside the folder of the header", kind=kind)
    if not data.is_file():
        raise refused(
            path, f"a header whose voxels should be in {one_line(named)!r}, which is not there", kind=kind
        )
    return data


def read_with(
    header: Callable[[Path], VoxelFile], path: Path, *, kind: str, modality: str | None, volume: int | None
) -> Volume:
    """One volume of a file whose header a format's own function reads; damage is one error of ours.

    Args:
        header: Reads the header.
        path: The file.
        kind: The format's name.
        modality: As `open_volume`.
        volume: As `open_volume`.

    Raises:
        StudyError: As `open_volume`, or if the header is damaged in a way that no check foresees.
        GeometryError: As `open_volume`.
    """
    try:
        return open_volume(header(path), modality=modality, volume=volume)
    except InputError:
        raise
    except Exception as error:
        what = f"what is not {kind}, or is damaged or cut off ({type(error).__name__})"
        raise refused(path, what, kind=kind) from error


def open_volume(file: VoxelFile, *, modality: str | None = None, volume: int | None = None) -> Volume:
    """One volume of a file; an unpacked one is read slice by slice, when asked.

    Values that are not finite numbers become 0.

    Args:
        file: What its header says.
        modality: What it shows, such as CT or MR. Without it: what the file says, else CT if the values can
            only be Hounsfield units, else OT; the notes say which.
        volume: Which of several, from 0; the first if None.

    Raises:
        StudyError: If it is cut off or damaged, claims more than its bytes can hold, or has no such volume.
        GeometryError: If an axis is longer than `WIDEST`.
    """
    chosen, about_volumes = _chosen(file, volume)
    _require_plausible(file)
    _require_patient(file)
    slices = _Slices(file, chosen)
    plan = AS_STORED if file.affine is None else radiological(file.affine)
    matrices = None if file.affine is None else plan.matrices(file.affine, file.shape)
    order = list(range(file.shape[2]))
    if matrices is not None and file.affine is not None and file.affine[:3, 2] @ matrices[0][:3, 2] < 0:
        order.reverse()
    values = _Values(file)
    kind, unit, about_values = _kind(file, modality, values, slices)
    notes = [*about_values, *about_volumes, *file.notes]
    spacing = file.spacing
    if matrices is not None:
        spacing = float(np.linalg.norm(matrices[0][:3, 1])), float(np.linalg.norm(matrices[0][:3, 0]))
        notes += _skew_notes(matrices[0]) + list(spacing_notes([matrices[k] for k in order]))
    rows, columns = plan.size(file.shape)

    def read_plane(k: int) -> NDArray[np.float32] | NDArray[np.uint8]:
        picture = plan.apply(slices.one(order[k]))
        return np.array(picture, order="C") if file.colour else np.ascontiguousarray(values.of(picture))

    def read_stored(ks: Sequence[int]) -> Stored | None:
        if not values.fit_a_table:
            return None
        raw = np.empty((len(ks), rows, columns), np.uint16)
        for plane, stored in zip(raw, slices.each([order[k] for k in ks]), strict=True):
            values.bits(plan.apply(stored), out=plane)
        return Stored(raw=raw, tables=(values.table(),) * len(ks))

    return Volume(
        planes=tuple(
            Plane(
                source=FileImage(file=file.path.name, index=k, volume=chosen if file.volumes > 1 else None),
                rows=rows,
                columns=columns,
                to_patient=None if matrices is None else matrices[k],
                spacing=spacing,
            )
            for k in order
        ),
        read_plane=read_plane,
        read_stored=read_stored,
        study=Study(modality=kind),
        unit=unit,
        notes=tuple(notes),
    )


class _Values:
    """What stored values mean."""

    def __init__(self, file: VoxelFile) -> None:
        self._file = file
        self._plain = (file.slope, file.inter) == (1.0, 0.0)
        self.fit_a_table = not file.colour and file.dtype.kind in "iu" and file.dtype.itemsize <= 2
        self.table = cache(self._table)

    def of(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Scaled in float64 and rounded once; 0 where that is no finite number."""
        with np.errstate(all="ignore"):
            if not self._plain:
                stored = stored.astype(np.float64) * self._file.slope + self._file.inter
            values = np.asarray(stored, np.float32)
        if stored.dtype.kind in "iu":
            return values
        return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)

    def _table(self) -> NDArray[np.float32]:
        native = self._file.dtype.newbyteorder("=")
        patterns = np.arange(65536, dtype=np.uint16)
        return self.of((patterns if native.itemsize == 2 else patterns.astype(np.uint8)).view(native))

    def bits(self, stored: NDArray[Any], *, out: NDArray[np.uint16]) -> None:
        """The bits of values of one or two bytes, in this machine's byte order."""
        if stored.dtype.itemsize == 1:
            out[...] = stored.view(np.uint8)
        else:
            out.view(stored.dtype.newbyteorder("="))[...] = stored


def _chosen(file: VoxelFile, volume: int | None) -> tuple[int, list[str]]:
    if volume is not None and not 0 <= volume < file.volumes:
        raise StudyError(
            found=f"{file.volumes} volumes, numbered from 0" if file.volumes > 1 else "a single volume",
            expected=f"volume {volume}",
            where=file.path,
            remedy=f"name one from 0 to {file.volumes - 1}" if file.volumes > 1 else "name none",
        )
    if file.volumes == 1:
        return 0, []
    why = "the first, as none was named" if volume is None else "as was asked for"
    number = volume or 0
    return number, [
        f"the file holds {file.volumes} volumes, {file.volumes_are}: number {number} (counted from 0) was "
        f"read, {why}"
    ]


def _slice_bytes(file: VoxelFile) -> int:
    """Bytes of one stored slice, with all volumes if they lie within it."""
    inside = 3 if file.colour else file.volumes if file.volumes_axis < 3 else 1
    return file.shape[0] * file.shape[1] * inside * file.dtype.itemsize


def _require_plausible(file: VoxelFile) -> None:
    """That the file can hold what its header claims, before any memory is taken."""
    size, has = _slice_bytes(file), file.data.stat().st_size
    one = size * file.shape[2]
    claims = one * (file.volumes if file.volumes_axis == 3 else 1) + file.offset
    what = f"{'x'.join(map(str, file.shape))} voxels" + (f" x {file.volumes}" if file.volumes > 1 else "")
    if size > LARGEST_SLICE or one > LARGEST_VOLUME:
        raise refused(file.path, f"a header that claims {what}", kind=file.kind)
    if file.packing == "none" and has < claims:
        raise refused(
            file.path, f"a file of {has} bytes where the header claims {claims}: cut off", kind=file.kind
        )
    if file.packing in ("gzip", "zlib") and has * MOST_PACKED < claims:
        raise refused(
            file.path,
            f"{has} packed bytes that can't hold the {claims} that the header claims: cut off",
            kind=file.kind,
        )
    if file.packing != "none" and one > SUSPECT and one > SUSPECT_RATIO * has:
        raise refused(
            file.path, f"{has} packed bytes that claim {what}: a decompression bomb", kind=file.kind
        )


def _require_patient(file: VoxelFile) -> None:
    """That no axis is so long that its unit or its direction must be wrong."""
    if file.affine is None:
        return
    longest = float((np.linalg.norm(file.affine[:3, :3], axis=0) * file.shape).max())
    if longest > WIDEST:
        raise GeometryError(
            f"{file.path}: by its header it is {longest / 1000:g} m long, expected a patient; "
            "correct its unit or spacing"
        )


class _Slices:
    """Slices of one volume as stored; a packed file is unpacked once, now."""

    def __init__(self, file: VoxelFile, volume: int) -> None:
        self._file, self._volume = file, volume
        self._inside = file.volumes_axis < 3
        self._size = _slice_bytes(file)
        dims = [file.shape[0], file.shape[1]]
        if file.colour:
            dims.insert(0, 3)
        elif self._inside:
            dims.insert(file.volumes_axis, file.volumes)
        self._dims = dims[::-1]
        self._begin = file.offset + (0 if self._inside else volume * file.shape[2] * self._size)
        self._unpacked = None if file.packing == "none" else self._unpack()

    def one(self, k: int) -> NDArray[Any]:
        """Stored slice k, shape (second axis, first axis[, 3])."""
        return next(self.each([k]))

    def each(self, ks: Sequence[int]) -> Iterator[NDArray[Any]]:
        """One slice after the other, each to be used before the next is asked for."""
        if self._unpacked is not None:
            yield from (self._unpacked[k] for k in ks)
            return
        content = np.empty((1, self._size), np.uint8)
        with self._file.data.open("rb", buffering=0) as opened:
            for k in ks:
                opened.seek(self._begin + k * self._size)
                if opened.readinto(content.data.cast("B")) < self._size:
                    raise refused(
                        self._file.path, "a file that was cut off since it was opened", kind=self._file.kind
                    )
                yield self._shaped(content)[0]

    def _shaped(self, content: NDArray[np.uint8]) -> NDArray[Any]:
        """Bytes of slices, shape (n, bytes), as (n, second axis, first axis[, 3])."""
        slices = content.view(self._file.dtype).reshape(len(content), *self._dims)
        return slices.take(self._volume, axis=3 - self._file.volumes_axis) if self._inside else slices

    def _unpack(self) -> NDArray[Any]:
        """All slices; one at a time where the volumes lie within them, so that only one volume is held."""
        count = self._file.shape[2]
        step = 1 if self._inside else count
        parts = []
        try:
            with Unpacked(self._file.data, self._file.packing, start=self._file.start) as source:
                source.skip(self._begin)
                for _ in range(0, count, step):
                    content = np.empty((step, self._size), np.uint8)
                    source.fill(content.data.cast("B"))
                    parts.append(self._shaped(content))
                source.check_end()
        except Exception as error:  # each inflater has errors of its own
            raise refused(
                self._file.path,
                f"packed voxels that are damaged or cut off ({type(error).__name__})",
                kind=self._file.kind,
            ) from error
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _skew_notes(matrix: Matrix) -> list[str]:
    columns, rows = (matrix[:3, n] / np.linalg.norm(matrix[:3, n]) for n in (0, 1))
    if abs(float(columns @ rows)) <= 1e-3:
        return []
    return ["rows and columns of the file are not perpendicular: pictures show them as if they were"]


_AIR = (-5000, -200)
"""Between these lies the lowest value of a CT in Hounsfield units that shows some air or is padded."""


def _kind(file: VoxelFile, named: str | None, values: _Values, slices: _Slices) -> tuple[str, str, list[str]]:
    """Modality, unit, and how they are known; the values are looked at only where that tells something."""
    known = named or file.modality or ("OT" if file.colour else None)
    notes = []
    sampled = None
    if not file.colour and (known in (None, "CT") or file.dtype.kind == "f"):
        sampled = _sampled(file, values, slices)
    if named is not None:
        says = f"the file says {file.modality}" if file.modality else f"{file.kind} names none"
        notes.append(f"the modality {named} is the user's word: {says}")
    elif file.modality:
        notes.append(f"the file says that its modality is {file.modality}")
    elif sampled and sampled.whole and -3100 <= sampled.low <= -900 and sampled.high > 0:
        known = "CT"
        notes.append(
            f"{file.kind} names no modality; taken as CT in HU, for its values are whole numbers from "
            f"{sampled.low:g} to {sampled.high:g}; give the modality if that is wrong"
        )
    else:
        notes.append(f"{file.kind} names no modality and none was given: OT (other)")
    if known == "CT" and sampled and not _AIR[0] <= sampled.low <= _AIR[1]:
        notes.append(
            f"its lowest value is {sampled.low:g}, but air in a CT is -1000 HU: "
            "the values may be no Hounsfield units, or show no air"
        )
    if sampled and not sampled.finite:
        notes.append("some values are not finite numbers; they are shown as 0")
    return known or "OT", "HU" if known == "CT" and not file.colour else "", notes


@dataclass(frozen=True, slots=True)
class _Sampled:
    """What values of slices spread over a volume are like."""

    low: float
    high: float
    whole: bool
    finite: bool


def _sampled(file: VoxelFile, values: _Values, slices: _Slices) -> _Sampled:
    low, high, whole, finite = np.inf, -np.inf, True, True
    for k in np.unique(np.linspace(0, file.shape[2] - 1, min(file.shape[2], _SAMPLED)).astype(int)):
        stored = slices.one(int(k))
        if stored.dtype.kind in "iu":
            stored = np.array([stored.min(), stored.max()])
            whole = file.slope.is_integer() and file.inter.is_integer()
        finite = finite and bool(np.isfinite(stored).all())
        plane = values.of(stored)
        low, high = min(low, float(plane.min())), max(high, float(plane.max()))
        whole = whole and bool((plane == np.rint(plane)).all())
    return _Sampled(low, high, whole, finite)
