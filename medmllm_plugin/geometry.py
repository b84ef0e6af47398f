"""Places: pixel of an image ↔ millimetres of the patient.

Positions are LPS millimetres (x to the patient's Left, y to Posterior, z to Superior), as DICOM has them.
A pixel index counts from the centre of the first pixel, (column, row) = (0, 0). *Corner* coordinates, as
SCOORD and our boxes use them, count from the outer corner of that pixel: corner = index + 0.5.
Matrices map (column, row, slice or 0, 1) to (x, y, z, 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmllm_plugin.errors import GeometryError

Matrix = NDArray[np.float64]

RAS_FROM_LPS: Matrix = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns LPS into RAS and back; it is its own inverse."""

_COSINE_TOLERANCE = 1e-3
"""How far direction cosines may be from orthonormal: headers keep as few as four decimals."""


def plane_matrix(
    *, position: Sequence[float], orientation: Sequence[float], spacing: Sequence[float], where: str = "image"
) -> Matrix:
    """The matrix of one image plane, from its DICOM attributes (PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1).

    Args:
        position: Image Position (Patient) (0020,0032), LPS mm: the centre of the first pixel.
        orientation: Image Orientation (Patient) (0020,0037), the directions of a row, then of a column.
        spacing: Pixel Spacing (0028,0030): between rows, then between columns, mm.
        where: What to call this image in an error.

    Returns:
        Shape (4, 4): (column, row, 0, 1) to LPS mm; its third column is the unit normal, so it is invertible.

    Raises:
        GeometryError: If the directions are not two perpendicular unit vectors or a spacing is not positive.

    >>> m = plane_matrix(position=(-10, -20, 5), orientation=(1, 0, 0, 0, 1, 0), spacing=(2, 0.5))
    >>> (m @ [4, 3, 0, 1]).tolist()
    [-8.0, -14.0, 5.0, 1.0]
    """
    # plain numbers: for three of them an array costs more than the sum
    ax, ay, az, bx, by, bz = map(float, orientation)
    lengths = math.hypot(ax, ay, az), math.hypot(bx, by, bz)
    skew = abs(ax * bx + ay * by + az * bz)
    if not all(abs(length - 1) < _COSINE_TOLERANCE for length in lengths) or not skew < _COSINE_TOLERANCE:
        raise GeometryError(
            f"{where}: Image Orientation (Patient) is {list(map(float, orientation))}, expected two "
            "perpendicular unit vectors; correct the header or leave this image out"
        )
    row_spacing, column_spacing = map(float, spacing)
    if not (0 < row_spacing < math.inf and 0 < column_spacing < math.inf):
        raise GeometryError(
            f"{where}: Pixel Spacing is {list(spacing)}, expected two positive numbers; correct the header"
        )
    nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    normal = math.hypot(nx, ny, nz)
    px, py, pz = map(float, position)
    matrix = np.array(
        [
            [ax * column_spacing, bx * row_spacing, nx / normal, px],
            [ay * column_spacing, by * row_spacing, ny / normal, py],
            [az * column_spacing, bz * row_spacing, nz / normal, pz],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
    if not math.isfinite(px + py + pz):
        raise GeometryError(f"{where}: Image Position (Patient) is {list(position)}, expected three numbers")
    return matrix


def unit_normal(matrix: Matrix) -> NDArray[np.float64]:
    """The unit normal of a plane, LPS: direction of a row × direction of a column, shape (3,)."""
    (ax, bx), (ay, by), (az, bz) = matrix[:3, :2].tolist()
    normal = np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])
    return normal / math.hypot(*normal.tolist())


