"""Abdominal CT, plain or with contrast: lesions of the liver, stones and cysts of the kidneys."""

from __future__ import annotations

import numpy as np

from medmllm_plugin.phantoms.abdomen import HALF_WIDTH, PHASES, Abdomen, AbdomenLesion
from medmllm_plugin.phantoms.anatomy import Anatomy, Kind, Scan, chosen_findings
from medmllm_plugin.phantoms.scanners import axial_scan, ct_finish
from medmllm_plugin.phantoms.sections import Vector, ellipsoid
from medmllm_plugin.phantoms.texture import sample_folds

NAME = "ct-abdomen"

FINDINGS = ("lesion", "renal_stone", "cyst")
"""Keys of findings this phantom can have."""

SITES = ("liver", "kidney")
"""Keys of the sites they have."""


def sample(
    rng: np.random.Generator, findings: tuple[str, ...] | None, slices: int, matrix: int
) -> tuple[Anatomy, Scan]:
    """An abdomen at random with these findings, None for any, and its scan."""
    keys = chosen_findings(rng, findings, kind=NAME, known=FINDINGS, weights=(0.4, 0.28, 0.32))
    prone = bool(rng.random() < 0.12)
    abdomen = Abdomen(
        stretch=rng.uniform(0.9, 1.08) * rng.uniform(0.96, 1.04, 3),
        fat=float(rng.uniform(8, 36)),
        phase=PHASES[int(rng.choice(3, p=[0.35, 0.2, 0.45]))],
        prone=prone,
        couch=float(rng.uniform(1, 6)),
        seed=int(rng.integers(2**31)),
        folds=sample_folds(rng, scale=0.8),
    )
    lesions: list[AbdomenLesion] = []
    for key in keys:
        place = {"lesion": _liver_lesion, "renal_stone": _stone, "cyst": _cyst}[key]
        lesions.append(place(rng, abdomen, [one for one in lesions if one.site == "kidney"]))
    body = 2 * (HALF_WIDTH * abdomen.stretch[0] + abdomen.fat)
    tall = float(abdomen.stretch[2])
    scan = axial_scan(
        rng,
        slices=slices,
        matrix=matrix,
        field_of_view=float(np.clip(body * rng.uniform(1.02, 1.16), 300, 480)),
        middle=(float(rng.uniform(-10, 10)), float(rng.uniform(-10, 10))),
        span=(-float(rng.uniform(78, 108)) * tall, float(rng.uniform(128, 150)) * tall),
        window=(50.0, 400.0),
        finish=ct_finish(float(rng.uniform(6, 16)), smooth=True),
        body_part="ABDOMEN",
        kvp=120,
        prone=1.0 if prone else 0.0,
    )
    return abdomen.with_lesions(tuple(lesions)), scan


def _liver_lesion(rng: np.random.Generator, abdomen: Abdomen, taken: list[AbdomenLesion]) -> AbdomenLesion:
    """A dark or, with contrast in the arteries, bright body in the right lobe."""
    radius = float(rng.uniform(6.5, 21))
    away = rng.normal(size=3)
    away *= rng.uniform(0, 1) ** (1 / 3) / np.linalg.norm(away)
    center = (
        np.array((-74, 0, 64)) + away * np.maximum(np.array((50, 62, 56)) - radius, 8)
    ) * abdomen.stretch
    liver = abdomen.phase.liver
    bright = bool(rng.random() < (0.75 if abdomen.phase.name == "arterial" else 0.2))
    value = liver + float(rng.uniform(45, 90)) if bright else liver - float(rng.uniform(32, 60))
    return AbdomenLesion(
        finding="lesion",
        site="liver",
        side="none",
        severity=None,
        sentence=f"{'Hyperdense' if bright else 'Hypodense'} lesion of the liver.",
        solid=ellipsoid(center, radius * rng.uniform(0.88, 1.12, 3), turn=rng.uniform(-40, 40, 3)),
        value=value,
        inside=True,
    )


def _stone(rng: np.random.Generator, abdomen: Abdomen, taken: list[AbdomenLesion]) -> AbdomenLesion:
    """A stone in the pelvis or a calyx of a kidney."""
    sign = _free_side(rng, taken)
    radius = float(rng.uniform(2.8, 6.5))
    spot = np.array((-sign * rng.uniform(4, 12), rng.uniform(-6, 4), rng.uniform(-26, 26))) * abdomen.stretch
    center: Vector = abdomen.kidney(sign).center + spot
    return AbdomenLesion(
        finding="renal_stone",
        site="kidney",
        side=_side(sign),
        severity=None,
        sentence=f"Stone in the {_side(sign)} kidney.",
        solid=ellipsoid(center, radius * rng.uniform(0.85, 1.15, 3)),
        value=float(rng.uniform(550, 1200)),
        inside=False,
        seen_from=0.25,
    )


def _cyst(rng: np.random.Generator, abdomen: Abdomen, taken: list[AbdomenLesion]) -> AbdomenLesion:
    """A cyst that bulges out of a kidney."""
    sign = _free_side(rng, taken)
    radius = float(rng.uniform(9, 25))
    turn = rng.uniform(-0.9, 0.9)
    out = np.array((sign * np.cos(turn), np.sin(turn), 0.0)) * (21, 24, 1)
    spot = (out + np.array((0, 0, rng.uniform(-34, 30)))) * abdomen.stretch
    return AbdomenLesion(
        finding="cyst",
        site="kidney",
        side=_side(sign),
        severity=None,
        sentence=f"Cyst of the {_side(sign)} kidney.",
        solid=ellipsoid(abdomen.kidney(sign).center + spot, radius * rng.uniform(0.92, 1.08, 3)),
        value=float(rng.uniform(1, 13)),
        inside=False,
    )


def _free_side(rng: np.random.Generator, taken: list[AbdomenLesion]) -> int:
    """A side whose kidney has nothing yet, -1 for right."""
    full = {one.side for one in taken}
    return int(rng.choice([sign for sign in (-1, 1) if _side(sign) not in full] or [-1, 1]))


def _side(sign: int) -> str:
    return "left" if sign > 0 else "right"


KIND = Kind(
    name=NAME,
    findings=FINDINGS,
    sites=SITES,
    slices=(16, 56, 512),
    matrix=(64, 256, 1024),
    sample=sample,
)
