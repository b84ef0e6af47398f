"""Rays from a focal spot to the pixels of a detector, and the way they go through solids.

Everything is in LPS millimetres of the phantom's own frame. Lengths are exact for ellipsoids, also where
these overlap, so a radiograph needs no voxels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from medmllm_plugin.phantoms.sections import Section, Values, Vector, Window
from medmllm_plugin.phantoms.shapes import Ellipsoid

Span = tuple[Values, Values]
"""Where rays enter and leave a solid, as mm of y; empty where they enter behind where they leave."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rays:
    """A cone of rays along y onto a detector whose rows run along x and whose columns run against z."""

    spot: Vector
    """The focal spot, mm."""
    detector: float
    """y of the detector, mm."""
    section: Section
    """The detector's pixels."""
    xs: Values = field(init=False, repr=False)
    """x of the pixels of a row, shape (1, columns)."""
    zs: Values = field(init=False, repr=False)
    """z of the pixels of a column, shape (rows, 1)."""

    def __post_init__(self) -> None:
        whole = self.section.whole
        object.__setattr__(self, "xs", self.section.axis(0, whole) - np.float32(self.spot[0]))
        object.__setattr__(self, "zs", self.section.axis(2, whole) - np.float32(self.spot[2]))

    def at(self, y: float, window: Window | None = None) -> tuple[Values, Values]:
        """Give x and z of all rays where they pass a height y; shapes (1, columns) and (rows, 1)."""
        part = np.float32((y - self.spot[1]) / (self.detector - self.spot[1]))
        rows, columns = window or self.section.whole
        return (
            self.xs[:, columns] * part + np.float32(self.spot[0]),
            self.zs[rows] * part + np.float32(self.spot[2]),
        )

    def shadow(self, point: Vector) -> tuple[float, float]:
        """Where a point is seen on the detector: mm across and down from the first pixel."""
        grown = (self.detector - self.spot[1]) / (point[1] - self.spot[1])
        x = self.spot[0] + (point[0] - self.spot[0]) * grown
        z = self.spot[2] + (point[2] - self.spot[2]) * grown
        return float(x - self.section.origin[0]), float(self.section.origin[2] - z)

    def magnified(self, y: float) -> float:
        """How much larger than it is a thing at that y is seen."""
        return float((self.detector - self.spot[1]) / (y - self.spot[1]))

    def window(self, solid: Ellipsoid) -> Window:
        """The part of the detector that can show an ellipsoid."""
        a, b, c = solid.radii
        center = np.array(solid.center)
        grown = max(self.magnified(center[1] + b), self.magnified(center[1] - b))
        slack = 1.02 + 0.25 * b / abs(self.spot[1] - center[1])
        return self.section.window(self.shadow(center), (a * grown * slack + 2, c * grown * slack + 2))

    def span(self, solid: Ellipsoid, window: Window) -> Span:
        """Where the rays of a window go through an ellipsoid; both are its middle where they miss it."""
        rows, columns = window
        way = self.detector - self.spot[1]
        dx, dz = self.xs[:, columns] / np.float32(way), self.zs[rows] / np.float32(way)
        (x, y, z), (a, b, c) = (np.array(v) for v in (solid.center, solid.radii))
        ox, oy, oz = self.spot[0] - x, self.spot[1] - y, self.spot[2] - z
        square = np.float32(1 / a**2) * dx * dx + (np.float32(1 / b**2) + np.float32(1 / c**2) * dz * dz)
        half = np.float32(ox / a**2) * dx + (np.float32(oy / b**2) + np.float32(oz / c**2) * dz)
        rest = (ox / a) ** 2 + (oy / b) ** 2 + (oz / c) ** 2 - 1
        root = np.sqrt(np.maximum(half * half - square * np.float32(rest), 0))
        middle = -half / square
        root /= square
        return middle - root + np.float32(self.spot[1]), middle + root + np.float32(self.spot[1])

    def tube(self, points: Vector, radius: tuple[float, float]) -> tuple[Window, Values, Values]:
        """A bent round tube as it is seen.

        Args:
            points: Its axis, shape (n, 3), mm.
            radius: At the first point and at the last, mm.

        Returns:
            The window it lies in; the distance of each ray from its axis in radii; and the length of a ray
            through its middle, mm.
        """
        seen = np.array([self.shadow(point) for point in points])
        grown = self.magnified(float(points[:, 1].mean()))
        pad = max(radius) * grown + 2 * self.section.spacing[0]
        low, high = seen.min(axis=0) - pad, seen.max(axis=0) + pad
        window = self.section.window(tuple((low + high) / 2), tuple((high - low) / 2))
        shape = self.section.us[window[1]].size, self.section.vs[window[0]].size
        nearest = np.full((shape[1], shape[0]), 9.0, np.float32)
        length = np.zeros_like(nearest)
        count = len(points) - 1
        for n in range(count):
            start, end = seen[n], seen[n + 1]
            way = end - start
            flat = float(way @ way) + 1e-6
            r = radius[0] + (radius[1] - radius[0]) * (n + 0.5) / count
            lower, upper = np.minimum(start, end) - pad, np.maximum(start, end) + pad
            part = self.section.window(tuple((lower + upper) / 2), tuple((upper - lower) / 2))
            u = (self.section.us[part[1]] - np.float32(start[0]))[None, :]
            v = (self.section.vs[part[0]] - np.float32(start[1]))[:, None]
            t = np.clip((u * np.float32(way[0]) + v * np.float32(way[1])) / np.float32(flat), 0, 1)
            far = np.hypot(u - t * np.float32(way[0]), v - t * np.float32(way[1]))
            far /= np.float32(r * grown)
            lean = float(np.linalg.norm(points[n + 1] - points[n])) * grown / flat**0.5
            here = (
                slice(part[0].start - window[0].start, part[0].stop - window[0].start),
                slice(part[1].start - window[1].start, part[1].stop - window[1].start),
            )
            closer = far < nearest[here]
            nearest[here][closer] = far[closer]
            length[here][closer] = 2 * r * min(lean, 3.0)
        return window, nearest, length


def shared(one: Span, other: Span) -> Span:
    """Where rays are in both."""
    return np.maximum(one[0], other[0]), np.minimum(one[1], other[1])


def length(span: Span) -> Values:
    """How far rays go through, mm."""
    return np.asarray(np.maximum(span[1] - span[0], 0), np.float32)


def length_outside(one: Span, others: list[Span]) -> Values:
    """How far rays go through one solid and none of the others, mm."""
    left = length(one)
    for index, other in enumerate(others):
        both = shared(one, other)
        left -= length_outside(both, others[:index])
    return left
