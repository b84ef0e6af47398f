"""Simple solids cut by an axial plane, and a canvas that paints them.

Everything is in LPS millimetres of the phantom's own frame: x to the Left, y to Posterior, z to Superior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Window = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """An ellipsoid with its axes along x, y and z."""

    center: tuple[float, float, float]
    radii: tuple[float, float, float]

    def grown(self, mm: float) -> Ellipsoid:
        """The same with each radius longer by `mm`."""
        a, b, c = self.radii
        return Ellipsoid(self.center, (a + mm, b + mm, c + mm))


class Canvas:
    """One axial plane to paint on: values and the coordinates of its pixel centres."""

    def __init__(
        self, xs: NDArray[np.float32], ys: NDArray[np.float32], z: float, *, background: float
    ) -> None:
        """Make an empty plane.

        Args:
            xs: Shape (columns,), ascending, mm.
            ys: Shape (rows,), ascending, mm.
            z: Height of the plane, mm.
            background: Value of every pixel, HU.
        """
        self.xs, self.ys, self.z = xs, ys, z
        self.values = np.full((len(ys), len(xs)), background, np.float32)

    def window(self, x: tuple[float, float], y: tuple[float, float]) -> Window:
        """The part of the plane that covers these ranges; empty if they lie outside."""
        left, right = np.searchsorted(self.xs, x)
        top, bottom = np.searchsorted(self.ys, y)
        return slice(int(top), int(bottom)), slice(int(left), int(right))

    def disc(self, x: float, y: float, across: float, down: float) -> tuple[Window, Mask]:
        """An ellipse in the plane: the window it lies in, and its mask there."""
        window = self.window((x - across, x + across), (y - down, y + down))
        xs, ys = self.xs[window[1]], self.ys[window[0]]
        return window, ((xs - x) / across)[None, :] ** 2 + (((ys - y) / down) ** 2)[:, None] < 1

    def cut(self, solid: Ellipsoid) -> tuple[Window, Mask]:
        """Where an ellipsoid meets this plane."""
        (x, y, z), (a, b, c) = solid.center, solid.radii
        rest = 1 - ((self.z - z) / c) ** 2
        if rest <= 0:
            return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.bool_)
        shrink = float(np.sqrt(rest))
        return self.disc(x, y, a * shrink, b * shrink)

    def paint(self, part: tuple[Window, Mask], value: float) -> None:
        """Set the value inside a part."""
        window, mask = part
        self.values[window][mask] = value

    def paint_solid(self, solid: Ellipsoid, value: float) -> None:
        """Set the value where an ellipsoid meets this plane."""
        self.paint(self.cut(solid), value)

    def paint_tube(
        self, start: NDArray[np.float64], end: NDArray[np.float64], radii: tuple[float, float], value: float
    ) -> None:
        """Set the value where a straight tapered tube meets this plane: an ellipse, longer if it leans."""
        way = end - start
        if abs(way[2]) < 1e-6:
            return
        t = (self.z - start[2]) / way[2]
        if not 0 <= t <= 1:
            return
        x, y = (start + t * way)[:2]
        radius = radii[0] + t * (radii[1] - radii[0])
        along = way / np.linalg.norm(way)
        reach = min(radius / abs(along[2]), 4 * radius)
        window = self.window((x - reach, x + reach), (y - reach, y + reach))
        u, v = (self.xs[window[1]] - x)[None, :], (self.ys[window[0]] - y)[:, None]
        off_axis = u**2 + v**2 - (u * along[0] + v * along[1]) ** 2
        self.paint((window, off_axis < radius**2), value)

    def full(self, part: tuple[Window, Mask]) -> Mask:
        """A part as a mask of the whole plane."""
        window, mask = part
        whole = np.zeros(self.values.shape, np.bool_)
        whole[window] = mask
        return whole