def grid_affine(planes: Sequence[Matrix], *, tolerance: float = 0.01) -> Matrix:
    """The one affine of a stack of planes, if they are a regular grid (which may be sheared by gantry tilt).

    Args:
        planes: Matrices of at least two planes, sorted along the normal.
        tolerance: How far, in mm, a plane's position may be from the grid.

    Returns:
        Shape (4, 4): (column, row, slice, 1) to LPS mm.

    Raises:
        GeometryError: If the planes are not parallel, of one spacing, and evenly spaced.

    >>> flat = {"orientation": (1, 0, 0, 0, 1, 0), "spacing": (1, 1)}
    >>> stack = [plane_matrix(position=(0, 0, z), **flat) for z in (5, 8, 11)]
    >>> grid_affine(stack)[:3, 2].tolist()
    [0.0, 0.0, 3.0]
    """
    if len(planes) < 2:
        raise GeometryError("one slice has no grid; a spacing between slices needs two")
    first = planes[0]
    origins = np.array([p[:3, 3] for p in planes])
    if any(np.abs(p[:3, :2] - first[:3, :2]).max() > 1e-4 * np.abs(first[:3, :2]).max() for p in planes):
        raise GeometryError("the slices differ in orientation or pixel spacing, so they are not one grid")
    step = (origins[-1] - origins[0]) / (len(planes) - 1)
    if np.linalg.norm(step) <= tolerance:
        raise GeometryError("the slices are all at one place (a time series), so they are not one grid")
    off = np.linalg.norm(origins - (origins[0] + np.arange(len(planes))[:, None] * step), axis=1)
    if off.max() > tolerance:
        gaps = np.diff(origins @ unit_normal(first))
        raise GeometryError(
            f"the slices are not evenly spaced (gaps {gaps.min():.3f} to {gaps.max():.3f} mm), "
            "so they are not one grid"
        )
    affine = first.copy()
    affine[:3, 2] = step
    return affine


def require_invertible(matrix: ArrayLike, *, where: str) -> Matrix:
    """A 4x4 affine that is finite and invertible.

    Raises:
        GeometryError: If it isn't: `where` names the file.

    >>> require_invertible(np.zeros((4, 4)), where="x.nii")
    Traceback (most recent call last):
    medmllm_plugin.errors.GeometryError: x.nii: its affine is singular or not finite, expected an invertible \
4x4 matrix; correct the header (an axis has no length or two axes coincide)
    """
    result = np.asarray(matrix, np.float64)
    lengths = np.linalg.norm(result[:3, :3], axis=0) if result.shape == (4, 4) else np.zeros(3)
    usable = result.shape == (4, 4) and bool(np.isfinite(result).all()) and bool((lengths > 0).all())
    if not usable or abs(np.linalg.det(result[:3, :3] / lengths)) < 1e-6:
        raise GeometryError(
            f"{where}: its affine is singular or not finite, expected an invertible 4x4 matrix; "
            "correct the header (an axis has no length or two axes coincide)"
        )
    return result


def apply(matrix: NDArray[np.floating], points: ArrayLike) -> NDArray[np.float64]:
    """Map points, shape (..., n), by a homogeneous matrix of shape (n + 1, n + 1).

    >>> apply(np.diag([2.0, 2.0, 1.0]), [[1, 2]]).tolist()
    [[2.0, 4.0]]
    """
    xs = np.asarray(points, np.float64)
    return np.asarray(xs @ matrix[:-1, :-1].T + matrix[:-1, -1], np.float64)


def orientation_letters(direction: ArrayLike) -> str:
    """Where a direction (LPS) points: L, R, P, A, S or I, its largest part first (PS3.3 C.7.6.1.1.1).

    >>> orientation_letters([0.9, 0, 0.436])
    'LS'
    """
    vector = np.asarray(direction, np.float64)
    vector = vector / np.linalg.norm(vector)
    order = np.argsort(-np.abs(vector), kind="stable")
    return "".join(("LPS" if vector[i] > 0 else "RAI")[i] for i in order if abs(vector[i]) > 0.1)


def plane_name(matrix: Matrix) -> str:
    """`axial`, `coronal` or `sagittal` by the largest part of the normal; `oblique` before it beyond 10°.

    >>> plane_name(np.eye(4))
    'axial'
    """
    normal = np.abs(unit_normal(matrix))
    name = ("sagittal", "coronal", "axial")[int(np.argmax(normal))]
    return name if normal.max() > np.cos(np.radians(10)) else f"oblique {name}"
