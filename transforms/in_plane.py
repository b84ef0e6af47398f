"""How a slice of a file that is not DICOM is turned so that it looks as a radiologist expects.

Only flips and a transposition are done, so every value stays as it is: axial with the patient's left on the
right and posterior down, coronal left and inferior, sagittal posterior and inferior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.geometry import Matrix, apply, unit_normal

# by the patient axis (0 x, 1 y, 2 z in LPS) across the slices: where columns and rows shall point
_SHOWN: dict[int, tuple[tuple[int, int], tuple[int, int]]] = {
    2: ((0, 1), (1, 1)),
    1: ((0, 1), (2, -1)),
    0: ((1, 1), (2, -1)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class InPlane:
    """How a stored slice, its first axis running fastest, becomes a picture (rows, columns)."""

    column_axis: int
    """The stored axis, 0 or 1, along which columns count."""
    flip_columns: bool
    flip_rows: bool

    def apply(self, stored: NDArray[Any]) -> NDArray[Any]:
        """A view, shape (rows, columns[, 3]), of a slice as it lies in the file.

        Args:
            stored: Shape (size of the second axis, size of the first axis[, 3]).
        """
        picture = stored if self.column_axis == 0 else stored.swapaxes(0, 1)
        return picture[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def size(self, shape: tuple[int, int, int]) -> tuple[int, int]:
        """Rows and columns of a picture of an array of that stored shape."""
        return shape[1 - self.column_axis], shape[self.column_axis]

    def matrix(self, affine: Matrix, shape: tuple[int, int, int], k: int) -> Matrix:
        """That of slice k alone; see `matrices`."""
        return np.asarray(self.matrices(affine, shape)[k], np.float64)

    def matrices(self, affine: Matrix, shape: tuple[int, int, int]) -> NDArray[np.float64]:
        """Of every slice's picture (column, row, 0, 1) to LPS mm, shape (slices, 4, 4).

        The third column is the unit normal, so they are right-handed and invertible even where the stored
        axes are left-handed.

        Args:
            affine: Stored (i, j, k, 1) to LPS mm.
            shape: The stored axes' sizes.
        """
        row_axis = 1 - self.column_axis
        plane = np.eye(4)
        plane[:3, 0] = affine[:3, self.column_axis] * (-1 if self.flip_columns else 1)
        plane[:3, 1] = affine[:3, row_axis] * (-1 if self.flip_rows else 1)
        plane[:3, 2] = unit_normal(plane)
        firsts = np.zeros((shape[2], 3))
        firsts[:, self.column_axis] = shape[self.column_axis] - 1 if self.flip_columns else 0
        firsts[:, row_axis] = shape[row_axis] - 1 if self.flip_rows else 0
        firsts[:, 2] = np.arange(shape[2])
        matrices = np.tile(plane, (shape[2], 1, 1))
        matrices[:, :3, 3] = apply(affine, firsts)
        return matrices


AS_STORED = InPlane(column_axis=0, flip_columns=False, flip_rows=False)
"""For files that don't say where left is: nothing is turned."""


def radiological(affine: Matrix) -> InPlane:
    """The flips and transposition that make slices along the third stored axis look as expected.

    Args:
        affine: Stored (i, j, k, 1) to LPS mm.

    >>> radiological(np.diag([-1.0, -1.0, 1.0, 1.0]))
    InPlane(column_axis=0, flip_columns=True, flip_rows=True)
    """
    axes = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)
    across = int(np.argmax(np.abs(unit_normal(affine))))
    (column_goal, column_sign), (row_goal, row_sign) = _SHOWN[across]
    straight = abs(axes[column_goal, 0]) + abs(axes[row_goal, 1])
    turned = abs(axes[column_goal, 1]) + abs(axes[row_goal, 0])
    column_axis = 0 if straight >= turned else 1
    return InPlane(
        column_axis=column_axis,
        flip_columns=bool(axes[column_goal, column_axis] * column_sign < 0),
        flip_rows=bool(axes[row_goal, 1 - column_axis] * row_sign < 0),
    )
