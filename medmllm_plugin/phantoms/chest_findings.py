"""A chest at random: its size, its vessels, and where its findings lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.phantoms.chest import FINDINGS, HEIGHT, NAME, ChestCT, Lesion
from medmllm_plugin.phantoms.shapes import Ellipsoid


def sample_chest(rng: np.random.Generator, *, findings: tuple[str, ...] | None = None) -> ChestCT:
    """A chest at random, with these findings, or with findings at random (three in ten are normal).

    Raises:
        SettingsError: If a finding is not one of `FINDINGS`.
    """
    for key in findings or ():
        if key not in FINDINGS:
            raise SettingsError(
                f"a {NAME} phantom has no finding {key!r}; it can have: {', '.join(FINDINGS)}"
            )
    stretch = tuple(float(s) for s in rng.uniform(0.88, 1.10) * rng.uniform(0.95, 1.05, 3))
    base = ChestCT(
        stretch=(stretch[0], stretch[1], stretch[2]),
        fat=float(rng.uniform(8, 30)),
        contrast=float(rng.choice([42.0, rng.uniform(140, 300)])),
        lesions=(),
        vessels=(),
        couch=float(rng.uniform(2, 10)),
    )
    lesions: list[Lesion] = []
    for key in findings if findings is not None else _random_findings(rng):
        lesions.append(_sample_lesion(rng, base, key, taken=lesions))
    return ChestCT(
        stretch=base.stretch,
        fat=base.fat,
        contrast=base.contrast,
        lesions=tuple(lesions),
        vessels=tuple(_sample_vessels(rng, base)),
        couch=base.couch,
    )


def _random_findings(rng: np.random.Generator) -> tuple[str, ...]:
    if rng.random() < 0.3:
        return ()
    count = int(rng.choice([1, 2, 3], p=[0.55, 0.3, 0.15]))
    keys = rng.choice(FINDINGS, size=count, replace=False, p=[0.3, 0.12, 0.16, 0.17, 0.13, 0.12])
    return tuple(sorted((str(key) for key in keys), key=FINDINGS.index))


def _sample_lesion(rng: np.random.Generator, chest: ChestCT, key: str, *, taken: list[Lesion]) -> Lesion:
    if key == "cardiomegaly":
        severity, low, high = _grade(rng, (1.28, 1.36), (1.36, 1.48), (1.48, 1.6))
        return Lesion(
            finding=key, site="heart", side="none", severity=severity, amount=float(rng.uniform(low, high))
        )
    sides = ["right", "left"]
    around = {one.side for one in taken if one.site == "pleura"}
    if key in ("pleural_effusion", "pneumothorax"):
        sides = [side for side in sides if side not in around] or sides
    side = str(rng.choice(sides))
    if key == "pleural_effusion":
        severity, low, high = _grade(rng, (0.16, 0.24), (0.28, 0.38), (0.44, 0.6))
        return Lesion(
            finding=key, site="pleura", side=side, severity=severity, amount=float(rng.uniform(low, high))
        )
    if key == "pneumothorax":
        severity, low, high = _grade(rng, (0.10, 0.16), (0.20, 0.28), (0.34, 0.46))
        return Lesion(
            finding=key, site="pleura", side=side, severity=severity, amount=float(rng.uniform(low, high))
        )
    span = {"nodule": (9.5, 14.5), "mass": (18.0, 27.0), "consolidation": (26.0, 42.0)}[key]
    radius = float(rng.uniform(*span))
    shape = rng.uniform(0.92, 1.08, 3) if key != "consolidation" else rng.uniform(0.75, 1.25, 3)
    radii = tuple(float(radius * s) for s in shape)
    center = _inside_lung(rng, chest, side, radius, taken=taken)
    return Lesion(
        finding=key,
        site="lung",
        side=side,
        severity=None,
        solid=Ellipsoid(center, (radii[0], radii[1], radii[2])),
    )


def _grade(rng: np.random.Generator, *spans: tuple[float, float]) -> tuple[str, float, float]:
    index = int(rng.integers(len(spans)))
    return ("mild", "moderate", "severe")[index], *spans[index]


def _inside_lung(
    rng: np.random.Generator, chest: ChestCT, side: str, radius: float, *, taken: list[Lesion]
) -> tuple[float, float, float]:
    """A centre such that the body lies in aerated lung and apart from the others."""
    lung = chest.lung(side)
    center = np.array(lung.center)
    best, score = center, -np.inf
    for _ in range(60):
        way = rng.normal(size=3)
        way *= rng.uniform(0.2, 0.85) / np.linalg.norm(way)
        point = center + way * (np.array(lung.radii) - 0.6 * radius)
        spare = _free(chest, point, radius)
        for other in taken:
            if other.solid is not None:
                apart = np.linalg.norm(point - other.solid.center) - max(other.solid.radii) - radius - 8
                spare = min(spare, float(apart))
            elif other.side == side and other.finding == "pleural_effusion":
                spare = min(
                    spare,
                    float(lung.center[1] + lung.radii[1] * (0.8 - 2 * other.amount) - point[1] - radius),
                )
            elif other.side == side and other.finding == "pneumothorax":
                spare = min(
                    spare,
                    float(point[1] - radius - lung.center[1] + lung.radii[1] * (0.8 - 2 * other.amount)),
                )
        if spare > score:
            best, score = point, spare
        if score > 0:
            break
    return float(best[0]), float(best[1]), float(best[2])


def _free(chest: ChestCT, point: NDArray[np.float64], radius: float) -> float:
    """How far, roughly in mm, a body of that radius keeps from diaphragm, mediastinum and heart."""
    sx, _, sz = chest.stretch
    x, _, z = point
    spare = min(abs(x) - 42 * sx - 0.6 * radius, HEIGHT * sz - 20 - z - radius, z - 12 - radius)
    for solid in (
        chest.heart.grown(6),
        chest.liver,
        chest.left_dome,
    ):
        away = (point - np.array(solid.center)) / np.array(solid.radii)
        spare = min(spare, float((np.linalg.norm(away) - 1) * min(solid.radii) - 0.8 * radius))
    return float(spare)


def _sample_vessels(
    rng: np.random.Generator, chest: ChestCT
) -> list[tuple[NDArray[np.float64], NDArray[np.float64], float]]:
    vessels = []
    for side in ("right", "left"):
        lung = chest.lung(side)
        hilum = np.array([lung.center[0] * 0.52, lung.center[1] + 10, 140 * chest.stretch[2]])
        for _ in range(14):
            way = rng.normal(size=3)
            way /= np.linalg.norm(way)
            end = np.array(lung.center) + way * np.array(lung.radii) * rng.uniform(0.7, 0.95)
            vessels.append((hilum, end, float(rng.uniform(3.0, 5.0))))
            knee = hilum + (end - hilum) * rng.uniform(0.4, 0.6)
            for _ in range(2):
                twig = knee + (end - knee) * rng.uniform(0.8, 1.0) + rng.normal(0, 18, 3)
                vessels.append((knee, twig, float(rng.uniform(1.6, 2.6))))
    return vessels
