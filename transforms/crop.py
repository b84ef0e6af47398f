"""Where an image lies in its picture: which part of it is kept, how large, and how it is padded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.geometry import Matrix, apply
from medmllm_plugin.transforms.body import STEP, BodyRule
from medmllm_plugin.volume import Plane

PATCH = 28
"""Picture sides are multiples of this, so that a Qwen2.5-VL processor resizes nothing again."""

MARGIN_MM = 10.0
"""Kept around the body on each side."""

_LEAST = 0.01
"""A row or column shows the body if at least this part of its pixels does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Crop:
    """The part of an image that is kept, in whole pixels."""

    row: int
    """The first row kept, from 0."""
    column: int
    rows: int
    """How many rows are kept, at least 1."""
    columns: int

    @property
    def part(self) -> tuple[slice, slice]:
        """The part as an index of an array of shape (rows, columns, ...)."""
        return slice(self.row, self.row + self.rows), slice(self.column, self.column + self.columns)


def whole(plane: Plane) -> Crop:
    """All of an image."""
    return Crop(row=0, column=0, rows=plane.rows, columns=plane.columns)


def body_crop(samples: Sequence[NDArray[np.float32]], rule: BodyRule, plane: Plane) -> Crop:
    """The rows and columns in which any of the slices shows the body, and a margin of 10 mm.

    What lies on the rim of the body rule counts as body, so a table is kept rather than skin cut off.

    Args:
        samples: Every `body.STEP`-th pixel of every `body.STEP`-th row of slices of one shape.
        rule: Which values are body.
        plane: One of the slices, for shape and spacing.

    Returns:
        The whole image if no slice shows a body.
    """
    masks = [rule(one) for one in samples]
    ends = []
    for axis, side, spacing in zip((1, 0), (plane.rows, plane.columns), plane.spacing or (1, 1), strict=True):
        shown = np.flatnonzero(np.any([mask.mean(axis=axis) >= _LEAST for mask in masks], axis=0)) * STEP
        if not len(shown):
            return whole(plane)
        margin = MARGIN_MM / spacing + STEP
        ends += [max(0, int(shown[0] - margin)), min(side, int(np.ceil(shown[-1] + 1 + margin)))]
    top, bottom, left, right = ends
    return Crop(row=top, column=left, rows=bottom - top, columns=right - left)


def box_crop(planes: Sequence[Plane], low: Sequence[float], high: Sequence[float]) -> Crop:
    """The rows and columns in which any of the planes shows a box in the patient.

    Args:
        planes: Images of one shape that are placed.
        low: The lowest corner of the box, LPS mm.
        high: The highest.

    Raises:
        GeometryError: If a plane isn't placed, or none shows any of it.
    """
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T
    found = []
    for plane in planes:
        if plane.to_patient is None:
            raise GeometryError("a part of the patient is asked for, but the images say no place in it")
        found.append(apply(np.linalg.inv(plane.to_patient), corners)[:, :2])
    pixels = np.concatenate(found)
    left, top = (max(0, math.floor(one + 0.5)) for one in pixels.min(axis=0))
    right, bottom = (math.ceil(one + 0.5) for one in pixels.max(axis=0))
    right, bottom = min(right, planes[0].columns), min(bottom, planes[0].rows)
    if right <= left or bottom <= top:
        raise GeometryError("the part of the patient that is asked for lies outside of the images")
    return Crop(row=top, column=left, rows=bottom - top, columns=right - left)


