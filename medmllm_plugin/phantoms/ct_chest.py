"""Chest CT: supine, axial, evenly spaced, plain or with contrast; nodules are solid or of ground glass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.phantoms.anatomy import Anatomy, Kind, Scan
from medmllm_plugin.phantoms.chest import FINDINGS, NAME, SITES, ChestCT
from medmllm_plugin.phantoms.chest_findings import sample_chest
from medmllm_plugin.phantoms.scanners import blur, table

GLASS_SHARE, GLASS = 0.3, (-620.0, -420.0)
"""Share of the nodules that are of ground glass, and their attenuation, HU."""


def sample(
    rng: np.random.Generator, findings: tuple[str, ...] | None, slices: int, matrix: int
) -> tuple[Anatomy, Scan]:
    """A chest at random with these findings, None for any, and its scan."""
    (own,) = rng.spawn(1)
    chest = _with_glass(sample_chest(rng, findings=findings), own)
    height = 310.0 * chest.stretch[2]
    body = 2 * (158 * chest.stretch[0] + chest.fat)
    field_of_view = float(np.clip(body * rng.uniform(0.98, 1.12), 300, 480))
    pixel = round(field_of_view / matrix, 4)
    step = round(float(height / slices * rng.uniform(0.98, 1.04)), 2)
    middle = rng.uniform(-12, 12, 2)
    first = float(rng.uniform(-4, 4)) + (height - step * (slices - 1)) / 2
    half = pixel * (matrix - 1) / 2
    corner = (round(float(middle[0]) - half, 3), round(float(middle[1]) - half, 3), round(first, 3))
    shift = table(rng)
    noise = np.float32(2.2 * float(rng.uniform(6, 22)))

    def finish(clean: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        grain = rng.standard_normal((matrix, matrix), dtype=np.float32)
        return np.clip(np.rint(blur(clean + grain * noise)), -1024, 3071)

    return chest, Scan(
        modality="CT",
        slices=slices,
        shape=(matrix, matrix),
        spacing=(pixel, pixel),
        origin=np.array(corner),
        across=np.array([1.0, 0.0, 0.0]),
        down=np.array([0.0, 1.0, 0.0]),
        step=np.array([0.0, 0.0, step]),
        thickness=step,
        shift=shift,
        window=(-600.0, 1500.0),
        finish=finish,
        body_part="CHEST",
        position=str(own.choice(["HFS", "HFS", "FFS"])),
        header={"KVP": "120"},
    )


def _with_glass(chest: ChestCT, rng: np.random.Generator) -> ChestCT:
    """The chest, some of its nodules of ground glass."""
    lesions = []
    for one in chest.lesions:
        glass = float(rng.uniform(*GLASS)) if rng.random() < GLASS_SHARE else None
        lesions.append(replace(one, glass=glass) if one.finding == "nodule" else one)
    return replace(chest, lesions=tuple(lesions))


KIND = Kind(
    name=NAME,
    findings=FINDINGS,
    sites=SITES,
    slices=(16, 64, 512),
    matrix=(64, 256, 1024),
    sample=sample,
)
