"""Sections of solids by a plane that lies anywhere, with the partial volume of its thickness.

Everything is in LPS millimetres of the phantom's own frame: x to the Left, y to Posterior, z to Superior.
A solid covers each voxel of the plane by 0 to 1: its signed distance, to first order, against the extent of
the voxel along the solid's normal. So edges are as smooth as a scanner's, and sizes don't depend on the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Vector = NDArray[np.float64]
Triple = Sequence[float] | Vector
"""x, y and z."""

Window = tuple[slice, slice]
Part = tuple[Window, Values]
"""A window of a section, and how much of each of its voxels is covered, 0 to 1."""

NOTHING: Part = ((slice(0, 0), slice(0, 0)), np.zeros((0, 0), np.float32))
"""The part of a section that a solid doesn't meet."""

_FLAT = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Solid:
    """An ellipsoid in any direction, cut by planes if need be."""

    center: Vector
    """Shape (3,), mm."""
    form: Vector
    """Shape (3, 3): a point p lies inside where (p - center) · form · (p - center) < 1."""
    cuts: tuple[tuple[Vector, float], ...] = ()
    """(normal, offset): what lies beyond normal · p = offset is cut away."""

    def grown(self, mm: float) -> Solid:
        """The same with each half axis longer by `mm`."""
        lengths, axes = np.linalg.eigh(self.form)
        radii = np.maximum(1 / np.sqrt(lengths) + mm, 0.1)
        return Solid(self.center, (axes / radii**2) @ axes.T, self.cuts)

    def scaled(self, factor: float) -> Solid:
        """The same about its own centre, each half axis times `factor`."""
        return Solid(self.center, self.form / factor**2, self.cuts)

    def cut(self, normal: Triple, offset: float) -> Solid:
        """Only the part where normal · p is below the offset; the normal need not have length one."""
        way = np.asarray(normal, np.float64)
        length = float(np.linalg.norm(way))
        return Solid(self.center, self.form, (*self.cuts, (way / length, offset / length)))

    @property
    def reach(self) -> Vector:
        """Half the extent along x, y and z, mm, shape (3,)."""
        return np.asarray(np.sqrt(np.diag(np.linalg.inv(self.form))), np.float64)


def ellipsoid(center: Triple, radii: Triple, *, turn: Triple = (0.0, 0.0, 0.0)) -> Solid:
    """An ellipsoid.

    Args:
        center: mm.
        radii: Half axes along x, y and z before it is turned, mm.
        turn: Degrees about x, then y, then z, right-handed.

    >>> ellipsoid((0, 0, 0), (1, 2, 4), turn=(0, 0, 90)).reach.round(6).tolist()
    [2.0, 1.0, 4.0]
    """
    form = np.diag(1 / np.square(np.asarray(radii, np.float64)))
    if np.any(turn):
        axes = rotation(turn)
        form = axes @ form @ axes.T
    return Solid(np.asarray(center, np.float64), form)


def rotation(turn: Triple) -> Vector:
    """The matrix that turns by degrees about x, then y, then z, right-handed, shape (3, 3)."""
    matrix = np.eye(3)
    for axis, degrees in enumerate(turn):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        one = np.eye(3)
        j, k = (axis + 1) % 3, (axis + 2) % 3
        one[j, j] = one[k, k] = c
        one[j, k], one[k, j] = -s, s
        matrix = one @ matrix
    return matrix


