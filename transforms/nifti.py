"""A NIfTI file → a `Volume`. Here RAS ends: the file's affine is turned into LPS at this door.

Slices are cut along the third stored axis, whatever it is in the patient, so `FileImage.index` names a slice
of the file. Within a slice only flips and a transposition are done, exactly, so that pictures look as a
radiologist expects: axial with the patient's left on the right and posterior down, coronal left and inferior,
sagittal posterior and inferior. Matrices follow: (column, row, 0, 1) to LPS mm; their third column is the
unit normal, so they are right-handed and invertible even where the stored axes are left-handed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import InputError, StudyError
from medmllm_plugin.geometry import RAS_FROM_LPS, Matrix, require_invertible
from medmllm_plugin.source import FileImage
from medmllm_plugin.transforms.quiet import quiet, quiet_logger
from medmllm_plugin.transforms.stacks import spacing_notes
from medmllm_plugin.volume import Plane, Study, Volume

LARGEST_FILE = 16 << 30
"""Most bytes of voxels: more is a damaged header or a bomb."""

_SAMPLED = 32
_UNITS_IN_MM = {"meter": 1000.0, "micron": 0.001}
# by the patient axis (0 x, 1 y, 2 z in LPS) across the slices: where columns and rows shall point
_SHOWN: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {
    2: ((0, 1), (1, 1)),
    1: ((0, 1), (2, -1)),
    0: ((1, 1), (2, -1)),
}


def read_nifti(path: Path, *, modality: str | None = None) -> Volume:
    """Read a 3-D NIfTI-1 or NIfTI-2 file; an uncompressed one slice by slice, when asked.

    Values that are not finite numbers become 0.

    Args:
        path: A .nii or .nii.gz file.
        modality: What it shows, such as CT or MR. Without it: CT if the values can only be Hounsfield units,
            else OT; the notes say which.

    Raises:
        StudyError: If it is damaged or cut off, or holds several volumes, colours or complex numbers.
        GeometryError: If its affine is singular.
    """
    try:
        with quiet():
            return _read(path, modality)
    except InputError:
        raise
    except Exception as error:
        raise _refused(
            path, f"what is not NIfTI, or is damaged or cut off ({type(error).__name__})"
        ) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class InPlane:
    """How a stored slice (first axis, second axis) becomes a picture (rows, columns)."""

    column_axis: int
    """The stored axis, 0 or 1, along which columns count."""
    flip_columns: bool
    flip_rows: bool

    def apply(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The picture, shape (rows, columns), of a stored slice."""
        picture = stored.T if self.column_axis == 0 else stored
        return picture[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def matrix(self, affine: Matrix, shape: tuple[int, int, int], k: int) -> Matrix:
        """(column, row, 0, 1) to LPS mm of the picture of slice k; `affine` is that of the file in LPS."""
        row_axis = 1 - self.column_axis
        columns = affine[:3, self.column_axis] * (-1 if self.flip_columns else 1)
        rows = affine[:3, row_axis] * (-1 if self.flip_rows else 1)
        first = np.array([0.0, 0.0, k, 1.0])
        first[self.column_axis] = shape[self.column_axis] - 1 if self.flip_columns else 0
        first[row_axis] = shape[row_axis] - 1 if self.flip_rows else 0
        normal = np.cross(columns, rows)
        matrix = np.eye(4)
        matrix[:3, 0], matrix[:3, 1], matrix[:3, 2] = columns, rows, normal / np.linalg.norm(normal)
        matrix[:3, 3] = (affine @ first)[:3]
        return matrix


def radiological(affine: Matrix) -> InPlane:
    """The flips and transposition that make slices along the third axis look as a radiologist expects.

    Args:
        affine: Stored (i, j, k, 1) to LPS mm.

    >>> radiological(np.diag([-1.0, -1.0, 1.0, 1.0]))
    InPlane(column_axis=0, flip_columns=True, flip_rows=True)
    """
    from nibabel.orientations import io_orientation

    orientation = io_orientation(affine)
    # io_orientation names axes by number and gives signs, so it serves LPS as well as RAS
    axes, signs = orientation[:, 0].astype(int), orientation[:, 1]
    (column_goal, column_sign), (row_goal, row_sign) = _SHOWN[int(axes[2])]
    column_axis = int(np.flatnonzero(axes == column_goal)[0])
    row_axis = int(np.flatnonzero(axes == row_goal)[0])
    return InPlane(
        column_axis=column_axis,
        flip_columns=bool(signs[column_axis] != column_sign),
        flip_rows=bool(signs[row_axis] != row_sign),
    )


def _read(path: Path, modality: str | None) -> Volume:
    import nibabel
    from nibabel.imageglobals import logger

    with quiet_logger(logger):
        image = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Image):
        raise _refused(path, f"a {type(image).__name__}")
    shape = _one_volume(path, image)
    slices, notes = _slices(path, image, shape), []
    affine, about_affine = _lps_affine(path, image, shape)
    plan = (
        InPlane(column_axis=0, flip_columns=False, flip_rows=False)
        if affine is None
        else radiological(affine)
    )
    matrices = None if affine is None else [plan.matrix(affine, shape, k) for k in range(shape[2])]
    order = list(range(shape[2]))
    if matrices is not None and affine is not None and affine[:3, 2] @ matrices[0][:3, 2] < 0:
        order.reverse()
    spacing = _spacing(image, matrices)
    low, high, whole, finite = _values_in(slices, shape[2])
    kind, unit, about_kind = _modality(modality, low=low, high=high, whole=whole)
    if not finite:
        notes.append("some values are not finite numbers; they are shown as 0")
    if matrices is not None:
        notes += spacing_notes([matrices[k] for k in order])

    def read_plane(k: int) -> NDArray[np.float32]:
        return np.ascontiguousarray(plan.apply(_finite(slices(order[k]))))

    rows, columns = (shape[1], shape[0]) if plan.column_axis == 0 else (shape[0], shape[1])
    planes = tuple(
        Plane(
            source=FileImage(file=path.name, index=k),
            rows=rows,
            columns=columns,
            to_patient=None if matrices is None else matrices[k],
            spacing=spacing,
        )
        for k in order
    )
    return Volume(
        planes=planes,
        read_plane=read_plane,
        study=Study(modality=kind),
        unit=unit,
        notes=(*about_kind, *about_affine, *notes),
    )


