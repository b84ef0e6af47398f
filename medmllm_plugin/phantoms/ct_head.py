"""Head CT, plain: fresh blood is bright, oedema dark."""

from __future__ import annotations

import numpy as np

from medmllm_plugin.phantoms.anatomy import Anatomy, Kind, Scan, chosen_findings
from medmllm_plugin.phantoms.head import Head
from medmllm_plugin.phantoms.head_findings import SITES, Appearance, place_findings, with_findings
from medmllm_plugin.phantoms.head_parts import Palette
from medmllm_plugin.phantoms.scanners import axial_scan, ct_finish
from medmllm_plugin.phantoms.sections import Vector, rotation
from medmllm_plugin.phantoms.texture import sample_folds

NAME = "ct-head"

FINDINGS = ("hemorrhage", "hematoma", "mass", "fracture")
"""Keys of findings this phantom can have."""

HOUNSFIELD = Palette(
    air=-1000.0,
    skin=45.0,
    fat=-95.0,
    muscle=55.0,
    bone=1150.0,
    marrow=520.0,
    petrous=1300.0,
    fluid=7.0,
    grey=39.0,
    white=29.5,
    deep=38.0,
    falx=58.0,
    vessel=60.0,
    eye=12.0,
    lens=85.0,
    calcium=190.0,
    rest=-870.0,
)


def sample(
    rng: np.random.Generator, findings: tuple[str, ...] | None, slices: int, matrix: int
) -> tuple[Anatomy, Scan]:
    """A head at random with these findings, None for any, and its scan."""
    keys = chosen_findings(rng, findings, kind=NAME, known=FINDINGS, weights=(0.36, 0.28, 0.2, 0.16))
    head = sample_head(rng, palette=HOUNSFIELD, turn=(5.0, 3.0, 6.0))
    appearance = Appearance(
        shades=_shades,
        collection=float(rng.uniform(58, 74)),
        adjective={"hemorrhage": "acute", "hematoma": "acute", "mass": "rounded"},
    )
    head = with_findings(head, *place_findings(rng, head, keys, appearance))
    high = 92 * float(head.stretch[2])
    tilt = round(float(rng.uniform(-18, 18)), 1) if rng.random() < 0.4 else 0.0
    low = -float(rng.uniform(57, 68)) * float(head.stretch[2]) - 50 * abs(float(np.sin(np.radians(tilt))))
    scan = axial_scan(
        rng,
        slices=slices,
        matrix=matrix,
        field_of_view=float(rng.uniform(212, 252)),
        middle=(float(rng.uniform(-8, 8)), float(rng.uniform(-10, 4))),
        span=(low, high * float(rng.uniform(0.95, 1.0))),
        window=(40.0, 80.0),
        finish=ct_finish(float(rng.uniform(2.2, 5.0)), smooth=True),
        body_part="HEAD",
        kvp=120,
        tilt=tilt,
    )
    return head, scan


def sample_head(rng: np.random.Generator, *, palette: Palette, turn: tuple[float, float, float]) -> Head:
    """A head without findings, of any size and age, turned by up to so many degrees about x, y and z."""
    stretch: Vector = rng.uniform(0.93, 1.05) * rng.uniform(0.96, 1.04, 3)
    return Head(
        stretch=stretch,
        pose=rotation([float(rng.uniform(-most, most)) for most in turn]),
        scalp=float(rng.uniform(5.0, 7.5)),
        skull=float(rng.uniform(5.5, 8.5)),
        atrophy=float(rng.beta(1.3, 2.0)),
        push=0.0,
        palette=palette,
        folds=sample_folds(rng, scale=1.0),
    )


def _shades(rng: np.random.Generator, key: str) -> tuple[tuple[float, ...], tuple[float, ...], float]:
    oedema = float(rng.uniform(15, 20))
    if key == "hemorrhage":
        return (float(rng.uniform(58, 64)), float(rng.uniform(66, 78))), (1.0, 0.8), oedema
    if rng.random() < 0.5:
        rim, core = float(rng.uniform(46, 62)), float(rng.uniform(12, 24))
        return (rim, core), (1.0, float(rng.uniform(0.55, 0.72))), oedema
    return (float(rng.uniform(45, 53)),), (1.0,), oedema


KIND = Kind(
    name=NAME,
    findings=FINDINGS,
    sites=SITES,
    slices=(12, 32, 320),
    matrix=(64, 256, 1024),
    sample=sample,
)
