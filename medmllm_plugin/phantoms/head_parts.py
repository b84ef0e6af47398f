"""The solids of the average head, and the values that a palette gives them.

The origin lies at the foramina of Monro, between the ventricles; the vertex is some 88 mm above, the foramen
magnum some 66 mm below. Both halves are drawn from one list: `sign` is -1 for the right and 1 for the left.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from medmllm_plugin.phantoms.sections import Solid, Tube, ellipsoid
from medmllm_plugin.phantoms.stack import Stack

Part = tuple[Solid | Tube, float]


class Palette(NamedTuple):
    """The value of each tissue: Hounsfield units, or the signal of MR."""

    air: float
    skin: float
    fat: float
    muscle: float
    bone: float
    marrow: float
    petrous: float
    fluid: float
    grey: float
    white: float
    deep: float
    falx: float
    vessel: float
    eye: float
    lens: float
    calcium: float
    rest: float
    """The foam of the head rest."""


FLOOR = ((0.0, -0.25, -1.0), 44.0)
"""The anterior skull base: brain lies where normal · p is below the offset."""


@cache
def face(p: Palette) -> Stack:
    """Cheeks and neck, below everything else that is drawn there."""
    whole = ellipsoid((0, -34, -62), (66, 57, 66)).cut((0, 0, 1), -14)
    neck = ellipsoid((0, 22, -84), (62, 74, 44))
    parts: list[Part] = []
    for solid in (whole, neck):
        parts += [(solid, p.skin), (solid.grown(-2.4), p.fat)]
    parts.append((neck.grown(-9), p.muscle))
    for sign in (-1, 1):
        parts += [
            (ellipsoid((sign * 57, -26, -42), (8, 22, 34)), p.muscle),
            (ellipsoid((sign * 46, -22, -72), (9, 17, 22)), p.muscle),
            (ellipsoid((sign * 30, -24, -72), (9, 15, 20)), p.muscle),
            (_tube((sign * 52, -22, -86), (sign * 55, -6, -50), (5.5, 6.0)), p.bone),
            (ellipsoid((sign * 76, 14, -44), (6, 13, 22), turn=(0, 0, sign * -24)), p.skin),
        ]
    parts.append((ellipsoid((0, -89, -60), (11, 17, 18)), p.skin))
    return Stack(parts)


@cache
def base(p: Palette) -> Stack:
    """The bones of the skull base."""
    plate = (
        ellipsoid((0, -34, -33), (58, 56, 26)).cut((0.0, 0.25, 1.0), -FLOOR[1]).cut(FLOOR[0], FLOOR[1] + 4)
    )
    parts: list[Part] = [(plate, 0.8 * p.bone)]
    parts += [(fossa.grown(5.0), 0.8 * p.bone) for fossa in fossae()]
    parts += [
        (ellipsoid((0, -18, -38), (15, 18, 14)), p.bone),
        (ellipsoid((0, -2, -56), (12, 7, 21), turn=(-25, 0, 0)), p.marrow),
        (ellipsoid((0, -72, -44), (11, 14, 20)), 0.6 * p.bone),
    ]
    for sign in (-1, 1):
        parts += [
            (_tube((sign * 64, 24, -46), (sign * 64, 27, -64), (11.0, 6.0)), 0.8 * p.bone),
            (_tube((sign * 45, -34, -24), (sign * 63, -42, -32), (3.5, 4.5)), p.bone),
            (_tube((sign * 48, -60, -58), (sign * 66, -30, -54), (5.0, 3.0)), p.bone),
            (_tube((sign * 66, -30, -54), (sign * 67, -4, -50), (3.0, 3.0)), p.bone),
        ]
    return Stack(parts)


def orbits() -> tuple[Solid, ...]:
    """Both orbits, without their walls; they bulge into the anterior fossa."""
    return tuple(ellipsoid((sign * 29, -56, -41), (17, 26, 18), turn=(0, 0, sign * 18)) for sign in (-1, 1))


@cache
def petrous(p: Palette) -> Stack:
    """The ridges between the middle and the posterior fossae, drawn over the brain."""
    ridge = (60.0, 20.0, -39.0), (15.0, -7.0, -37.0)
    return Stack(
        [
            (
                _tube((sign * ridge[0][0], *ridge[0][1:]), (sign * ridge[1][0], *ridge[1][1:]), (10.0, 4.5)),
                p.petrous,
            )
            for sign in (-1, 1)
        ]
    )


def fossae() -> tuple[Solid, ...]:
    """The posterior fossa and both middle fossae, to the bone."""
    sides = (ellipsoid((sign * 38, -6, -27), (27, 38, 24)) for sign in (-1, 1))
    return ellipsoid((0, 40, -36), (57, 47, 38)), *sides


def lower_brain(gap: float) -> tuple[Solid, ...]:
    """Cerebellum and temporal lobes, with a gap of fluid around them, mm."""
    sides = (ellipsoid((sign * 38, -6, -27), (27, 38, 24)).grown(-gap) for sign in (-1, 1))
    return ellipsoid((0, 42, -37), (56 - gap, 44 - gap, 35 - gap)), *sides


def hind_brain(p: Palette, wide: float) -> Stack:
    """Cisterns, brain stem, vermis and fourth ventricle; `wide` is the width of what holds fluid."""
    fluid = p.fluid
    parts: list[Part] = [
        (ellipsoid((sign * 12, -4, -25), (9, 6, 6), turn=(0, 0, sign * 30)), fluid) for sign in (-1, 1)
    ]
    parts += [
        (ellipsoid((0, -12, -25), (8, 8, 6)), fluid),
        (ellipsoid((0, 17, -18), (18.5, 14.5, 7)).cut((0, -1, 0), -13), fluid),
        (ellipsoid((0, 3, -42), (20, 7, 16)), fluid),
        (ellipsoid((0, 18, -62), (13, 13, 12)), fluid),
        (ellipsoid((0, 46, -42), (9, 24, 15)), p.grey),
        (ellipsoid((0, 16, -19), (15, 11, 13)), p.white),
        (ellipsoid((0, 15, -38), (16, 13, 14)), p.white),
        (ellipsoid((0, 20, -58), (9, 8, 18)), p.white),
        (ellipsoid((0, 33, -38), (6.5 * wide, 4.5 * wide, 8)), fluid),
    ]
    return Stack(parts)


def deep_brain(p: Palette, wide: float, push: float) -> Stack:
    """White matter, nuclei and ventricles.

    Args:
        p: Values.
        wide: Width of what holds fluid, against the average.
        push: How far the midline is pushed to the left, mm.
    """
    white, deep, fluid = p.white, p.deep, p.fluid
    parts: list[Part] = [
        (ellipsoid((0, 8, 4), (31, 33, 20)), white),
        (ellipsoid((0, -6, -6), (28, 22, 13)), white),
    ]
    for sign in (-1, 1):
        near = push * (0.85 if sign * push < 0 else 0.6)
        for (x, y, z), radii, turn, value in (
            ((40, -4, 2), (5.5, 18, 15), -10, p.grey),
            ((45, -10, 0), (2.2 * wide, 11, 9), -4, fluid),
            ((46, 6, 6), (1.8 * wide, 11, 8), -22, fluid),
            ((27, -2, 3), (7.5, 16, 9.5), -14, deep),
            ((10.5, 9, 3), (8, 14, 9.5), 16, deep),
            ((17, -21, 11), (5, 10, 10), 12, deep),
            ((10.5, -25, 10), (5.0 * wide, 15, 8.5), 16, fluid),
            ((12, 2, 21), (6.5 * wide, 29, 6.5 * wide), -6, fluid),
            ((25, 36, 10), (6.5 * wide, 12, 11), -18, fluid),
            ((27, 52, 5), (3.4 * wide, 11, 5), 8, fluid),
            ((31, 8, -22), (2.6 * wide, 14, 3.2), -12, fluid),
        ):
            moved = near * (1.0 if x > 20 else 1.6)
            parts.append((ellipsoid((sign * x + moved, y, z), radii, turn=(0, 0, sign * turn)), value))
        parts.append((ellipsoid((sign * 24 + near, 37, 9), (2.2, 4, 3.4)), p.calcium))
    parts += [
        (ellipsoid((push, 4, -1), (1.7 * wide, 13, 10)), fluid),
        (ellipsoid((0.8 * push, 25, -3), (2.4, 3.2, 2.4)), p.calcium),
        (ellipsoid((0.6 * push, 32, -6), (11, 3.6, 7)), fluid),
    ]
    return Stack(parts)


@cache
def orbits_and_sinuses(p: Palette) -> Stack:
    """Orbits, air cells and the nose, drawn over everything but the findings."""
    air, wall = p.air, 0.6 * p.bone
    parts: list[Part] = [(ellipsoid((0, -88, -8), (17, 6, 15)), p.bone)]
    for sign, orbit in zip((-1, 1), orbits(), strict=True):
        antrum = ellipsoid((sign * 25, -60, -73), (14, 17, 15))
        parts += [(orbit.grown(3.0).cut((0, -1, 0), 70), wall), (orbit, p.fat)]
        apex = (sign * 13.0, -34.0, -39.0)
        for across, back, up, radius in (
            (0, 0, 0, 2.6),
            (-9, 2, 0, 2.0),
            (9, 2, 0, 2.0),
            (0, 2, 9, 2.0),
            (0, 2, -9, 2.0),
        ):
            parts.append((_tube((sign * 30 + across, -60 + back, -41 + up), apex, (radius, 1.6)), p.muscle))
        parts += [
            (ellipsoid((sign * 30, -70, -41), (12.2, 12.2, 12.2)), p.muscle),
            (ellipsoid((sign * 30, -70, -41), (10.9, 10.9, 10.9)), p.eye),
            (ellipsoid((sign * 30, -78.5, -41), (4.6, 2.0, 4.6)), p.lens),
            (antrum.grown(2.0), wall),
            (antrum, air),
            (ellipsoid((sign * 8, -88, -8), (6.5, 3.2, 10)), air),
            (ellipsoid((sign * 6, -22, -40), (5.4, 11, 9)), air),
        ]
        parts += [(ellipsoid((sign * 5.0, -72 + 9 * n, -44 + n), (3.8, 3.8, 11)), air) for n in range(4)]
        parts.append((_tube((sign * 78, 8, -46), (sign * 56, 8, -45), (2.6, 2.6)), air))
        for n in range(12):
            spot = (sign * (62 + 5 * np.cos(2.4 * n)), 24 + 6 * np.sin(1.7 * n), -42 - 2.0 * n)
            parts.append((ellipsoid(spot, (2.4, 2.8, 2.6)), air))
    parts += [
        (ellipsoid((0, -66, -71), (10, 27, 16)), air),
        (ellipsoid((0, -30, -78), (11, 9, 22)), air),
        (ellipsoid((0, -66, -71), (1.0, 26, 16)), p.skin),
    ]
    parts += [(ellipsoid((sign * 5.5, -62, -72), (2.6, 16, 11)), p.skin) for sign in (-1, 1)]
    return Stack(parts)


def _tube(
    start: tuple[float, float, float], end: tuple[float, float, float], radii: tuple[float, float]
) -> Tube:
    return Tube(np.asarray(start, np.float64), np.asarray(end, np.float64), radii)
