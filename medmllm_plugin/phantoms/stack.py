"""Many solids and tubes at once: those that a plane misses cost nothing, small ones are cut together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.phantoms.sections import Part, Section, Solid, Tube, Values, Vector, conics, paint

SMALL = (18, 44)
"""Windows up to so many pixels either way are filled together, as one array of that size."""

Whole = NDArray[np.int64]


class Stack:
    """Solids and tubes, each with its value, painted in order."""

    def __init__(self, parts: Sequence[tuple[Solid | Tube, float]]) -> None:
        """Keep the parts in the order of painting."""
        self._values = [value for _, value in parts]
        self._solids = np.array([n for n, (part, _) in enumerate(parts) if isinstance(part, Solid)], np.int64)
        self._tubes = np.array([n for n, (part, _) in enumerate(parts) if isinstance(part, Tube)], np.int64)
        solids = [part for part, _ in parts if isinstance(part, Solid)]
        tubes = [part for part, _ in parts if isinstance(part, Tube)]
        self._cuts = [one.cuts for one in solids]
        self._centers = np.array([one.center for one in solids]).reshape(-1, 3)
        self._forms = np.array([one.form for one in solids]).reshape(-1, 3, 3)
        self._ends = np.array([(one.start, one.end) for one in tubes]).reshape(-1, 2, 3)
        self._radii = np.array([one.radii for one in tubes]).reshape(-1, 2)
        self._middle, self._reach = self._bounds()

    def stretched(self, stretch: Vector) -> Stack:
        """All of it stretched along x, y and z; the radii of tubes stay, cuts move by the mean."""
        made, mean = copy(self), float(stretch.mean())
        made._centers = self._centers * stretch
        made._forms = self._forms / np.outer(stretch, stretch)
        made._ends = self._ends * stretch
        made._cuts = [tuple((way, offset * mean) for way, offset in cuts) for cuts in self._cuts]
        made._middle, made._reach = made._bounds()
        return made

    def _bounds(self) -> tuple[Vector, Vector]:
        """The middle of the box around all parts, and half its extent along x, y and z, mm."""
        reach = np.sqrt(np.diagonal(np.linalg.inv(self._forms), axis1=1, axis2=2))
        thick = np.repeat(self._radii.max(axis=1, initial=0), 2)[:, None]
        ends = self._ends.reshape(-1, 3)
        low = np.concatenate([self._centers - reach, ends - thick])
        high = np.concatenate([self._centers + reach, ends + thick])
        if not len(low):
            return np.zeros(3), np.zeros(3)
        least, most = low.min(axis=0), high.max(axis=0)
        return (least + most) / 2, (most - least) / 2

    def covers(self, section: Section) -> Iterator[tuple[Part, float]]:
        """Each part that meets the plane, cut by it, and its value; in the order of painting."""
        off = abs(float((section.origin - self._middle) @ section.normal))
        if off > float(np.abs(section.normal) @ self._reach) + section.thickness:
            return
        met: dict[int, Part] = {}
        if len(self._solids):
            terms = conics(section, self._centers, self._forms)
            near = np.flatnonzero(terms[:, 5] < (1 + terms[:, 9]) ** 2)
            cuts = [self._cuts[n] for n in near]
            met.update(zip(self._solids[near].tolist(), _solids(section, terms[near], cuts), strict=True))
        if len(self._tubes):
            ends = (self._ends - section.origin) @ section.frame.T
            heights, reach = ends[:, :, 2], self._radii.max(axis=1) + section.thickness / 2
            near = np.flatnonzero((heights.max(axis=1) > -reach) & (heights.min(axis=1) < reach))
            pieces = _tubes(section, ends[near].reshape(-1, 6), self._radii[near])
            met.update(zip(self._tubes[near].tolist(), pieces, strict=True))
        for place in sorted(met):
            if met[place][1].size:
                yield met[place], self._values[place]

    def paint(self, section: Section, values: Values) -> None:
        """Paint all of them into an image of the section."""
        for cut, value in self.covers(section):
            paint(values, cut, value)


def _solids(section: Section, terms: Vector, cuts: Sequence[tuple[tuple[Vector, float], ...]]) -> list[Part]:
    """What `Section.cut` gives for each row of terms."""
    a, b, c, u, v, least, off, bend_u, bend_v, slack = terms.T
    spare = ((1 + slack) ** 2 - least) / (a * c - b * b)
    low, size = _windows(section, u, v, np.sqrt(c * spare), np.sqrt(a * spare))
    made: list[Part | None] = [None] * len(terms)
    (high, wide), thick = section.spacing, section.thickness
    for side, group in _groups(size):
        x, y = _grid(section, low[group], side, u[group], v[group])
        p, q, r = (_deep(one[group]) for one in (a, b, c))
        px, qx, qy, ry = p * x, q * x, q * y, r * y
        inside = _deep(1 - least[group]) - px * x - (2 * qx + ry) * y
        edge = np.abs(px + qy) * np.float32(2 * wide) + np.abs(qx + ry) * np.float32(2 * high)
        lean = _deep(off[group]) + _deep(bend_u[group]) * x + _deep(bend_v[group]) * y
        edge += np.abs(lean) * np.float32(2 * thick) + np.float32(1e-6)
        inside -= np.float32(0.25) * inside * inside
        inside /= edge
        inside += np.float32(0.5)
        _share(made, np.clip(inside, 0, 1, out=inside), group, low, size)
    for n, part in enumerate(made):
        if part is None:
            made[n] = section.cut(terms[n].tolist(), cuts[n])
        else:
            for normal, offset in cuts[n]:
                part = part[0], part[1] * section.beyond(normal, offset, part[0])
            made[n] = part
    return [part for part in made if part is not None]


def _tubes(section: Section, ends: Vector, radii: Vector) -> list[Part]:
    """What `Section.tube_between` gives for each row of ends."""
    au, av, aw, bu, bv, bw = ends.T
    wu, wv, ww = bu - au, bv - av, bw - aw
    most = radii.max(axis=1)
    reach = most + section.thickness / 2
    rise = np.where(np.abs(ww) > 1e-6, ww, 1.0)
    one, other = (-reach - aw) / rise, (reach - aw) / rise
    flat = np.abs(ww) <= 1e-6
    first = np.where(flat, 0, np.clip(np.minimum(one, other), 0, 1))
    last = np.where(flat, 1, np.clip(np.maximum(one, other), 0, 1))
    middle, half, pad = (first + last) / 2, (last - first) / 2, most + max(section.spacing)
    low, size = _windows(
        section, au + middle * wu, av + middle * wv, half * np.abs(wu) + pad, half * np.abs(wv) + pad
    )
    long = wu * wu + wv * wv + ww * ww + 1e-9
    blur = np.maximum(min(section.spacing), 0.5 * section.thickness * np.abs(ww) / np.sqrt(long))
    made: list[Part | None] = [None] * len(ends)
    for side, group in _groups(size):
        x, y = _grid(section, low[group], side, au[group], av[group])
        du, dv, dw = (_deep(way[group]) for way in (wu, wv, ww))
        scale = _deep(1 / long[group])
        t = np.clip(x * (du * scale) + (y * (dv * scale) - _deep(aw[group]) * dw * scale), 0, 1)
        far = np.sqrt((x - t * du) ** 2 + (y - t * dv) ** 2 + (t * dw + _deep(aw[group])) ** 2)
        far -= t * _deep(radii[group, 1] - radii[group, 0])
        far *= _deep(-1 / blur[group])
        far += _deep(0.5 + radii[group, 0] / blur[group])
        _share(made, np.clip(far, 0, 1, out=far), group, low, size)
    return [
        section.tube_between(ends[n].tolist(), (float(radii[n, 0]), float(radii[n, 1])))
        if part is None
        else part
        for n, part in enumerate(made)
    ]


def _windows(section: Section, u: Vector, v: Vector, half_u: Vector, half_v: Vector) -> tuple[Whole, Whole]:
    """As `Section.window` for many: first (row, column) and size (rows, columns) of each, shape (n, 2)."""
    spacing, shape = np.array(section.spacing), np.array(section.shape)
    center, half = np.stack([v, u], axis=1), np.stack([half_v, half_u], axis=1)
    low = np.maximum(np.ceil((center - half) / spacing), 0).astype(np.int64)
    high = np.minimum(np.floor((center + half) / spacing).astype(np.int64) + 1, shape)
    return low, np.maximum(high - low, 0)


def _groups(size: Whole) -> Iterator[tuple[int, Whole]]:
    """(side of the array, which parts) for windows that are filled together."""
    most, least = size.max(axis=1, initial=0), 0
    for side in SMALL:
        group = np.flatnonzero((most > least) & (most <= side))
        if len(group):
            yield int(most[group].max()), group
        least = side


def _grid(section: Section, low: Whole, side: int, u: Vector, v: Vector) -> tuple[Values, Values]:
    """Mm from (u, v) across, shape (n, 1, side), and down, shape (n, side, 1), from each window's corner."""
    steps, (high, wide) = np.arange(side), section.spacing
    x = (low[:, 1, None] + steps) * wide - u[:, None]
    y = (low[:, 0, None] + steps) * high - v[:, None]
    return x.astype(np.float32)[:, None, :], y.astype(np.float32)[:, :, None]


def _deep(row: Vector) -> Values:
    """A number for each part, shape (n, 1, 1)."""
    return row.astype(np.float32)[:, None, None]


def _share(made: list[Part | None], covers: Values, group: Whole, low: Whole, size: Whole) -> None:
    """Give each part of a group its piece of what was filled together."""
    for n, cover in zip(group.tolist(), covers, strict=True):
        (row, column), (rows, columns) = low[n].tolist(), size[n].tolist()
        made[n] = (slice(row, row + rows), slice(column, column + columns)), cover[:rows, :columns]