@dataclass(frozen=True, kw_only=True, slots=True)
class Framing:
    """How one image becomes one picture: cropped, resized, laid into a black canvas."""

    crop: Crop
    shape: tuple[int, int]
    """(rows, columns) that the kept part is resized to."""
    canvas: tuple[int, int]
    """(rows, columns) of the picture; not below `shape`."""

    @property
    def corner(self) -> tuple[int, int]:
        """(row, column) of the picture where the resized part begins: it lies in the middle."""
        return (self.canvas[0] - self.shape[0]) // 2, (self.canvas[1] - self.shape[1]) // 2

    @property
    def to_source(self) -> Matrix:
        """Shape (3, 3): picture (column, row, 1) to source (column, row, 1), pixel indices.

        >>> part = Crop(row=10, column=20, rows=4, columns=8)
        >>> Framing(crop=part, shape=(2, 2), canvas=(2, 2)).to_source.tolist()
        [[4.0, 0.0, 21.5], [0.0, 2.0, 10.5], [0.0, 0.0, 1.0]]
        """
        kept = self.crop
        matrix = scale_matrix(source=(kept.rows, kept.columns), picture=self.shape)
        top, left = self.corner
        matrix[0, 2] += kept.column - matrix[0, 0] * left
        matrix[1, 2] += kept.row - matrix[1, 1] * top
        return matrix

    def lay(self, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resized parts, shape (pictures, *shape[, 3]), each in the middle of a black canvas."""
        if self.shape == self.canvas:
            return pictures
        laid = np.zeros((len(pictures), *self.canvas, *pictures.shape[3:]), np.uint8)
        top, left = self.corner
        laid[:, top : top + self.shape[0], left : left + self.shape[1]] = pictures
        return laid


def scale_matrix(*, source: tuple[int, int], picture: tuple[int, int]) -> Matrix:
    """Picture (column, row, 1) to source (column, row, 1), pixel indices, when a whole image is resized.

    Both images cover the same rectangle; a resampler puts centre i at (i + 0.5) · scale - 0.5.

    Args:
        source: (rows, columns) of the image.
        picture: (rows, columns) of the picture.

    >>> scale_matrix(source=(4, 8), picture=(2, 2)).tolist()
    [[4.0, 0.0, 1.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]]
    """
    across, down = source[1] / picture[1], source[0] / picture[0]
    return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])


def picture_to_patient(plane: Matrix, to_source: Matrix) -> Matrix:
    """Picture (column, row, 0, 1) to LPS mm, by the image's own matrix and the picture's way to the image.

    Args:
        plane: Shape (..., 4, 4).
        to_source: Shape (3, 3).
    """
    lifted = np.eye(4)
    lifted[:2, :2] = to_source[:2, :2]
    lifted[:2, 3] = to_source[:2, 2]
    return plane @ lifted


def picture_shape(plane: Plane, *, size: int) -> tuple[int, int]:
    """(rows, columns) of a picture: the plane's true aspect in mm, longer side `size`, multiples of 28."""
    return framing(plane, size=size).canvas


def framing(
    plane: Plane,
    *,
    size: int,
    crop: Crop | None = None,
    multiple: int = PATCH,
    square: bool = False,
    band: int = 0,
) -> Framing:
    """How a plane becomes a picture of true aspect in mm.

    Args:
        plane: The image.
        size: Longer side of the picture, px; rounded to a multiple.
        crop: The part that is kept; None for all.
        multiple: The picture's sides are multiples of this; without padding that may bend the aspect by half
            of it.
        square: Whether the picture is padded to a square; then the aspect is true to half a pixel.
        band: Black px on each side that nothing is drawn on.
    """
    kept = crop or whole(plane)
    row_mm, column_mm = plane.spacing or (1.0, 1.0)
    height, width = kept.rows * row_mm, kept.columns * column_mm
    longer = max(height, width)

    least = -(-(2 * band + 1) // multiple) * multiple

    def rounded(side: float) -> int:
        return max(least, round(side / multiple) * multiple)

    if square:
        side = rounded(size)
        inner = side - 2 * band
        shape = (max(1, round(inner * height / longer)), max(1, round(inner * width / longer)))
        return Framing(crop=kept, shape=shape, canvas=(side, side))
    canvas = rounded(height * (size / longer)), rounded(width * (size / longer))
    return Framing(crop=kept, shape=(canvas[0] - 2 * band, canvas[1] - 2 * band), canvas=canvas)
