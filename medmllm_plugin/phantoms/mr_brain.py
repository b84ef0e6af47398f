"""Brain MR: T1, T2 or FLAIR contrast, in any plane, of masses and of bleeding at its stages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medmllm_plugin.phantoms.anatomy import Anatomy, Kind, Scan, chosen_findings
from medmllm_plugin.phantoms.ct_head import sample_head
from medmllm_plugin.phantoms.head_findings import LOBES, Appearance, place_findings, with_findings
from medmllm_plugin.phantoms.head_parts import Palette
from medmllm_plugin.phantoms.scanners import mr_finish, table, turned
from medmllm_plugin.phantoms.sections import Vector, rotation

NAME = "mr-brain"

FINDINGS = ("mass", "hemorrhage")
"""Keys of findings this phantom can have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast:
    """A pulse sequence: what it makes of each tissue, and how the header says so."""

    name: str
    signals: Palette
    oedema: float
    mass: tuple[float, float]
    """Of a mass: solid, and necrotic or cystic."""
    blood: dict[str, tuple[float, float]]
    """Rim and core of a haematoma by its stage; acute is left out of T1, where it looks like a mass."""
    header: dict[str, object]


T1 = Contrast(
    name="T1",
    signals=Palette(
        0, 0.50, 0.95, 0.42, 0.03, 0.62, 0.04, 0.17, 0.50, 0.68, 0.53, 0.36, 0.12, 0.14, 0.30, 0.10, 0.0
    ),
    oedema=0.47,
    mass=(0.40, 0.24),
    blood={"early subacute": (0.92, 0.60), "late subacute": (0.95, 0.90)},
    header={"RepetitionTime": "550", "EchoTime": "12", "EchoTrainLength": "1"},
)
T2 = Contrast(
    name="T2",
    signals=Palette(
        0, 0.35, 0.62, 0.24, 0.03, 0.46, 0.04, 1.00, 0.56, 0.41, 0.44, 0.24, 0.08, 0.98, 0.20, 0.10, 0.0
    ),
    oedema=0.80,
    mass=(0.66, 0.92),
    blood={"acute": (0.20, 0.16), "early subacute": (0.18, 0.24), "late subacute": (0.22, 0.93)},
    header={"RepetitionTime": "4200", "EchoTime": "98", "EchoTrainLength": "12"},
)
FLAIR = Contrast(
    name="FLAIR",
    signals=Palette(
        0, 0.35, 0.70, 0.30, 0.03, 0.42, 0.04, 0.08, 0.55, 0.43, 0.50, 0.26, 0.08, 0.10, 0.22, 0.10, 0.0
    ),
    oedema=0.93,
    mass=(0.74, 0.30),
    blood={"acute": (0.26, 0.20), "early subacute": (0.30, 0.36), "late subacute": (0.36, 0.97)},
    header={
        "RepetitionTime": "9000",
        "EchoTime": "110",
        "InversionTime": "2500",
        "EchoTrainLength": "16",
    },
)
CONTRASTS = (T1, T2, FLAIR)

PLANES = {
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
}
"""Directions of rows and columns, LPS."""

MIDDLE = (0.0, -6.0, 8.0)
"""The middle of the brain of the average head, mm."""


def sample(
    rng: np.random.Generator, findings: tuple[str, ...] | None, slices: int, matrix: int
) -> tuple[Anatomy, Scan]:
    """A head at random with these findings, None for any, and its scan by one sequence in one plane."""
    keys = chosen_findings(rng, findings, kind=NAME, known=FINDINGS, weights=(0.5, 0.5))
    contrast = CONTRASTS[int(rng.integers(len(CONTRASTS)))]
    head = sample_head(rng, palette=contrast.signals, turn=(8.0, 4.0, 6.0))
    stage = str(rng.choice(list(contrast.blood)))
    appearance = Appearance(
        shades=lambda rng, key: _shades(rng, key, contrast, stage),
        collection=contrast.blood[stage][1],
        adjective={"hemorrhage": stage, "mass": "rounded"},
    )
    head = with_findings(head, *place_findings(rng, head, keys, appearance))
    name = str(rng.choice(list(PLANES), p=[0.6, 0.2, 0.2]))
    oblique = rotation(rng.normal(0, 7, 3) if rng.random() < 0.5 else (0, 0, 0))
    across, down = (turned(oblique @ np.array(way)) for way in PLANES[name])
    down = turned(down - (down @ across) * across)
    normal = np.cross(across, down)
    size = head.stretch
    extent = float(np.abs(normal) @ (np.array((70, 88, 78)) * size)) * 2 * float(rng.uniform(0.9, 1.0))
    step = round(extent / slices, 2)
    pixel = round(float(rng.uniform(210, 250)) / matrix, 4)
    origin = np.array(MIDDLE) * size + rng.uniform(-5, 5, 3) - 0.5 * step * (slices - 1) * normal
    origin -= 0.5 * pixel * (matrix - 1) * (across + down)
    gap = float(rng.choice([1.0, 1.1, 1.2, 1.3]))
    return head, _scan(
        rng, contrast, slices, matrix, pixel, np.round(origin, 3), across, down, step, round(step / gap, 2)
    )


def _scan(
    rng: np.random.Generator,
    contrast: Contrast,
    slices: int,
    matrix: int,
    pixel: float,
    origin: Vector,
    across: Vector,
    down: Vector,
    step: float,
    thickness: float,
) -> Scan:
    gain = float(rng.uniform(700, 2200))
    slope = rng.uniform(-0.12, 0.12, 2)
    return Scan(
        modality="MR",
        slices=slices,
        shape=(matrix, matrix),
        spacing=(pixel, pixel),
        origin=origin,
        across=across,
        down=down,
        step=step * np.cross(across, down),
        thickness=thickness,
        shift=table(rng),
        window=(round(0.5 * gain, 0), round(gain, 0)),
        finish=mr_finish(
            float(rng.uniform(0.012, 0.035)), bias=(float(slope[0]), float(slope[1])), gain=gain
        ),
        body_part="BRAIN",
        downwards=bool(rng.random() < 0.5),
        header={
            "ScanningSequence": "IR" if contrast.name == "FLAIR" else "SE",
            "SequenceVariant": "NONE",
            "ScanOptions": "",
            "MRAcquisitionType": "2D",
            "MagneticFieldStrength": "1.5",
            "SpacingBetweenSlices": f"{step:g}",
            "SequenceName": contrast.name,
            "ProtocolName": f"{contrast.name} phantom",
            **contrast.header,
        },
    )


def _shades(
    rng: np.random.Generator, key: str, contrast: Contrast, stage: str
) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    if key == "hemorrhage":
        return contrast.blood[stage], (1.0, 0.78), contrast.oedema
    solid, core = contrast.mass
    if rng.random() < 0.6:
        return (solid, core), (1.0, float(rng.uniform(0.55, 0.72))), contrast.oedema
    return (solid,), (1.0,), contrast.oedema


KIND = Kind(
    name=NAME,
    findings=FINDINGS,
    sites=tuple(LOBES),
    slices=(12, 24, 256),
    matrix=(64, 256, 1024),
    sample=sample,
)
