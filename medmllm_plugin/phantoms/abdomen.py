"""An upper abdomen: wall, spine, liver, spleen, kidneys, pancreas, vessels, stomach and bowel with gas.

The origin lies in front of the spine between the kidneys; the dome of the liver is some 140 mm above.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from medmllm_plugin.phantoms.anatomy import Drawn
from medmllm_plugin.phantoms.sections import Section, Solid, Tube, Values, Vector, ellipsoid, paint
from medmllm_plugin.phantoms.stack import Stack
from medmllm_plugin.phantoms.texture import Folds

AIR, LUNG, FAT, FLUID, SOFT, BONE, MARROW = -1000.0, -840.0, -105.0, 12.0, 52.0, 520.0, 190.0

HALF_WIDTH, HALF_DEPTH = 144.0, 108.0
"""Half axes of the trunk under the fat, mm."""

WALL = 13.0
"""Thickness of the muscles of the wall, mm."""

SPINE = 62.0
"""y of the middle of the vertebrae, mm."""

VERTEBRA = 34.0
"""From one vertebra to the next, mm."""

Part = tuple[Solid | Tube, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """What contrast medium makes of the organs, HU."""

    name: str
    liver: float
    portal: float
    spleen: float
    cortex: float
    medulla: float
    aorta: float
    cava: float
    gut: float


PHASES = (
    Phase(name="plain", liver=57, portal=42, spleen=48, cortex=33, medulla=31, aorta=42, cava=40, gut=38),
    Phase(
        name="arterial", liver=68, portal=80, spleen=135, cortex=205, medulla=70, aorta=320, cava=90, gut=85
    ),
    Phase(
        name="portal", liver=112, portal=172, spleen=122, cortex=190, medulla=165, aorta=155, cava=150, gut=78
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AbdomenLesion:
    """One finding placed in an abdomen."""

    finding: str
    site: str
    side: str
    severity: str | None
    sentence: str
    solid: Solid
    value: float
    """HU."""
    inside: bool
    """Whether it is drawn only within the liver."""
    seen_from: float = 0.5
    """The share of a voxel from which on it counts as seen there; a stone shines through less than half."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Abdomen:
    """One patient that doesn't exist; `draw` draws axial planes."""

    stretch: Vector
    """Size against the average along x, y and z."""
    fat: float
    """Thickness of the fat under the skin, mm."""
    phase: Phase
    prone: bool
    """Whether gas rises to the back."""
    couch: float
    """Distance of the couch from the skin, mm."""
    seed: int
    """Of bowel loops and vessels."""
    folds: Folds = field(repr=False)
    lesions: tuple[AbdomenLesion, ...] = ()
    _walls: dict[bytes, tuple[Values, Values]] = field(default_factory=dict, repr=False)

    def draw(self, section: Section) -> Drawn:
        """An axial plane, without noise."""
        wall, inside = self._trunk(section)
        values = wall.copy()
        self._chest.paint(section, values)
        self._muscles.paint(section, values)
        for (window, cover), value in self._bowel.covers(section):
            paint(values, (window, cover * inside[window]), value)
        self._colon(section, values, inside)
        liver = np.zeros(section.shape, np.float32)
        for (window, cover), _ in self._liver.covers(section):
            liver[window] = np.maximum(liver[window], cover * inside[window])
        window = section.around((-45, 0, 70), np.array((125, 110, 95)) * self.stretch)
        if liver[window].any():
            paint(values, (window, liver[window]), self.phase.liver)
            for (part, cover), value in self._veins.covers(section):
                paint(values, (part, cover * liver[part]), value)
        for stack in (self._organs, self._kidneys):
            for (part, cover), value in stack.covers(section):
                paint(values, (part, cover * inside[part]), value)
        self._bones.paint(section, values)
        masks = {}
        for index, lesion in enumerate(self.lesions):
            part, cover = section.cover(lesion.solid)
            if not cover.size:
                continue
            cover = cover * (liver if lesion.inside else inside)[part]
            paint(values, (part, cover), lesion.value)
            mask = section.full((part, cover)) > lesion.seen_from
            if mask.any():
                masks[index] = mask
        return values, masks

    def kidney(self, sign: int) -> Solid:
        """The right (-1) or left (1) kidney."""
        center = np.array((sign * 62, 46, -8.0 if sign < 0 else 6.0)) * self.stretch
        radii = np.array((25, 28, 52)) * self.stretch
        return ellipsoid(center, radii, turn=(-12, sign * 10, sign * -22))

    def with_lesions(self, lesions: tuple[AbdomenLesion, ...]) -> Abdomen:
        """The same abdomen with these findings."""
        return replace(self, lesions=lesions)

    def _trunk(self, section: Section) -> tuple[Values, Values]:
        """The trunk's wall on its couch, and what lies inside it; the same for each plane of a scan."""
        key = section.origin[:2].tobytes() + section.across.tobytes() + section.down.tobytes()
        key += repr((section.spacing, section.shape)).encode()
        if key not in self._walls:
            self._walls[key] = self._made_trunk(section)
        return self._walls[key]

    def _made_trunk(self, section: Section) -> tuple[Values, Values]:
        sx, sy, _ = self.stretch
        x, y = section.axis(0, section.whole), section.axis(1, section.whole)
        wide, deep = HALF_WIDTH * sx + self.fat, HALF_DEPTH * sy + 0.8 * self.fat
        away = np.sqrt(x * x + y * y) + np.float32(1e-3)
        form = (np.abs(x) / wide) ** 2.3 + (np.abs(y) / deep) ** 2.3
        depth = away * (form ** np.float32(-1 / 2.3) - 1)
        width = np.float32(section.spacing[0])
        values = np.full(section.shape, AIR, np.float32)
        under = (1 if not self.prone else -1) * np.float32(deep + self.couch)
        down = (y - under) * (1 if not self.prone else -1)
        plate = np.clip(0.5 + down / width, 0, 1) * np.clip(0.5 + (215 - np.abs(x)) / width, 0, 1)
        foam = plate * np.clip(0.5 + (24 - down) / width, 0, 1)
        values += foam * (80 + 600 * np.exp(-((down / 2) ** 2)))
        for start, value in ((0.0, 40.0), (2.2, FAT), (self.fat, SOFT + 5), (self.fat + WALL, FAT)):
            paint(values, (section.whole, np.clip(0.5 + (depth - np.float32(start)) / width, 0, 1)), value)
        inside = np.clip(0.5 + (depth - np.float32(self.fat + WALL)) / width, 0, 1)
        return values, inside

    def _fit(self, parts: list[Part]) -> Stack:
        return Stack(parts).stretched(self.stretch)

    @cached_property
    def _chest(self) -> Stack:
        """Lung bases and the heart above the diaphragm."""
        parts: list[Part] = [(ellipsoid((sign * 74, 14, 196), (64, 84, 100)), LUNG) for sign in (-1, 1)]
        parts += [(ellipsoid((24, -42, 156), (58, 44, 40)), self.phase.aorta * 0.6 + 20)]
        parts += [(ellipsoid((sign * 70, 10, 56), (78, 88, 78)), FAT) for sign in (-1, 1)]
        return self._fit(parts)

    @cached_property
    def _muscles(self) -> Stack:
        parts: list[Part] = []
        for sign in (-1, 1):
            parts += [
                (ellipsoid((sign * 37, 98, 0), (27, 17, 900)), SOFT),
                (ellipsoid((sign * 63, 82, -40), (11, 14, 110)), SOFT),
                (ellipsoid((sign * 36, 62, -70), (18, 20, 108)), SOFT + 6),
                (ellipsoid((sign * 8, 40, 90), (9, 12, 60)), SOFT),
            ]
        return self._fit(parts)

    @cached_property
    def _liver(self) -> Stack:
        return self._fit(
            [
                (ellipsoid((-74, 0, 64), (72, 88, 80), turn=(0, 14, 0)), 0.0),
                (ellipsoid((-6, -46, 92), (74, 34, 38), turn=(0, 8, 8)), 0.0),
                (ellipsoid((-16, 18, 92), (26, 22, 30)), 0.0),
            ]
        )

    @cached_property
    def _veins(self) -> Stack:
        """Portal and hepatic veins."""
        rng = np.random.default_rng([self.seed, 1])
        root, parts = np.array((-34.0, 2.0, 52.0)), []
        for _ in range(13):
            end = root + rng.normal(0, 1, 3) * (42, 44, 38) + (-30, 0, 12)
            parts.append((Tube(root, end, (5.2, 1.6)), self.phase.portal))
            twig = root + 0.55 * (end - root)
            parts.append((Tube(twig, end + rng.normal(0, 18, 3), (3.0, 1.0)), self.phase.portal))
        cava = np.array((-20.0, 34.0, 112.0))
        for x, y, z in ((-95, 30, 84), (-62, -38, 90), (-6, -46, 92)):
            parts.append((Tube(cava, np.array((x, y, z), np.float64), (6.0, 2.0)), self.phase.cava))
        return self._fit(list(parts))

    @cached_property
    def _organs(self) -> Stack:
        one = self.phase
        up = 1 if self.prone else -1
        stomach = ellipsoid((56, -36, 74), (40, 33, 46), turn=(0, 20, 0))
        parts: list[Part] = [
            (stomach, one.gut),
            (stomach.grown(-4), 22.0),
            (stomach.grown(-4).cut((0, -up, 0), 28.0 if self.prone else -44.0), -985.0),
            (ellipsoid((104, 30, 76), (28, 44, 46), turn=(0, 0, 14)), one.spleen),
            (ellipsoid((-52, -50, 12), (15, 21, 24)), one.gut + 10),
            (ellipsoid((-52, -50, 12), (13, 19, 22)), 11.0),
        ]
        for start, end, radii in (
            ((-34, -2, 6), (-24, -14, 22), (15.0, 13.0)),
            ((-24, -14, 22), (18, -16, 30), (12.0, 10.0)),
            ((18, -16, 30), (66, 18, 48), (10.0, 9.0)),
        ):
            parts.append((_tube(start, end, radii), 0.5 * (one.liver + one.gut)))
        parts += [
            (_tube((-26, -6, 22), (60, 14, 46), (4.5, 4.0)), one.portal),
            (_tube((-26, -6, 20), (-36, 2, 54), (6.5, 6.5)), one.portal),
            (_tube((-6, -22, -80), (-22, -8, 20), (5.0, 5.5)), one.portal),
            (_tube((2, -20, -80), (4, 22, 18), (3.6, 4.0)), one.aorta),
            (_tube((5, 34, 18), (-2, 8, 34), (4.0, 3.0)), one.aorta),
            (_tube((6, 37, -140), (6, 40, 190), (9.5, 11.0)), one.aorta),
            (_tube((-18, 38, -140), (-20, 33, 150), (11.0, 12.0)), one.cava),
        ]
        return self._fit(parts)

    @cached_property
    def _kidneys(self) -> Stack:
        one = self.phase
        parts: list[Part] = []
        for sign in (-1, 1):
            kidney = self.kidney(sign)
            inward = np.array((-sign * 12, -3, 0)) * self.stretch
            parts.append((kidney, one.cortex))
            parts += [
                (
                    ellipsoid(
                        kidney.center
                        + np.array((sign * 9 * np.cos(t), 12 * np.sin(t), 13.0 * n)) * self.stretch,
                        np.array((5.5, 6.5, 6.0)) * self.stretch,
                    ),
                    one.medulla,
                )
                for n in (-2, -1, 0, 1, 2)
                for t in (-1.1, 0.0, 1.1)
            ]
            sinus = ellipsoid(kidney.center + inward, np.array((14, 11, 26)) * self.stretch)
            parts.append((sinus, FAT + 20))
            parts.append((ellipsoid(sinus.center, np.array((6, 5, 15)) * self.stretch), FLUID))
            vein = kidney.center + inward
            inner = np.array((-sign * 2 + (8 if sign > 0 else -14), 34, 12)) * self.stretch
            parts.append((Tube(vein, inner, (5.0, 5.0)), 0.5 * (one.cava + one.aorta)))
        return Stack(parts)

    @cached_property
    def _bowel(self) -> Stack:
        """Loops of small bowel, some with gas; more of it further down."""
        rng = np.random.default_rng([self.seed, 2])
        parts: list[Part] = []
        spots: list[Vector] = []
        for _ in range(420):
            z = 34 - 190 * rng.random() ** 0.8
            spot = np.array((rng.uniform(-86, 86), rng.uniform(-68, 18), z))
            if abs(spot[0]) < 32 and spot[1] > -4:
                continue
            if spots and np.square(np.array(spots) - spot).sum(axis=1).min() < 25**2:
                continue
            spots.append(spot)
            radius = rng.uniform(10, 15)
            way = rng.normal(0, 1, 3) * (14, 9, 8)
            tube = Tube(spot - way, spot + way, (radius, radius))
            parts.append((tube, self.phase.gut))
            kind = rng.random()
            content = FLUID + 12 if kind < 0.55 else self.phase.gut - 8
            parts.append((Tube(spot - way, spot + way, (radius - 3.2, radius - 3.2)), content))
            if kind > 0.78:
                lift = np.array((0, (1 if self.prone else -1) * (radius - 8), 0))
                size = radius - 6.5
                parts.append((Tube(spot - 0.6 * way + lift, spot + 0.6 * way + lift, (size, size)), -960.0))
        return self._fit(parts)

    @cached_property
    def _large_bowel(self) -> Stack:
        return self._colon_of(20.0)

    @cached_property
    def _lumen(self) -> Stack:
        return self._colon_of(17.0)

    def _colon_of(self, radius: float) -> Stack:
        path = [(-102, 22, -190), (-104, 18, -60), (-100, -6, -12), (-70, -58, -26), (0, -74, -46)]
        path += [(62, -64, -22), (104, -14, 40), (112, 26, 34), (110, 34, -60), (106, 34, -190)]
        points = [np.array(point, np.float64) for point in path]
        parts: list[Part] = []
        for start, end in pairwise(points):
            parts.append((Tube(start, end, (radius, radius)), self.phase.gut))
        return self._fit(parts)

    def _colon(self, section: Section, values: Values, inside: Values) -> None:
        """Large bowel: its wall, and stool mottled with gas in it."""
        for (window, cover), value in self._large_bowel.covers(section):
            paint(values, (window, cover * inside[window]), value)
        for (window, cover), _ in self._lumen.covers(section):
            gas = np.clip((self.folds.at(section, window) - np.float32(0.1)) * 3, 0, 1)
            paint(values, (window, cover * inside[window]), np.float32(35) - np.float32(960) * gas)

    @cached_property
    def _bones(self) -> Stack:
        parts: list[Part] = []
        for n in range(-5, 6):
            z = VERTEBRA * n
            disc = ellipsoid((0, SPINE, z + VERTEBRA / 2), (23, 18, 6.5))
            body = (
                ellipsoid((0, SPINE, z), (23.5, 18.5, 21)).cut((0, 0, 1), z + 12.5).cut((0, 0, -1), 12.5 - z)
            )
            core = ellipsoid((0, SPINE, z), (21, 16, 19)).cut((0, 0, 1), z + 11.0).cut((0, 0, -1), 11.0 - z)
            parts += [(disc, SOFT + 38), (body, BONE - 160), (core, MARROW)]
            for sign in (-1, 1):
                parts += [
                    (_tube((sign * 14, 74, z + 3), (sign * 16, 90, z + 2), (5.0, 5.0)), BONE - 120),
                    (_tube((sign * 16, 88, z - 4), (sign * 44, 92, z), (4.5, 3.0)), BONE - 160),
                    (_tube((sign * 15, 94, z - 10), (sign * 14, 96, z + 12), (6.5, 6.5)), BONE - 60),
                    (_tube((sign * 15, 96, z - 4), (0, 106, z - 8), (3.6, 3.6)), BONE - 120),
                ]
            parts.append((_tube((0, 102, z - 6), (0, 116, z - 14), (3.2, 4.0)), BONE - 140))
        parts.append((_tube((0, 86, -220), (0, 86, 220), (9.5, 9.5)), FLUID + 18))
        for top in (150, 124, 98, 72, 46):
            for sign in (-1, 1):
                turn = np.radians(np.linspace(62, -38 if top > 90 else 4, 8))
                ring = [
                    np.array(
                        (
                            sign * (HALF_WIDTH - 5) * np.cos(t),
                            (HALF_DEPTH - 5) * np.sin(t),
                            top - 46 * (1 - np.sin(t)),
                        )
                    )
                    for t in turn
                ]
                for start, end in pairwise(ring):
                    parts.append((Tube(start, end, (5.2, 5.2)), BONE - 110))
                    parts.append((Tube(start, end, (3.0, 3.0)), MARROW))
        return self._fit(parts)


def _tube(
    start: tuple[float, float, float], end: tuple[float, float, float], radii: tuple[float, float]
) -> Tube:
    return Tube(np.asarray(start, np.float64), np.asarray(end, np.float64), radii)
