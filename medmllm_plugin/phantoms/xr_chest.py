"""Frontal chest radiograph, processed for presentation: bones bright."""

from __future__ import annotations

import numpy as np

from medmllm_plugin.phantoms import chest
from medmllm_plugin.phantoms.anatomy import Anatomy, Finish, Kind, Scan, chosen_findings
from medmllm_plugin.phantoms.chest import ChestCT
from medmllm_plugin.phantoms.chest_findings import sample_chest
from medmllm_plugin.phantoms.radiograph import ChestRadiograph
from medmllm_plugin.phantoms.scanners import blur
from medmllm_plugin.phantoms.sections import Values
from medmllm_plugin.phantoms.texture import grain

NAME = "xr-chest"

MARKER = ("10000", "10000", "10000", "10000", "10000", "10000", "11111")
"""The lead letter L, which stands at the patient's left."""


def sample(
    rng: np.random.Generator, findings: tuple[str, ...] | None, slices: int, matrix: int
) -> tuple[Anatomy, Scan]:
    """A chest at random with these findings, None for any, and its radiograph."""
    weights = (0.3, 0.12, 0.16, 0.17, 0.13, 0.12)
    keys = chosen_findings(rng, findings, kind=NAME, known=chest.FINDINGS, weights=weights)
    body = sample_chest(rng, findings=keys)
    for _ in range(20):
        if _all_seen(body):
            break
        body = sample_chest(rng, findings=keys)
    view = str(rng.choice(["PA", "PA", "PA", "AP"]))
    distance = float(rng.choice([1500, 1800])) if view == "PA" else float(rng.choice([1000, 1200]))
    breasts = float(rng.uniform(14, 34)) if rng.random() < 0.5 else 0.0
    anatomy = ChestRadiograph(chest=body, view=view, distance=distance, breasts=breasts)
    pixel = round(float(rng.uniform(385, 430)) / matrix, 4)
    half = pixel * (matrix - 1) / 2
    middle = (float(rng.uniform(-14, 14)), 146 * body.stretch[2] + float(rng.uniform(-14, 14)))
    down = 0.0 if view == "PA" else 1.0
    return anatomy, Scan(
        modality="DX",
        slices=1,
        shape=(matrix, matrix),
        spacing=(pixel, pixel),
        origin=np.array([middle[0] - half, 0.0, middle[1] + half]),
        across=np.array([1.0, 0.0, 0.0]),
        down=np.array([0.0, 0.0, -1.0]),
        step=np.array([0.0, 1.0, 0.0]),
        thickness=0.1,
        shift=(0.0, down, 0.0),
        window=(2048.0, 4096.0),
        finish=_finish(float(rng.uniform(0.006, 0.016)), pixel=pixel),
        body_part="CHEST",
        position="",
        placed=False,
        header={
            "ViewPosition": view,
            "PatientOrientation": ["L", "F"],
            "DistanceSourceToDetector": f"{distance:.0f}",
            "ImagerPixelSpacing": [pixel, pixel],
            "KVP": "110" if view == "PA" else "90",
        },
    )


def _all_seen(body: ChestCT) -> bool:
    """Whether no nodule or the like hides behind heart or diaphragm."""
    for lesion in body.lesions:
        if lesion.solid is None:
            continue
        x, _, z = lesion.solid.center
        for other in (body.heart, body.liver, body.left_dome):
            across = (x - other.center[0]) / (other.radii[0] + 0.5 * lesion.solid.radii[0])
            up = (z - other.center[2]) / (other.radii[2] + 0.5 * lesion.solid.radii[2])
            if across**2 + up**2 < 1:
                return False
        if abs(x) < 46 * body.stretch[0]:
            return False
    return True


def _finish(noise: float, *, pixel: float) -> Finish:
    """Focal spot, quantum noise, and the processing that evens out dark lungs and bright mediastinum."""

    def finish(clean: Values, rng: np.random.Generator) -> Values:
        seen = blur(clean)
        speckle = grain(rng, (clean.shape[0], clean.shape[1]), ramp=False)
        grainy = seen + np.float32(noise) * np.exp(np.float32(0.25) * seen) * speckle
        even = grainy - np.float32(0.38) * _smoothed(grainy)
        out = np.clip((even - np.float32(-0.05)) * np.float32(4095 / 3.6), 0, 4095)
        _mark(out, pixel)
        return np.asarray(np.rint(out), np.float32)

    return finish


def _smoothed(values: Values) -> Values:
    """The image without what is finer than about a tenth of it."""
    rows, columns = values.shape
    cells = 32
    tall, wide = _weights(rows, cells), _weights(columns, cells)
    coarse = (tall.T @ values @ wide) / np.outer(tall.sum(axis=0), wide.sum(axis=0))
    return np.asarray(tall @ blur(blur(coarse.astype(np.float32))) @ wide.T, np.float32)


def _weights(count: int, cells: int) -> Values:
    """How much each of `cells` knots counts for each of `count` pixels, linear, shape (count, cells)."""
    at = np.linspace(0, cells - 1, count)
    return np.asarray(np.clip(1 - np.abs(at[:, None] - np.arange(cells)), 0, None), np.float32)


def _mark(image: Values, pixel: float) -> None:
    """Put the letter L into the corner at the patient's left."""
    size = max(1, round(2.6 / pixel))
    letter = np.kron(np.array([[int(dot) for dot in row] for row in MARKER]), np.ones((size, size)))
    rows, columns = letter.shape
    top, right = round(16 / pixel), image.shape[1] - round(14 / pixel)
    part = image[top : top + rows, right - columns : right]
    part[letter.astype(bool)[: part.shape[0], : part.shape[1]]] = 4000


KIND = Kind(
    name=NAME,
    findings=chest.FINDINGS,
    sites=chest.SITES,
    slices=(1, 1, 1),
    matrix=(128, 512, 3072),
    sample=sample,
)
