"""A head: scalp, skull, brain with folds, ventricles, falx, skull base, orbits and sinuses.

The same anatomy serves CT and MR: a palette gives each tissue its value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from medmllm_plugin.phantoms import head_parts
from medmllm_plugin.phantoms.anatomy import Drawn
from medmllm_plugin.phantoms.head_lesions import HeadLesion
from medmllm_plugin.phantoms.head_parts import FLOOR, Palette
from medmllm_plugin.phantoms.sections import Section, Values, Vector, Window, ellipsoid, paint
from medmllm_plugin.phantoms.stack import Stack
from medmllm_plugin.phantoms.texture import Folds

HALF_WIDTH, HALF_LENGTH, ABOVE, BELOW = 76.0, 94.0, 89.0, 140.0
"""Half axes of the outer surface of the average head, mm."""

_FIRST, _LAST, _STEPS = -12.0, 40.0, 8
"""Depths below the skin that layer tables span, mm, and their entries for each mm."""

_BASE = 10.0
"""Below this height the skull base may be in a plane, mm above the origin."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """One patient that doesn't exist; `draw` draws any plane of the head."""

    stretch: Vector
    """Size against the average along x, y and z."""
    pose: Vector
    """Shape (3, 3): how the head is turned in the scanner; from its own frame to the phantom's."""
    scalp: float
    """Thickness of the scalp, mm."""
    skull: float
    """Thickness of the vault, mm."""
    atrophy: float
    """0 for a young brain to 1: width of ventricles and sulci."""
    push: float
    """How far a lesion pushes the midline to the left, mm."""
    palette: Palette
    """The value of each tissue."""
    folds: Folds = field(repr=False)
    lesions: tuple[HeadLesion, ...] = ()

    @property
    def inner(self) -> float:
        """Depth of the inner table below the skin, mm."""
        return self.scalp + self.skull

    def draw(self, section: Section) -> Drawn:
        """Any plane, without noise."""
        own = Section(
            origin=self.pose.T @ section.origin,
            across=self.pose.T @ section.across,
            down=self.pose.T @ section.down,
            spacing=section.spacing,
            thickness=section.thickness,
            shape=section.shape,
        )
        values = np.full(own.shape, self.palette.air, np.float32)
        self._rest.paint(own, values)
        window = own.around((0, -4, -25), np.array((80, 100, 116)) * self.stretch)
        if not values[window].size:
            return values, {}
        low = float(own.axis(2, window).min()) - own.thickness < _BASE
        if low:
            self._face.paint(own, values)
        depth = self.depth(own, window)
        vault = own.beyond(*FLOOR, window)
        brain = np.zeros(own.shape, np.float32)
        self._paint_vault(own, values, window, depth, vault, brain)
        if low:
            self._paint_base(own, values, brain)
        self._paint_brain(own, values, window, depth, brain)
        if low:
            self._hind_brain.paint(own, values)
        self._deep_brain.paint(own, values)
        self._paint_midline(own, values, brain)
        if low:
            self._over.paint(own, values)
        masks = {}
        for index, lesion in enumerate(self.lesions):
            cover = lesion.paint(self, own, values, window, depth - np.float32(self.inner), brain)
            if cover is not None and (mask := cover > 0.5).any():
                masks[index] = mask
        return values, masks

    def depth(self, section: Section, window: Window) -> Values:
        """How deep below the skin each voxel lies, mm; negative outside."""
        sx, sy, sz = self.stretch
        x, y, z = (section.axis(n, window) for n in range(3))
        y = y + np.float32(4)
        half = np.where(z > 0, np.float32((ABOVE * sz) ** -2), np.float32((BELOW * sz) ** -2))
        across = x / (np.float32(HALF_WIDTH * sx) + y * np.float32(0.0011 * HALF_WIDTH * sx))
        xx, yy, zz = x * x, y * y, z * z * half
        form = across * across
        form += yy * np.float32((HALF_LENGTH * sy) ** -2)
        form += zz * (np.float32(0.55) + np.float32(0.45) * zz)
        away = xx + yy + z * z
        np.maximum(form, np.float32(1e-6), out=form)
        np.divide(away, form, out=form)
        np.sqrt(form, out=form)
        form -= np.sqrt(away)
        return form

    def depth_of(self, point: Vector) -> float:
        """How deep below the skin a point of the head's own frame lies, mm."""
        one = Section(
            origin=point,
            across=np.array([1.0, 0.0, 0.0]),
            down=np.array([0.0, 1.0, 0.0]),
            spacing=(1.0, 1.0),
            thickness=1.0,
            shape=(1, 1),
        )
        return float(self.depth(one, one.whole)[0, 0])

    def surface(self, direction: Vector, depth: float) -> Vector:
        """The point at that depth below the skin in that direction from the origin, mm."""
        way = direction / np.linalg.norm(direction)
        low, high = 20.0, 140.0
        for _ in range(24):
            middle = (low + high) / 2
            if self.depth_of(way * middle) > depth:
                low = middle
            else:
                high = middle
        return np.asarray(way * low, np.float64)

    @cached_property
    def _rest(self) -> Stack:
        under = float((HALF_LENGTH + 6) * self.stretch[1])
        foam = ellipsoid((0, under, -20), (88, 26, 170))
        return Stack([(foam, self.palette.rest)])

    @cached_property
    def _face(self) -> Stack:
        return head_parts.face(self.palette).stretched(self.stretch)

    @cached_property
    def _bones(self) -> Stack:
        return head_parts.base(self.palette).stretched(self.stretch)

    @cached_property
    def _fossae(self) -> Stack:
        fossae = [(fossa, self.palette.fluid) for fossa in head_parts.fossae()]
        return Stack(fossae).stretched(self.stretch)

    @cached_property
    def _lower_brain(self) -> Stack:
        lobes = [(lobe, 1.0) for lobe in head_parts.lower_brain(1.2 + 1.8 * self.atrophy)]
        return Stack(lobes).stretched(self.stretch)

    @cached_property
    def _orbits(self) -> Stack:
        walls = [(orbit.grown(3.0), 0.0) for orbit in head_parts.orbits()]
        return Stack(walls).stretched(self.stretch)

    @cached_property
    def _petrous(self) -> Stack:
        return head_parts.petrous(self.palette).stretched(self.stretch)

    @cached_property
    def _hind_brain(self) -> Stack:
        parts = head_parts.hind_brain(self.palette, 0.85 + 0.4 * self.atrophy)
        return parts.stretched(self.stretch)

    @cached_property
    def _deep_brain(self) -> Stack:
        parts = head_parts.deep_brain(self.palette, 0.8 + 0.6 * self.atrophy, self.push)
        return parts.stretched(self.stretch)

    @cached_property
    def _over(self) -> Stack:
        return head_parts.orbits_and_sinuses(self.palette).stretched(self.stretch)

    @cached_property
    def _sinus(self) -> Stack:
        sinus = ellipsoid((0, 79, 2), (4.0, 3.4, 12))
        return Stack([(sinus, self.palette.vessel)]).stretched(self.stretch)

    def _layers(self, steps: list[tuple[float, float]], width: float) -> Values:
        """A table over depth: (from this depth on, value) in order, smoothed by the width of a voxel, mm."""
        at = np.arange(_FIRST, _LAST, 1 / _STEPS)
        table = np.interp(at, [at[0] - 1], [steps[0][1]])
        for start, value in steps:
            table[at >= start] = value
        box = max(1, round(width * _STEPS))
        padded = np.pad(table, (box // 2, box - 1 - box // 2), mode="edge")
        return np.convolve(padded, np.full(box, 1 / box), mode="valid").astype(np.float32)

    def _paint_vault(
        self,
        section: Section,
        values: Values,
        window: Window,
        depth: Values,
        vault: Values,
        brain: Values,
    ) -> None:
        """Scalp and vault, and where the brain lies in it; `brain` is filled."""
        tissue, out, skull = self.palette, self.scalp, self.skull
        lean = min(1.0, abs(float(section.origin @ section.normal)) / ABOVE) ** 1.5
        width = section.spacing[0] + section.thickness * lean
        place = (depth * np.float32(_STEPS) + np.float32(-_FIRST * _STEPS)).astype(np.intp)
        steps = [
            (_FIRST, tissue.skin),
            (2.4, tissue.fat),
            (out - 1.4, tissue.muscle),
            (out, tissue.bone),
            (out + 0.28 * skull, tissue.marrow),
            (out + 0.72 * skull, tissue.bone),
            (out + skull, tissue.fluid),
        ]
        gap = out + skull + 0.7 + 2.2 * self.atrophy
        head = self._layers(steps, width).take(place, mode="clip")
        rim = section.beyond(FLOOR[0], FLOOR[1] + 10, window) * (depth < np.float32(out + skull))
        inside = self._layers([(_FIRST, 0.0), (0.0, 1.0)], width).take(place, mode="clip")
        inside *= np.maximum(vault, rim)
        paint(values, (window, inside), head)
        brain[window] = self._layers([(_FIRST, 0.0), (gap, 1.0)], width).take(place, mode="clip") * vault

    def _paint_base(self, section: Section, values: Values, brain: Values) -> None:
        """The bones below the brain, the fossae in them, and the brain in these."""
        kept = values.copy() if brain.any() else None
        self._bones.paint(section, values)
        if kept is not None:
            values += (brain > 0.5) * (kept - values)
        self._fossae.paint(section, values)
        for (window, cover), _ in self._lower_brain.covers(section):
            brain[window] = np.maximum(brain[window], cover)
        for (window, cover), _ in self._orbits.covers(section):
            brain[window] *= 1 - cover
        for (window, cover), value in self._petrous.covers(section):
            paint(values, (window, cover), value)
            brain[window] *= 1 - cover

    def _paint_brain(
        self, section: Section, values: Values, window: Window, depth: Values, brain: Values
    ) -> None:
        """Cortex and white matter folded by sulci."""
        tissue, wide = self.palette, self.atrophy
        window, depth = _bounds(brain, window, depth)
        inside = np.clip((depth - np.float32(self.inner)) * np.float32(1 / 28), 0, 1)
        fold = self.folds.at(section, window)
        ridge = np.abs(fold, out=fold)
        split = np.float32(0.22 + 0.36 * wide) * (1 - inside)
        split -= ridge
        grey = (split + np.float32(0.95) - np.float32(0.55) * inside) * np.float32(3)
        np.minimum(grey, (np.float32(0.95) - inside) * np.float32(6), out=grey)
        np.maximum(grey, np.float32(3.4 / 3) - inside * np.float32(28 / 3), out=grey)
        np.clip(grey, 0, 1, out=grey)
        sulci = np.minimum(split * np.float32(4), (np.float32(0.92) - inside) * np.float32(8))
        np.clip(sulci, 0, 1, out=sulci)
        grey *= np.float32(tissue.grey - tissue.white)
        grey += np.float32(tissue.white)
        sulci *= np.float32(tissue.fluid) - grey
        grey += sulci
        paint(values, (window, brain[window]), grey)

    def _paint_midline(self, section: Section, values: Values, brain: Values) -> None:
        """The fissure between the hemispheres, the falx and the sagittal sinus in it."""
        window = section.around((0, 0, 20), (14, 100 * self.stretch[1], 90 * self.stretch[2]))
        if not values[window].size:
            return
        x, y, z = (section.axis(n, window) for n in range(3))
        if self.push:
            bow = self.push * np.exp(-((y / 45) ** 2) - ((z - 8) / 40) ** 2)
            x = np.asarray(x - bow, np.float32)
        away = np.abs(x)
        body = ((y - 2) / np.float32(44)) ** 2 + ((z - 2) / np.float32(27)) ** 2
        there = np.clip((body - 1) * 4, 0, 1) * np.clip((z + 22) * 0.3, 0, 1)
        width = section.spacing[0]
        cover = brain[window] * there
        gap = np.float32(1.0 + 1.4 * self.atrophy)
        paint(values, (window, cover * np.clip(0.5 + (gap - away) / width, 0, 1)), self.palette.fluid)
        falx = np.clip(0.5 + (0.6 - away) / width, 0, 1) * np.clip((body - 1.35) * 4, 0, 1)
        paint(values, (window, cover * falx), self.palette.falx)
        self._sinus.paint(section, values)


def _bounds(brain: Values, window: Window, depth: Values) -> tuple[Window, Values]:
    """The part of a window, and of what was made for it, that has brain."""
    there = brain[window] > 0
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    if not len(rows):
        return (slice(0, 0), slice(0, 0)), depth[:0, :0]
    spans = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    moved = (
        slice(spans[0].start + window[0].start, spans[0].stop + window[0].start),
        slice(spans[1].start + window[1].start, spans[1].stop + window[1].start),
    )
    return moved, depth[spans]
