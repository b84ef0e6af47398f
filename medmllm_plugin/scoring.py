"""A reading of a phantom against what is known to be in it, and the measures over many.

`medmllm selftest` and the figures of a model's card are made here, so they mean the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from medmllm_plugin.findings import Box, Finding, Status
from medmllm_plugin.phantoms.study import PhantomStudy, mask_box

Bounds = tuple[float, float, float, float]
"""(column_min, row_min, column_max, row_max) in corner coordinates of an image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A finding of the truth, and what was said of it."""

    true: Finding
    said: Finding | None
    """None if it was missed."""
    in_lesion: bool = False
    """Whether the box lies on an image that the lesion reaches; false without a box."""
    iou: float = 0.0
    """Intersection over union of the box and that of the lesion on the same image; 0 if they share none."""
    edge_px: float | None = None
    """The largest distance between edges of the box and the true box, image pixels; None if they are not on
    the same image."""
    off_mm: float | None = None
    """Between the centres in the patient; None where either has none."""
    size_off: float | None = None
    """Difference of the sizes, as a part of the true one; None where either has none."""

    @property
    def side_right(self) -> bool:
        """Whether it was found, and on its side."""
        return self.said is not None and self.said.side == self.true.side


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A reading of one phantom against its truth."""

    pairs: tuple[Pair, ...]
    """One for each finding of the truth; none for a normal study."""
    false: tuple[Finding, ...]
    """What was said to be there and is not."""
    pixel_mm: float
    """Distance between columns of the phantom's images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One figure of how well phantoms were read."""

    key: str
    words: str
    strict: float
    """The bar of a model that reads phantoms well."""
    higher: bool = True
    """Whether more is better."""
    unit: str = ""
    """`%` for a share of 1, `mm`, or none."""

    def better(self, value: float, bar: float) -> bool:
        """Whether a value reaches a bar."""
        return value >= bar if self.higher else value <= bar


MEASURES = {
    one.key: one
    for one in (
        Measure(key="f1", words="finding present or absent, F1", strict=0.9),
        Measure(key="side", words="side right, of those found", strict=0.97),
        Measure(key="slice", words="box on an image that the lesion reaches", strict=0.85),
        Measure(key="iou", words="box IoU at least 0.5", strict=0.7),
        Measure(key="centre", words="centre error, median", strict=6.0, higher=False, unit="mm"),
        Measure(key="size", words="size error, median", strict=0.25, higher=False, unit="%"),
        Measure(key="false", words="false findings on a normal study", strict=0.1, higher=False),
    )
}
"""By the names that a model's card has them under (`measured`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """What a measure came to."""

    value: float | None
    """None where there was no case."""
    cases: int
    """How many findings, boxes or studies it rests on."""


def compare(study: PhantomStudy, said: Iterable[Finding]) -> Comparison:
    """Compare what was said of a phantom with its truth.

    Each finding of the truth takes the first said finding of its kind that is present, on its own side if
    there is one; what is left is false.

    Args:
        study: The phantom, in the form that was read.
        said: The findings, boxes in pixels of its images and centres in LPS mm.
    """
    left = [one for one in said if one.status is Status.PRESENT]
    pairs = []
    for index, true in true_findings(study):
        same = [one for one in left if one.finding == true.finding]
        match = next((one for one in same if one.side == true.side), same[0] if same else None)
        if match is None:
            pairs.append(Pair(true=true, said=None))
            continue
        left.remove(match)
        pairs.append(_pair(study, index, true, match))
    return Comparison(pairs=tuple(pairs), false=tuple(left), pixel_mm=study.pixel)


def true_findings(study: PhantomStudy) -> list[tuple[int, Finding]]:
    """The truth with the lesions' indices, by which `PhantomStudy.masks` names them."""
    seen = {index for k in range(study.slices) for index in study.masks(k)}
    return list(zip(sorted(seen), study.truth(), strict=True))


def measured(comparisons: Sequence[Comparison]) -> dict[str, Value]:
    """The measures of `MEASURES` over many phantoms, by their keys."""
    pairs = [pair for one in comparisons for pair in one.pairs]
    found = [pair for pair in pairs if pair.said is not None]
    boxed = [pair for pair in found if pair.said is not None and pair.said.box is not None]
    normal = [one for one in comparisons if not one.pairs]
    false = sum(len(one.false) for one in comparisons)
    return {
        "f1": Value(
            value=2 * len(found) / (len(pairs) + len(found) + false) if pairs or false else None,
            cases=len(pairs) or false,
        ),
        "side": _share([pair.side_right for pair in found]),
        "slice": _share([pair.in_lesion for pair in boxed]),
        "iou": _share([pair.iou >= 0.5 for pair in boxed]),
        "centre": _median([pair.off_mm for pair in boxed if pair.off_mm is not None]),
        "size": _median([pair.size_off for pair in boxed if pair.size_off is not None]),
        "false": Value(
            value=sum(len(one.false) for one in normal) / len(normal) if normal else None, cases=len(normal)
        ),
    }


def iou(a: Bounds, b: Bounds) -> float:
    """Intersection over union of two boxes.

    >>> iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = across * down
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def bounds(box: Box) -> Bounds:
    """The edges of a box in its image."""
    return box.column_min, box.row_min, box.column_max, box.row_max


def _pair(study: PhantomStudy, index: int, true: Finding, said: Finding) -> Pair:
    off = None
    if said.center_mm is not None and true.center_mm is not None:
        off = float(np.linalg.norm(np.subtract(said.center_mm, true.center_mm)))
    size = None
    if said.size_mm is not None and true.size_mm:
        size = abs(said.size_mm - true.size_mm) / true.size_mm
    pair = Pair(true=true, said=said, off_mm=off, size_off=size)
    if said.box is None:
        return pair
    k = next((k for k in range(study.slices) if study.source(k) == said.box.image), None)
    mask = None if k is None else study.masks(k).get(index)
    if mask is None:
        return pair
    on_true = true.box is not None and true.box.image == said.box.image
    here = bounds(said.box)
    return replace(
        pair,
        in_lesion=True,
        iou=iou(here, mask_box(mask)),
        edge_px=max(abs(a - b) for a, b in zip(here, mask_box(mask), strict=True)) if on_true else None,
    )


def _share(hits: Sequence[bool]) -> Value:
    return Value(value=sum(hits) / len(hits) if hits else None, cases=len(hits))


def _median(values: Sequence[float]) -> Value:
    return Value(value=median(values) if values else None, cases=len(values))
