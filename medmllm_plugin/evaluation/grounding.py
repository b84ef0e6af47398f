"""Findings and boxes held against phantoms, whose truth is known: side, slice, overlap, mm, FROC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

import numpy as np

from medmllm_plugin.evaluation.measures import Score
from medmllm_plugin.findings import Box, Finding, Side
from medmllm_plugin.geometry import apply
from medmllm_plugin.phantoms.study import PhantomStudy, mask_box
from medmllm_plugin.scoring import Comparison, bounds, compare, iou

FALSE_A_STUDY = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Where FROC is read off, false marks a study (LUNA16)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A box held against one lesion of a phantom."""

    on_slice: bool
    """Whether it lies on an image that the lesion reaches."""
    iou: float
    """With the lesion's box on that image; 0 where that doesn't reach it."""
    pointing: bool
    """Whether its centre lies inside the lesion's box on that image."""
    off_mm: float | None
    """From its centre to the lesion's, in the patient where the image has a place there, else on the image
    (millimetres at the detector); None where neither can be said."""


def placed(study: PhantomStudy, index: int, true: Finding, box: Box) -> Placed:
    """Hold a box against a lesion.

    Args:
        study: The phantom.
        index: The lesion's, as `PhantomStudy.masks` names it.
        true: The same as a finding.
        box: What was said, in pixels of one of the phantom's images.
    """
    k = next((k for k in range(study.slices) if study.source(k) == box.image), None)
    if k is None:
        return Placed(on_slice=False, iou=0.0, pointing=False, off_mm=None)
    said = bounds(box)
    column, row = (said[0] + said[2]) / 2, (said[1] + said[3]) / 2
    off = _off_mm(study, k, true, column, row)
    mask = study.masks(k).get(index)
    if mask is None:
        return Placed(on_slice=False, iou=0.0, pointing=False, off_mm=off)
    here = mask_box(mask)
    inside = here[0] <= column <= here[2] and here[1] <= row <= here[3]
    return Placed(on_slice=True, iou=iou(said, here), pointing=inside, off_mm=off)


def _off_mm(study: PhantomStudy, k: int, true: Finding, column: float, row: float) -> float | None:
    matrix = study.plane(k).to_patient
    if matrix is not None and true.center_mm is not None:
        # a centre in corner coordinates is half a pixel beyond that of pixel indices
        here = apply(matrix, [column - 0.5, row - 0.5, 0])
        return float(np.linalg.norm(here - np.asarray(true.center_mm)))
    if true.box is None or true.box.image != study.source(k):
        return None
    left, top, right, bottom = bounds(true.box)
    down, across = study.scan.spacing
    return hypot((column - (left + right) / 2) * across, (row - (top + bottom) / 2) * down)


def of_report(
    study: PhantomStudy, said: Sequence[Finding]
) -> tuple[Comparison, dict[str, Score], dict[str, object]]:
    """Findings of a report held against a phantom's.

    Returns:
        The comparison; scores by keys of `measures.MEASURES`; and the details that FROC and calibration are
        made of: `lesions`, how many there are; `marks`, for each finding said its certainty (1 where none was
        given), which lesion it hits (-1 for none or another side); and `certainties`, (certainty, whether it
        is right, side included).
    """
    result = compare(study, said)
    found = [one for one in result.pairs if one.said is not None]
    boxed = [one for one in found if one.said is not None and one.said.box is not None]
    scores: dict[str, Score] = {}
    top, bottom = 2.0 * len(found), 1.0 * (len(result.pairs) + len(found) + len(result.false))
    if bottom:
        scores["finding_f1"] = [top, bottom]
    sided = [one for one in found if one.true.side is not Side.NONE]
    if sided:
        scores["side"] = [float(sum(one.side_right for one in sided)), float(len(sided))]
    if boxed:
        scores["slice"] = [float(sum(one.in_lesion for one in boxed)), float(len(boxed))]
        scores["iou"] = [sum(one.iou for one in boxed), float(len(boxed))]
        scores["iou50"] = [float(sum(one.iou >= 0.5 for one in boxed)), float(len(boxed))]
    off = [one.off_mm for one in boxed if one.off_mm is not None]
    size = [one.size_off for one in boxed if one.size_off is not None]
    scores |= {"centre_mm": off} if off else {}
    scores |= {"size_off": size} if size else {}
    if not result.pairs:
        scores["false_normal"] = float(len(result.false))
    marks = [
        [1.0 if pair.said.certainty is None else pair.said.certainty, number if pair.side_right else -1]
        for number, pair in enumerate(result.pairs)
        if pair.said is not None
    ]
    marks += [[1.0 if one.certainty is None else one.certainty, -1] for one in result.false]
    sure = [
        [pair.said.certainty, pair.side_right]
        for pair in found
        if pair.said is not None and pair.said.certainty is not None
    ]
    sure += [[one.certainty, False] for one in result.false if one.certainty is not None]
    return result, scores, {"lesions": len(result.pairs), "marks": marks, "certainties": sure}


def froc(studies: Sequence[tuple[int, Sequence[Sequence[float]]]]) -> list[tuple[float, float]]:
    """The free-response curve: share of lesions found against false marks a study, as the bar is lowered.

    Args:
        studies: Of each how many lesions it has, and its marks: (certainty, which lesion it hits, -1 for
            none).

    Returns:
        (false marks a study, share of lesions found) at each certainty that occurs, falling; empty without
        lesions.

    >>> froc([(1, [(0.9, 0), (0.4, -1)]), (1, [(0.8, -1), (0.3, 0)])])
    [(0.0, 0.5), (0.5, 0.5), (1.0, 0.5), (1.0, 1.0)]
    """
    lesions = sum(count for count, _ in studies)
    if not lesions:
        return []
    flat = sorted(
        ((mark[0], n, int(mark[1])) for n, (_, marks) in enumerate(studies) for mark in marks), reverse=True
    )
    curve: list[tuple[float, float]] = []
    hit: set[tuple[int, int]] = set()
    false = 0
    for position, (certainty, n, lesion) in enumerate(flat):
        if lesion < 0:
            false += 1
        else:
            hit.add((n, lesion))
        if position + 1 == len(flat) or flat[position + 1][0] < certainty:
            curve.append((false / len(studies), len(hit) / lesions))
    return curve


def sensitivity(curve: Sequence[tuple[float, float]], at: float) -> float:
    """The share found at so many false marks a study: that of the last point of the curve that keeps to it.

    >>> sensitivity([(0.0, 0.5), (0.5, 0.7), (2.0, 1.0)], 1.0)
    0.7
    """
    return max((found for false, found in curve if false <= at), default=0.0)