@dataclass(frozen=True, slots=True, eq=False)
class Tube:
    """A straight tapered tube with round ends."""

    start: Vector
    """mm."""
    end: Vector
    """mm."""
    radii: tuple[float, float]
    """At the start and at the end, mm."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Section:
    """One image plane and the thickness it stands for."""

    origin: Vector
    """Centre of the first pixel, mm, shape (3,)."""
    across: Vector
    """Unit direction of a row, shape (3,)."""
    down: Vector
    """Unit direction of a column, shape (3,)."""
    spacing: tuple[float, float]
    """Between rows, then between columns, mm."""
    thickness: float
    """mm."""
    shape: tuple[int, int]
    """(rows, columns)."""
    normal: Vector = field(init=False)
    """Unit normal, direction of a row × direction of a column, shape (3,)."""
    frame: Vector = field(init=False, repr=False)
    """Directions of a row, of a column and of the normal, shape (3, 3)."""
    us: Values = field(init=False, repr=False)
    """Way of each column from the origin, mm, shape (columns,)."""
    vs: Values = field(init=False, repr=False)
    """Way of each row from the origin, mm, shape (rows,)."""

    def __post_init__(self) -> None:
        (a, b, c), (d, e, f) = self.across.tolist(), self.down.tolist()
        normal = np.array([b * f - c * e, c * d - a * f, a * e - b * d])
        object.__setattr__(self, "normal", normal)
        object.__setattr__(self, "frame", np.array([self.across, self.down, normal]))
        rows, columns = self.shape
        for name, count, step in (("vs", rows, self.spacing[0]), ("us", columns, self.spacing[1])):
            object.__setattr__(self, name, np.arange(count, dtype=np.float32) * np.float32(step))

    @property
    def whole(self) -> Window:
        """All of it."""
        return slice(0, self.shape[0]), slice(0, self.shape[1])

    def window(self, center: Sequence[float], half: Sequence[float]) -> Window:
        """The part within `half` (mm across, mm down) of a point (mm across, mm down of the origin)."""
        spans = []
        for count, step, middle, reach in zip(
            self.shape, self.spacing, center[::-1], half[::-1], strict=True
        ):
            low = max(0, ceil((middle - reach) / step))
            spans.append(slice(low, max(low, min(count, floor((middle + reach) / step) + 1))))
        return spans[0], spans[1]

    def around(self, center: Triple, reach: Triple) -> Window:
        """The part within a box about a point of the phantom, empty if the plane misses the box.

        Args:
            center: x, y, z, mm.
            reach: Half the box along x, y and z, mm.
        """
        way = np.asarray(center, np.float64) - self.origin
        half = np.asarray(reach, np.float64)
        if abs(way @ self.normal) > np.abs(self.normal) @ half + self.thickness / 2:
            return slice(0, 0), slice(0, 0)
        return self.window(
            (float(way @ self.across), float(way @ self.down)),
            (float(np.abs(self.across) @ half), float(np.abs(self.down) @ half)),
        )

    def axis(self, index: int, window: Window) -> Values:
        """x, y or z of the voxels of a window, mm; of a shape that broadcasts to the window's."""
        value = np.full((1, 1), self.origin[index], np.float32)
        if abs(self.across[index]) > _FLAT:
            value = value + (self.us[window[1]] * np.float32(self.across[index]))[None, :]
        if abs(self.down[index]) > _FLAT:
            value = value + (self.vs[window[0]] * np.float32(self.down[index]))[:, None]
        return value

    def beyond(self, normal: Triple, offset: float, window: Window) -> Values:
        """How much of each voxel of a window lies where normal · p is below the offset; it broadcasts."""
        way = np.asarray(normal, np.float64)
        width = self._width(way)
        across, down = float(way @ self.across), float(way @ self.down)
        value = np.full((1, 1), 0.5 + (offset - float(way @ self.origin)) / width, np.float32)
        if abs(across) > _FLAT:
            value = value - (self.us[window[1]] * np.float32(across / width))[None, :]
        if abs(down) > _FLAT:
            value = value - (self.vs[window[0]] * np.float32(down / width))[:, None]
        return np.clip(value, 0, 1)

    def cover(self, solid: Solid, *, wobble: Values | None = None) -> Part:
        """How much of each voxel a solid covers.

        Args:
            solid: The solid.
            wobble: Shape of the whole section: is added to what is 1 on the solid's surface, so that it
                dents (above 0) and bulges (below 0); 0.2 is a tenth of its radius.
        """
        terms = conics(self, solid.center[None], solid.form[None])[0]
        return self.cut(terms.tolist(), solid.cuts, wobble=wobble)

    def cut(
        self, terms: Sequence[float], cuts: tuple[tuple[Vector, float], ...], *, wobble: Values | None = None
    ) -> Part:
        """What `cover` gives, from the terms of `conics`."""
        a, b, c, u, v, least, off, bend_u, bend_v, slack = terms
        limit = (1 + slack) ** 2 + (0.0 if wobble is None else 0.6)
        if least >= limit:
            return NOTHING
        (high, wide), thick = self.spacing, self.thickness
        spare = (limit - least) / (a * c - b * b)
        window = self.window((u, v), ((c * spare) ** 0.5, (a * spare) ** 0.5))
        x = (self.us[window[1]] - np.float32(u))[None, :]
        y = (self.vs[window[0]] - np.float32(v))[:, None]
        inside = (np.float32(1 - least) - np.float32(a) * x * x) - np.float32(c) * y * y
        if abs(b) > _FLAT * (a + c):
            inside -= np.float32(2 * b) * x * y
            edge = np.abs(np.float32(2 * wide * a) * x + np.float32(2 * wide * b) * y)
            edge += np.abs(np.float32(2 * high * c) * y + np.float32(2 * high * b) * x)
        else:
            edge = np.abs(np.float32(2 * wide * a) * x) + np.abs(np.float32(2 * high * c) * y)
        lean = np.full((1, 1), 2 * thick * off, np.float32)
        if abs(bend_u) > _FLAT:
            lean = lean + np.float32(2 * thick * bend_u) * x
        if abs(bend_v) > _FLAT:
            lean = lean + np.float32(2 * thick * bend_v) * y
        edge += np.abs(lean) + np.float32(1e-6)
        if wobble is not None:
            inside -= wobble[window]
        inside -= np.float32(0.25) * inside * inside
        inside /= edge
        inside += np.float32(0.5)
        for normal, offset in cuts:
            np.clip(inside, 0, 1, out=inside)
            inside *= self.beyond(normal, offset, window)
        return window, np.clip(inside, 0, 1, out=inside)

    def tube(self, tube: Tube) -> Part:
        """How much of each voxel a tube covers."""
        ends = (np.array([tube.start, tube.end]) - self.origin) @ self.frame.T
        return self.tube_between(ends.ravel().tolist(), tube.radii)

    def tube_between(self, ends: Sequence[float], radii: tuple[float, float]) -> Part:
        """What `tube` gives, from the place of both ends: mm across, down and along the normal."""
        au, av, aw, bu, bv, bw = ends
        wu, wv, ww = bu - au, bv - av, bw - aw
        reach = max(radii) + self.thickness / 2
        low, high = 0.0, 1.0
        if abs(ww) > 1e-6:
            first, last = sorted(((-reach - aw) / ww, (reach - aw) / ww))
            low, high = max(0.0, first), min(1.0, last)
        if low > high or (abs(ww) <= 1e-6 and abs(aw) > reach):
            return NOTHING
        pad = max(radii) + max(self.spacing)
        middle, half = (low + high) / 2, (high - low) / 2
        window = self.window(
            (au + middle * wu, av + middle * wv), (half * abs(wu) + pad, half * abs(wv) + pad)
        )
        long = wu * wu + wv * wv + ww * ww + 1e-9
        u = (self.us[window[1]] - np.float32(au))[None, :]
        v = (self.vs[window[0]] - np.float32(av))[:, None]
        t = u * np.float32(wu / long) + (v * np.float32(wv / long) - np.float32(aw * ww / long))
        np.clip(t, 0, 1, out=t)
        x, y, z = u - t * np.float32(wu), v - t * np.float32(wv), t * np.float32(ww) + np.float32(aw)
        far = np.asarray(x * x, np.float32)
        far += y * y
        far += z * z
        np.sqrt(far, out=far)
        blur = max(min(self.spacing), 0.5 * self.thickness * abs(ww) / long**0.5)
        if radii[0] != radii[1]:
            far -= t * np.float32(radii[1] - radii[0])
        far *= np.float32(-1 / blur)
        far += np.float32(0.5 + radii[0] / blur)
        return window, np.clip(far, 0, 1, out=far)

    def full(self, part: Part) -> Values:
        """A part as an array of the whole section."""
        window, cover = part
        whole = np.zeros(self.shape, np.float32)
        whole[window] = cover
        return whole

    def _width(self, normal: Vector) -> float:
        high, wide = self.spacing
        return (
            abs(float(normal @ self.across)) * wide
            + abs(float(normal @ self.down)) * high
            + abs(float(normal @ self.normal)) * self.thickness
        )