def _one_volume(path: Path, image: Any) -> tuple[int, int, int]:
    shape = tuple(map(int, image.shape))
    kind = image.get_data_dtype()
    if kind.fields is not None or kind.kind not in "iuf":
        raise _refused(path, "colours (RGB)" if kind.fields is not None else f"values of type {kind.name}")
    if len(shape) < 2 or any(n > 1 for n in shape[3:]):
        what = "x".join(map(str, shape))
        raise _refused(
            path, f"an array of {what}: several volumes or vectors" if len(shape) > 3 else f"{what} voxels"
        )
    three = (*shape, 1)[:3] if len(shape) == 2 else shape[:3]
    count = int(np.prod(three, dtype=object))
    if min(three) < 1 or count * kind.itemsize > LARGEST_FILE:
        raise _refused(path, f"a header that claims {'x'.join(map(str, three))} voxels")
    return three[0], three[1], three[2]


def _slices(path: Path, image: Any, shape: tuple[int, int, int]) -> Callable[[int], NDArray[np.float32]]:
    """Reads stored slice k, scaled by scl_slope and scl_inter; a compressed file is unpacked once, now."""
    proxy = image.dataobj
    extra = (0,) * (len(image.shape) - 3)
    flat = len(image.shape) == 2
    if not path.name.lower().endswith(".gz"):
        needed = int(proxy.offset) + int(np.prod(shape)) * image.get_data_dtype().itemsize
        if path.stat().st_size < needed:
            raise _refused(
                path, f"a file of {path.stat().st_size} bytes where the header claims {needed}: cut off,"
            )

        def read(k: int) -> NDArray[np.float32]:
            with quiet():
                return np.asarray(
                    proxy[:, :] if flat else proxy[(slice(None), slice(None), k, *extra)], np.float32
                )

        return read
    try:
        stored = np.asanyarray(proxy.get_unscaled()).reshape(shape, order="F")
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise _refused(
            path, f"compressed voxels that are damaged or cut off ({type(error).__name__})"
        ) from error
    slope, inter = float(proxy.slope), float(proxy.inter)

    def scale(k: int) -> NDArray[np.float32]:
        plane = stored[:, :, k]
        if (slope, inter) == (1.0, 0.0):
            return np.asarray(plane, np.float32)
        return np.asarray(plane.astype(np.float64) * slope + inter, np.float32)

    return scale


