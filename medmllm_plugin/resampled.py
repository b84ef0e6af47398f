"""Planes that were computed from several images, and the way from a box on one back to those images.

A reformatted plane or a slab is no image that a finding could cite. What is drawn on it is carried over to
the images it was computed from, by the same geometry by which its values were computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.geometry import Matrix, apply, unit_normal
from medmllm_plugin.source import ImageRef, Tile

Bounds = tuple[float, float, float, float]
"""(column_min, row_min, column_max, row_max) in corner coordinates."""

_PARALLEL = 1e-4
"""How far the axes of one grid's planes may differ, as a part of their length."""
_APART = 1e-3
"""Planes closer than this along the normal, mm, are at one place."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Grid:
    """Parallel planes as one grid of voxels, which may be sheared (gantry tilt) and unevenly spaced.

    A place in it is (column, row, position): position counts planes from 0, and between two planes column,
    row and position run straight from one to the other, beyond the ends as between the last two.
    """

    first: Matrix
    """Shape (4, 4): (column, row, mm along the normal, 1) of the first plane to LPS mm."""
    heights: NDArray[np.float64]
    """Shape (planes,): mm along the normal from the first plane, rising."""
    shifts: NDArray[np.float64]
    """Shape (planes, 2): (column, row) in the first plane of each plane's first pixel, along the normal."""
    rows: int
    columns: int

    @classmethod
    def of(cls, matrices: Sequence[Matrix], *, rows: int, columns: int) -> Grid:
        """The grid of at least two planes sorted along their normal.

        Args:
            matrices: For each plane shape (4, 4): (column, row, 0, 1) to LPS mm.
            rows: Of each plane.
            columns: Of each plane.

        Raises:
            GeometryError: If they are fewer, not parallel, of several spacings, or not one behind the other.

        >>> planes = [np.eye(4), np.eye(4), np.eye(4)]
        >>> planes[1][:3, 3], planes[2][:3, 3] = (0, 1, 2), (0, 2, 5)
        >>> Grid.of(planes, rows=8, columns=8).to_index([[3, 4, 1], [3, 4, 3.5]]).tolist()
        [[3.0, 3.5, 0.5], [3.0, 2.5, 1.5]]
        """
        if len(matrices) < 2:
            raise GeometryError(
                "found one slice, expected at least two: other planes are cut through a stack"
            )
        axes = np.array([m[:3, :2] for m in matrices])
        if np.abs(axes - axes[0]).max() > _PARALLEL * np.abs(axes[0]).max():
            raise GeometryError(
                "the slices differ in orientation or pixel spacing, expected parallel slices of one spacing; "
                "show them in their own planes"
            )
        first = np.array(matrices[0], np.float64)
        first[:3, 2] = unit_normal(first)
        origins = apply(np.linalg.inv(first), np.array([m[:3, 3] for m in matrices]))
        heights = origins[:, 2]
        if np.diff(heights).min() < _APART:
            raise GeometryError(
                "found slices at one place or in no order along their normal, expected one behind the other "
                "(a time series is none); show them in their own planes"
            )
        return cls(first=first, heights=heights, shifts=origins[:, :2], rows=rows, columns=columns)

    def __len__(self) -> int:
        return len(self.heights)

    def edges(self) -> NDArray[np.float64]:
        """Shape (planes + 1,): heights half way between neighbours, and at the ends as far out.

        Plane k is the nearest one from edge k to edge k + 1.
        """
        middles = (self.heights[1:] + self.heights[:-1]) / 2
        low, high = 2 * self.heights[0] - middles[0], 2 * self.heights[-1] - middles[-1]
        return np.concatenate([[low], middles, [high]])

    def along(self, heights: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions, shape (...), and shifts, shape (..., 2), at heights of shape (...)."""
        h = np.asarray(heights, np.float64)
        below = np.clip(np.searchsorted(self.heights, h, side="right") - 1, 0, len(self) - 2)
        part = (h - self.heights[below]) / np.diff(self.heights)[below]
        return below + part, self.shifts[below] + part[..., None] * np.diff(self.shifts, axis=0)[below]

    def to_index(self, points: ArrayLike) -> NDArray[np.float64]:
        """(column, row, position) of points in LPS mm; shape (..., 3) gives (..., 3)."""
        seen = apply(np.linalg.inv(self.first), points)
        position, shift = self.along(seen[..., 2])
        return np.concatenate([seen[..., :2] - shift, position[..., None]], axis=-1)

    def to_patient(self, places: ArrayLike) -> NDArray[np.float64]:
        """LPS mm of places (column, row, position); shape (..., 3) gives (..., 3)."""
        xs = np.asarray(places, np.float64)
        below = np.clip(np.floor(xs[..., 2]).astype(int), 0, len(self) - 2)
        part = xs[..., 2] - below
        height = self.heights[below] + part * np.diff(self.heights)[below]
        shift = self.shifts[below] + part[..., None] * np.diff(self.shifts, axis=0)[below]
        return apply(self.first, np.concatenate([xs[..., :2] + shift, height[..., None]], axis=-1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """What a box in a picture covers of one image."""

    image: ImageRef
    column_min: float
    row_min: float
    column_max: float
    row_max: float
    """Pixels of the image, corner coordinates; within it."""

    @property
    def bounds(self) -> Bounds:
        """(column_min, row_min, column_max, row_max)."""
        return self.column_min, self.row_min, self.column_max, self.row_max


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampled:
    """A plane computed from several images: what stands where an image would name itself.

    Two are equal if they are the same plane of the same kind through the same images.
    """

    words: str
    """What it is, such as `coronal reformat` or `slab of 10 mm (max)`."""
    index: int
    """Which plane of its volume, from 0."""
    first: ImageRef
    """The first image of the stack that it was computed from."""
    last: ImageRef
    """The last one."""
    to_patient: Matrix = field(compare=False, repr=False)
    """Shape (4, 4): (column, row, 0, 1) of this plane to LPS mm."""
    rows: int = field(compare=False, repr=False)
    columns: int = field(compare=False, repr=False)
    grid: Grid = field(compare=False, repr=False)
    """The planes it was computed from."""
    sources: Sequence[Source] = field(compare=False, repr=False)
    """For each plane of the grid what it is: an image, or again a computed plane."""
    slab: range | None = field(default=None, compare=False, repr=False)
    """For a slab: the planes of the grid that were put together pixel by pixel. None for a cut."""

    def outlines(self, bounds: Bounds | None = None) -> tuple[Outline, ...]:
        """The images that a box on this plane passes through, nearest to the box's centre first.

        Where the plane cuts an image, the outline is what lies nearer to that image than to its neighbours,
        at least one pixel wide and high: a coronal box leaves a trace of one row on each axial image. Of a
        slab all images are passed, and the outline is the box itself.

        Args:
            bounds: The box in pixels of this plane, corner coordinates; the whole plane by default.

        Returns:
            Empty if the box lies outside of all images.
        """
        box = bounds or (0.0, 0.0, float(self.columns), float(self.rows))
        middle = [(box[0] + box[2]) / 2 - 0.5, (box[1] + box[3]) / 2 - 0.5, 0.0]
        found = self._outlines(box, apply(self.to_patient, middle))
        return tuple(outline(part, b) for part, (_, b) in sorted(found.items(), key=lambda one: one[1][0]))

    def to_json(self) -> dict[str, Any]:
        """The `source` of `slices.json`."""
        return {
            "resampled": self.words,
            "index": self.index,
            "first": self.first.to_json(),
            "last": self.last.to_json(),
        }

    def _outlines(
        self, box: Bounds, center: NDArray[np.float64]
    ) -> dict[ImageRef | Tile, tuple[float, Bounds]]:
        """For each image or tile its distance from `center` (LPS mm) along its normal, and the bounds."""
        height = apply(np.linalg.inv(self.grid.first), center)[2]
        on_planes = self._cut(box) if self.slab is None else self._through(box)
        found: dict[ImageRef | Tile, tuple[float, Bounds]] = {}
        for k, bounds in on_planes.items():
            source = self.sources[k]
            if isinstance(source, Resampled):
                inner = source._outlines(bounds, center)
            else:
                inner = {source: (round(abs(float(height - self.grid.heights[k])), 6), bounds)}
            for image, (distance, b) in inner.items():
                before, a = found.get(image, (distance, b))
                found[image] = min(before, distance), _both(a, b)
        return found

    def _through(self, box: Bounds) -> dict[int, Bounds]:
        """A box on a slab, on each plane of the slab."""
        bounds = _within(box, self.grid)
        return {} if bounds is None else dict.fromkeys(self.slab or (), bounds)

    def _cut(self, box: Bounds) -> dict[int, Bounds]:
        """The traces of a box on the planes of the grid that it passes, by their numbers."""
        left, top, right, bottom = box
        corners = (
            np.array([[left, top, 0.5], [right, top, 0.5], [right, bottom, 0.5], [left, bottom, 0.5]]) - 0.5
        )
        polygon = apply(np.linalg.inv(self.grid.first), apply(self.to_patient, corners))
        edges = self.grid.edges()
        low, high = polygon[:, 2].min(), polygon[:, 2].max()
        nearest = range(
            max(0, int(np.searchsorted(edges, low)) - 1),
            min(len(self.grid), int(np.searchsorted(edges, high, side="right"))),
        )
        traces = {}
        for k in nearest:
            # columns and rows bend at a plane, so what lies below and above it are looked at by themselves
            levels = (edges[k], self.grid.heights[k], edges[k + 1])
            piece = np.concatenate([_between(polygon, a, b) for a, b in pairwise(levels)])
            if len(piece):
                xy = piece[:, :2] - self.grid.along(piece[:, 2])[1] + 0.5
                (c0, r0), (c1, r1) = xy.min(axis=0), xy.max(axis=0)
                bounds = _within((float(c0), float(r0), float(c1), float(r1)), self.grid, least=1)
                if bounds is not None:
                    traces[k] = bounds
        return traces


Source = ImageRef | Tile | Resampled
"""What a plane or a picture was taken from."""


def layers(source: Source) -> Iterator[Source]:
    """The images and cuts that a source shows: of a slab those that it is put together of, else itself."""
    if isinstance(source, Resampled) and source.slab is not None:
        for k in source.slab:
            yield from layers(source.sources[k])
    else:
        yield source


def outline(part: ImageRef | Tile, bounds: Bounds) -> Outline:
    """A box on an image or a tile as an outline of the image."""
    left, top, right, bottom = part.on_sheet(bounds) if isinstance(part, Tile) else bounds
    return Outline(image=image_of(part), column_min=left, row_min=top, column_max=right, row_max=bottom)


def image_of(part: ImageRef | Tile) -> ImageRef:
    """The image that a finding in it cites: of a tile its sheet."""
    return part.sheet if isinstance(part, Tile) else part


def _between(polygon: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """The part of a convex polygon whose third coordinate lies from `low` to `high`, corners of shape (n, 3).

    >>> square = np.array([[0, 0, 0], [2, 0, 0], [2, 0, 2], [0, 0, 2.0]])
    >>> _between(square, 0, 1).tolist()
    [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 0.0, 1.0]]
    """
    for sign, level in ((1.0, low), (-1.0, -high)):
        above = sign * polygon[:, 2] - level
        kept: list[NDArray[np.float64]] = []
        for k in range(len(polygon)):
            a, b = above[k - 1], above[k]
            if (a < 0) != (b < 0):
                kept.append(polygon[k - 1] + a / (a - b) * (polygon[k] - polygon[k - 1]))
            if b >= 0:
                kept.append(polygon[k])
        polygon = np.array(kept).reshape(-1, 3)
    return polygon


def _within(box: Bounds, grid: Grid, *, least: float = 0.0) -> Bounds | None:
    """A box cut to the planes of a grid, at least so many pixels wide and high; None if it lies outside."""
    sides = []
    for low, high, limit in ((box[0], box[2], grid.columns), (box[1], box[3], grid.rows)):
        if high < 0 or low > limit:
            return None
        a, b = max(0.0, low), min(float(limit), high)
        if b - a < least:
            a = min(max(0.0, (a + b - least) / 2), limit - least)
            b = a + least
        if not a < b:
            return None
        sides.append((a, b))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


def _both(a: Bounds, b: Bounds) -> Bounds:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
