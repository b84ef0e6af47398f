"""Where in a head its findings lie: drawn at random, apart from each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medmllm_plugin.phantoms.anatomy import GRADE_WORDS, grade
from medmllm_plugin.phantoms.head import Head
from medmllm_plugin.phantoms.head_lesions import Collection, Focus, Fracture, HeadLesion
from medmllm_plugin.phantoms.sections import Vector, ellipsoid

LOBES = {
    "frontal_lobe": (30.0, -46.0, 26.0),
    "parietal_lobe": (34.0, 34.0, 42.0),
    "temporal_lobe": (45.0, -2.0, -18.0),
    "occipital_lobe": (25.0, 62.0, 12.0),
    "cerebellum": (27.0, 46.0, -38.0),
    "putamen": (27.0, -2.0, 4.0),
    "thalamus": (12.0, 9.0, 4.0),
}
"""The middle of each place a lesion of the brain can lie at, on the left, mm."""

SITES = (*LOBES, "dura_mater", "skull")
"""Keys of the sites of all these findings."""

Shades = Callable[[np.random.Generator, str], tuple[tuple[float, ...], tuple[float, ...], float]]
"""For a generator and a finding: values from rim to core, scales of these shells, and oedema's value."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Appearance:
    """How a modality shows the findings of a head."""

    shades: Shades
    collection: float
    """Value of blood between skull and brain."""
    adjective: dict[str, str]
    """What a sentence says of a finding's values, such as hyperdense, by the key of the finding."""


def place_findings(
    rng: np.random.Generator, head: Head, keys: Sequence[str], appearance: Appearance
) -> tuple[tuple[HeadLesion, ...], float]:
    """The findings of these keys in a head.

    Returns:
        The findings, and how far they push the midline to the left, mm.
    """
    made: list[HeadLesion] = []
    taken: list[tuple[Vector, float]] = []
    push = 0.0
    for key in keys:
        place = {"hematoma": _collection, "fracture": _fracture}.get(key, _focus)
        lesion, center, radius, force = place(rng, head, key, appearance, taken)
        taken.append((center, radius))
        made.append(lesion)
        push -= force * float(np.sign(center[0]))
    return tuple(made), float(np.clip(push, -9, 9))


def _focus(
    rng: np.random.Generator,
    head: Head,
    key: str,
    appearance: Appearance,
    taken: list[tuple[Vector, float]],
) -> tuple[HeadLesion, Vector, float, float]:
    """A haematoma or a mass in the brain."""
    severity: str | None
    if key == "hemorrhage":
        names, p = list(LOBES), [0.15, 0.15, 0.12, 0.08, 0.14, 0.22, 0.14]
        severity, radius = grade(rng, (6.5, 10.0), (10.5, 15.0), (15.5, 22.0))
    else:
        names, p = list(LOBES)[:5], [0.26, 0.24, 0.2, 0.12, 0.18]
        severity, radius = None, float(rng.uniform(8, 18))
    best, score = ("", np.zeros(3)), -np.inf
    for _ in range(30):
        name = str(rng.choice(names, p=p))
        point = np.array(LOBES[name]) + rng.normal(0, 4 if name in ("putamen", "thalamus") else 7, 3)
        point *= head.stretch * (rng.choice([-1, 1]), 1, 1)
        spare = min(
            [float(np.linalg.norm(point - other)) - size - radius - 8 for other, size in taken] or [1.0]
        )
        spare = min(spare, head.depth_of(point) - head.inner - 0.6 * radius)
        spare = min(spare, abs(point[0]) - (0.45 if name == "thalamus" else 0.75) * radius)
        if spare > score:
            best, score = (name, point), spare
        if score > 0:
            break
    name, point = best
    radius = min(radius, {"thalamus": 13.0, "cerebellum": 17.0}.get(name, 30.0))
    if severity is not None:
        severity = "mild" if radius < 10.25 else "moderate" if radius < 15.25 else "severe"
    side = "left" if point[0] > 0 else "right"
    values, shells, oedema = appearance.shades(rng, key)
    mass = key == "mass"
    words = name.replace("_", " ")
    size = "" if severity is None else f"{GRADE_WORDS[severity].capitalize()} "
    what = appearance.adjective[key]
    sentence = f"{size}{what} {'mass with oedema' if mass else 'haemorrhage'} in the {side} {words}."
    return (
        Focus(
            finding=key,
            site=name,
            side=side,
            severity=severity,
            sentence=sentence[0].upper() + sentence[1:],
            solid=ellipsoid(point, radius * rng.uniform(0.85, 1.15, 3), turn=rng.uniform(-40, 40, 3)),
            values=values,
            shells=shells,
            halo=float(rng.uniform(1.5, 1.95) if mass else rng.uniform(1.15, 1.35)),
            oedema=oedema,
            roughness=float(rng.uniform(0.04, 0.12) if mass else rng.uniform(0.12, 0.30)),
        ),
        point,
        radius * 1.3,
        max(0.0, (radius - 9) * (0.0 if name == "cerebellum" else 0.45)),
    )