def paint(values: Values, part: Part, value: float | Values) -> None:
    """Blend a value into an image where a part covers it; an array must have the window's shape."""
    window, cover = part
    below = values[window]
    below += cover * (value - below)


def conics(section: Section, centers: Vector, forms: Vector) -> Vector:
    """What the sections of ellipsoids by a plane are made of.

    Args:
        section: The plane.
        centers: Shape (n, 3).
        forms: Shape (n, 3, 3).

    Returns:
        Shape (n, 10), for each: the three terms of the conic, its centre (mm across, mm down), its least
        value, three terms of the slope along the normal, and how far in radii the voxels reach over the edge.
    """
    frame = section.frame
    high, wide = section.spacing
    own = frame @ forms @ frame.T
    away = (section.origin - centers) @ frame.T
    a, b, c = own[:, 0, 0], own[:, 0, 1], own[:, 1, 1]
    pull = np.einsum("nij,nj->ni", own, away)
    d, e = pull[:, 0], pull[:, 1]
    room = a * c - b * b
    u, v = (b * e - c * d) / room, (b * d - a * e) / room
    least = np.einsum("ni,ni->n", away, pull) + d * u + e * v
    bend_u, bend_v = own[:, 2, 0], own[:, 2, 1]
    off = pull[:, 2] + u * bend_u + v * bend_v
    slack = 0.5 * (wide * np.sqrt(a) + high * np.sqrt(c) + section.thickness * np.sqrt(own[:, 2, 2]))
    return np.stack([a, b, c, u, v, least, off, bend_u, bend_v, slack], axis=1)
