"""A phantom study as a training example: the pictures a model is shown and the reply it should give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.phantoms.shapes import Mask
from medmllm_plugin.phantoms.study import PhantomStudy, mask_box
from medmllm_plugin.transforms.select import evenly
from medmllm_plugin.transforms.slices import SlicePlan
from tools.training.lessons import FINDINGS, LESSONS

PATCH = 14

SEEN_PIXELS = 5.0
"""A lesion counts as seen in a picture from this area on, picture px²."""

MAX_CITED = 12
"""As `medmllm_plugin.findings.MAX_CITED`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One study as the model meets it."""

    pictures: NDArray[np.uint8]
    """Shape (pictures, side, side, 3)."""
    target: str
    """The reply, compact JSON."""
    labels: NDArray[np.uint8]
    """Shape (pictures, side / 14, side / 14, findings): how much of a patch shows a finding of
    `lessons.FINDINGS`, 0 to 255."""
    boxes: NDArray[np.float32]
    """Shape (pictures, findings, 5): left, top, right and bottom edge of each finding in each picture, and
    the root of its area, px; zeros where it isn't seen."""
    sides: NDArray[np.float32]
    """Shape (findings,): 1 for a finding on the left, else 0."""
    long_axes: dict[str, float]
    """By finding the longer side of its box, mm."""


def make_example(study: PhantomStudy, *, count: int | None = None) -> Example:
    """The example of a study, through the very transforms that a reading uses.

    Args:
        study: The phantom.
        count: Most pictures; None for the plan's.
    """
    lesson = LESSONS[study.kind]
    count = lesson.count if count is None else count
    shown = SlicePlan(**{**lesson.plan, "count": count}).apply(study.volume())
    return example_of(
        study,
        np.stack([one.pixels for one in shown.slices]),
        [study.masks(k) for k in evenly(study.slices, count)],
        pixel=study.pixel * study.matrix / lesson.side,
        least=SEEN_PIXELS,
    )


def example_of(
    study: PhantomStudy,
    pictures: NDArray[np.uint8],
    masks: Sequence[Mapping[int, Mask]],
    *,
    pixel: float,
    least: float,
) -> Example:
    """What should be said of pictures of a study.

    Args:
        study: The phantom.
        pictures: Shape (pictures, side, side, 3).
        masks: For each picture where lesions, by index, lie in it: a square of any resolution.
        pixel: Side of a pixel of the pictures, mm.
        least: A lesion counts as seen in a picture from this area on, picture px².
    """
    side = pictures.shape[1]
    cells = side // PATCH
    labels = np.zeros((len(masks), cells, cells, len(FINDINGS)), np.uint8)
    boxes = np.zeros((len(masks), len(FINDINGS), 5), np.float32)
    sides = np.zeros(len(FINDINGS), np.float32)
    findings, words, long_axes = [], [], {}
    abnormal: set[int] = set()
    for index, lesion in enumerate(study.lesions):
        areas = [
            np.count_nonzero(m[index]) * (side / len(m[index])) ** 2 if index in m else 0.0 for m in masks
        ]
        seen = [n for n, area in enumerate(areas) if area >= least]
        if not seen:
            continue
        for n in seen:
            cover = _cover(masks[n][index], cells)
            one = labels[n, :, :, FINDINGS.index(lesion.finding)]
            np.maximum(one, cover, out=one)
            boxes[n, FINDINGS.index(lesion.finding)] = [*_edges(masks[n][index], side), areas[n] ** 0.5]
        sides[FINDINGS.index(lesion.finding)] = lesion.side == "left"
        best = max(seen, key=lambda n: areas[n])
        start = min(max(0, seen.index(best) - MAX_CITED // 2), max(0, len(seen) - MAX_CITED))
        cited = [n + 1 for n in seen[start : start + MAX_CITED]]
        box = [round(edge) for edge in _edges(masks[best][index], side)]
        long_axes[lesion.finding] = max(box[2] - box[0], box[3] - box[1]) * pixel
        findings.append(
            {
                "finding": lesion.finding,
                "site": lesion.site,
                "side": lesion.side,
                "status": "present",
                "severity": lesion.severity,
                "pictures": cited,
                "box": {"picture": best + 1, "bbox_2d": box},
                "sentence": lesion.sentence,
            }
        )
        abnormal.update(n + 1 for n in seen)
        words.append(lesion.sentence)
    reply = {
        "abnormal_pictures": sorted(abnormal),
        "findings": findings,
        "impression": words or ["No abnormality seen."],
    }
    return Example(
        pictures=pictures,
        target=json.dumps(reply, separators=(",", ":")),
        labels=labels,
        boxes=boxes,
        sides=sides,
        long_axes=long_axes,
    )


def _edges(mask: Mask, side: int) -> list[float]:
    """The box of a mask in a picture of a side."""
    return [edge * side / len(mask) for edge in mask_box(mask)]


def _cover(mask: NDArray[np.bool_], cells: int) -> NDArray[np.uint8]:
    """The share of each cell that a mask covers, 0 to 255, shape (cells, cells)."""
    edges = (np.arange(cells) * mask.shape[0] / cells).astype(int)
    sums = np.add.reduceat(np.add.reduceat(mask.astype(np.float32), edges, axis=0), edges, axis=1)
    return np.asarray(np.rint(np.clip(sums * (cells / mask.shape[0]) ** 2, 0, 1) * 255), np.uint8)