def _collection(
    rng: np.random.Generator,
    head: Head,
    key: str,
    appearance: Appearance,
    taken: list[tuple[Vector, float]],
) -> tuple[HeadLesion, Vector, float, float]:
    """Blood between skull and brain."""
    lens = bool(rng.random() < 0.4)
    severity, thick = grade(rng, (5.0, 8.0), (8.5, 12.5), (13.0, 18.0))
    if lens:
        thick *= 1.35
    sides = [sign for sign in (-1, 1) if not any(sign * other[0] > 30 for other, _ in taken)] or [-1, 1]
    sign = int(rng.choice(sides))
    way = np.array([sign * 1.0, rng.uniform(-0.55, 0.45), rng.uniform(0.15, 0.55)])
    center = head.surface(way, head.inner)
    reach = float(3.1 * thick if lens else rng.uniform(52, 68) + 1.2 * thick)
    side = "left" if sign > 0 else "right"
    name = "epidural" if lens else "subdural"
    grade_word = GRADE_WORDS[severity].capitalize()
    return (
        Collection(
            finding=key,
            site="dura_mater",
            side=side,
            severity=severity,
            sentence=f"{grade_word} {appearance.adjective[key]} {side} {name} haematoma.",
            center=center,
            thickness=thick,
            reach=reach,
            lens=lens,
            value=appearance.collection + float(rng.normal(0, 0.03)) * abs(appearance.collection),
        ),
        center,
        0.5 * reach,
        0.45 * thick,
    )


def _fracture(
    rng: np.random.Generator,
    head: Head,
    key: str,
    appearance: Appearance,
    taken: list[tuple[Vector, float]],
) -> tuple[HeadLesion, Vector, float, float]:
    """A gap in the vault."""
    best, score = np.array([1.0, 0.0, 0.4]), -np.inf
    for _ in range(20):
        angle = float(rng.uniform(0, 2 * np.pi))
        way = np.array([np.cos(angle), np.sin(angle), rng.uniform(0.05, 0.6)])
        spare = min([float(np.linalg.norm(head.surface(way, 5.0) - other)) for other, _ in taken] or [99.0])
        if abs(way[0]) > 0.3 and spare > score:
            best, score = way, spare
    center = head.surface(best, head.scalp + head.skull / 2)
    out = best / np.linalg.norm(best)
    along = np.cross(out, (0.0, 0.0, 1.0))
    along /= np.linalg.norm(along)
    lean = float(np.radians(rng.uniform(-30, 30)))
    normal = np.cos(lean) * along + np.sin(lean) * np.cross(out, along)
    side = "left" if center[0] > 0 else "right"
    return (
        Fracture(
            finding=key,
            site="skull",
            side=side,
            severity=None,
            sentence=f"Fracture of the {side} side of the vault, with swelling of the scalp.",
            center=center,
            normal=normal,
            gap=float(rng.uniform(2.0, 4.0)),
            reach=float(rng.uniform(12, 24)),
            swelling=float(rng.uniform(4, 9)),
        ),
        center,
        5.0,
        0.0,
    )


def with_findings(head: Head, lesions: tuple[HeadLesion, ...], push: float) -> Head:
    """The same head with these findings."""
    return replace(head, lesions=lesions, push=push)
