"""A close look at one finding as a training example: what surrounds it, cut out, as a reading shows it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.closer import around, settings
from medmllm_plugin.errors import GeometryError
from medmllm_plugin.findings import Finding
from medmllm_plugin.phantoms.shapes import Mask
from medmllm_plugin.phantoms.study import KINDS, PhantomStudy, sample_study
from medmllm_plugin.place import Place
from medmllm_plugin.slice import Slice
from medmllm_plugin.transforms.slices import SlicePlan
from tools.training.examples import Example, example_of
from tools.training.lessons import CLOSER, HARD, Lesson

SEEN_PIXELS = 16.0
"""A lesion counts as seen in a picture from this area on, picture px²."""

NOWHERE = 0.12
"""Share of the looks that are taken somewhere else than at a finding."""

COARSE, FINER = (24, 64), (80, 128)
"""Slices and matrix of the twin of a study in which its findings are looked for: quick to draw; and what
shows those that lie between the slices of that."""


def close_example(lesson: Lesson, seed: int) -> Example:
    """A close look at a finding of the study of a seed, as far off as an overview might say it is."""
    rng = np.random.default_rng([seed, 14])
    usual = KINDS[lesson.kind].slices[1]
    slices = int(rng.integers(max(KINDS[lesson.kind].slices[0], usual * 3 // 10), usual * 7 // 5))
    matrix = int(rng.choice(np.array(lesson.matrices)))
    chances = np.array([HARD.get(key, 1) for key in lesson.closer], float)
    findings: tuple[str, ...] | None = None
    twin, small = _twin(lesson, seed, findings)
    if not small:
        findings = (str(rng.choice(list(lesson.closer), p=chances / chances.sum())),)
        twin, small = _twin(lesson, seed, findings)
    weights = np.array([HARD.get(one.finding, 1) for one in small], float)
    one = small[int(rng.choice(len(small), p=weights / weights.sum()))]
    if rng.random() < NOWHERE:
        findings = ()
    study = sample_study(kind=lesson.kind, seed=seed, findings=findings, slices=slices, matrix=matrix)
    moved = np.subtract(study.scan.shift, twin.scan.shift)
    for share in (1.0, 1.0, 0.5, 0.2):
        try:
            return _example(study, lesson, _about(one, moved, share, rng))
        except GeometryError:  # beyond the first or last slice
            continue
    return _example(study, lesson, _about(one, moved, 0.0, rng))


def _twin(lesson: Lesson, seed: int, findings: tuple[str, ...] | None) -> tuple[PhantomStudy, list[Finding]]:
    """A coarse scan of the study of a seed, and its findings that are looked at closely."""
    for slices, matrix in (COARSE, FINER):
        twin = sample_study(kind=lesson.kind, seed=seed, findings=findings, slices=slices, matrix=matrix)
        small = [one for one in twin.truth() if one.finding in lesson.closer]
        if small or not any(one.finding in lesson.closer for one in twin.lesions):
            break
    return twin, small


def _about(one: Finding, moved: NDArray[np.float64], share: float, rng: np.random.Generator) -> Place:
    """A finding as an overview might say it: somewhat beside its place, somewhat larger or smaller."""
    assert one.center_mm is not None
    assert one.size_mm is not None
    wide = rng.random() < 0.15
    spread = np.array((15.0, 15.0, 18.0) if wide else (6.0, 6.0, 7.0))
    off = share * np.clip(rng.normal(0, spread), -25, 25)
    center = tuple((np.array(one.center_mm) + moved + off).tolist())
    return around((center[0], center[1], center[2]), one.size_mm * float(np.exp(rng.normal(0, 0.2))))


def _example(study: PhantomStudy, lesson: Lesson, place: Place) -> Example:
    shown = SlicePlan(**{**lesson.plan, **settings(place, CLOSER)}).apply(study.volume())
    numbers = {study.source(k): k for k in range(study.slices)}
    masks = []
    for one in shown.slices:
        drawn = {index: _drawn(mask, one) for index, mask in study.masks(numbers[one.source]).items()}
        masks.append({index: mask for index, mask in drawn.items() if mask.any()})
    return example_of(
        study,
        np.stack([one.pixels for one in shown.slices]),
        masks,
        pixel=abs(float(shown.slices[0].to_source[0, 0])) * study.pixel,
        least=SEEN_PIXELS,
    )


def _drawn(mask: Mask, one: Slice) -> NDArray[np.bool_]:
    """A mask as a picture shows it, by the nearest pixel."""
    rows, columns = one.pixels.shape[:2]
    m = one.to_source
    x = np.rint(m[0, 0] * np.arange(columns) + m[0, 2]).astype(int)
    y = np.rint(m[1, 1] * np.arange(rows) + m[1, 2]).astype(int)
    inside = ((y >= 0) & (y < mask.shape[0]))[:, None] & ((x >= 0) & (x < mask.shape[1]))[None]
    return mask[np.clip(y, 0, mask.shape[0] - 1)[:, None], np.clip(x, 0, mask.shape[1] - 1)[None]] & inside