def _lps_affine(path: Path, image: Any, shape: tuple[int, int, int]) -> tuple[Matrix | None, list[str]]:
    """The file's affine in LPS mm; None where neither qform nor sform gives one, so no side is known."""
    header = image.header
    notes = []
    qform, q_code = image.get_qform(coded=True)
    sform, s_code = image.get_sform(coded=True)
    if not q_code and not s_code:
        return None, ["the file has neither qform nor sform: sides and places are unknown, none is claimed"]
    affine = require_invertible(RAS_FROM_LPS @ image.affine, where=str(path))
    if q_code and s_code and qform is not None and sform is not None:
        corners = np.array(
            [[i, j, k, 1] for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])]
        )
        off = float(np.linalg.norm((corners @ (qform - sform).T)[:, :3], axis=1).max())
        if off > 0.1:
            notes.append(f"qform and sform disagree by up to {off:.1f} mm; the sform was used")
    unit = header.get_xyzt_units()[0]
    if unit in _UNITS_IN_MM:
        affine = np.diag([_UNITS_IN_MM[unit]] * 3 + [1.0]) @ affine
        notes.append(f"the file counts in {unit}; its places were turned into mm")
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if abs(float(axes[:, 0] @ axes[:, 1])) > 1e-3:
        notes.append("rows and columns of the file are not perpendicular: pictures show them as if they were")
    return affine, notes


def _spacing(image: Any, matrices: list[Matrix] | None) -> tuple[float, float] | None:
    if matrices is not None:
        column, row = np.linalg.norm(matrices[0][:3, :2], axis=0)
        return float(row), float(column)
    zooms = [float(z) for z in image.header.get_zooms()[:2]]
    return (zooms[1], zooms[0]) if min(zooms) > 0 else None


def _values_in(slices: Callable[[int], NDArray[np.float32]], count: int) -> tuple[float, float, bool, bool]:
    """Lowest, highest, whether all are whole, whether all are finite, of slices spread over the volume."""
    low, high, whole, finite = np.inf, -np.inf, True, True
    for k in np.unique(np.linspace(0, count - 1, min(count, _SAMPLED)).astype(int)):
        stored = slices(int(k))
        finite = finite and bool(np.isfinite(stored).all())
        plane = _finite(stored)
        low, high = min(low, float(plane.min())), max(high, float(plane.max()))
        whole = whole and bool((plane == np.rint(plane)).all())
    return low, high, whole, finite


def _modality(named: str | None, *, low: float, high: float, whole: bool) -> tuple[str, str, list[str]]:
    if named is not None:
        return (
            named,
            "HU" if named == "CT" else "",
            [f"the modality {named} is the user's word: NIfTI names none"],
        )
    if whole and -3100 <= low <= -900 and high > 0:
        why = f"its values are whole numbers from {low:g} to {high:g}; give the modality if that is wrong"
        return "CT", "HU", [f"NIfTI names no modality; taken as CT in HU, for {why}"]
    return "OT", "", ["NIfTI names no modality and none was given: OT (other)"]


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _refused(path: Path, found: str) -> StudyError:
    return StudyError(
        found=found,
        expected="one whole 3-D NIfTI volume of plain numbers",
        where=path,
        remedy="split or convert it, or fetch it again",
    )
