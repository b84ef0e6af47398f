"""The figures that runs are judged by, and their intervals: whole studies are drawn again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isnan

import numpy as np

from medmllm_plugin.reliability import DRAWS, Estimate


class Reduce(StrEnum):
    """How the scores of items become a figure."""

    SHARE = "share"
    """Sum of numerators over sum of denominators; a mean where each denominator is 1."""
    MEDIAN = "median"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One figure."""

    words: str
    higher: bool = True
    """Whether more is better."""
    unit: str = "%"
    """`%` for a share of 1, `mm`, or none."""
    reduce: Reduce = Reduce.SHARE

    def shown(self, value: float) -> str:
        """A value for a reader.

        >>> Measure(words="").shown(0.4567), Measure(words="", unit="mm").shown(4.26)
        ('45.7 %', '4.3 mm')
        """
        if isnan(value):
            return "not known"
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        return f"{value:.1f} {self.unit}" if self.unit else f"{value:.3f}"


MEASURES: Mapping[str, Measure] = {
    "accuracy": Measure(words="right, of all items"),
    "answered": Measure(words="answered, of all items"),
    "accuracy_answered": Measure(words="right, of those answered"),
    "commonest": Measure(words="right if the commonest answer of its kind were always given"),
    "exact": Measure(words="open: the same words"),
    "concept": Measure(words="open: the same concepts, where the right answer has one"),
    "token_precision": Measure(words="open: words of the answer that are right"),
    "token_recall": Measure(words="open: right words that the answer has"),
    "token_f1": Measure(words="open: F1 of words"),
    "choices_f1": Measure(words="several choices: F1"),
    "clinical": Measure(words="clinical score, -1 to 1; 0 is a normal template", unit=""),
    "clinical_errors": Measure(words="actionable errors a report", higher=False, unit=""),
    "facts_f1": Measure(words="facts of the report, F1"),
    "bleu1": Measure(words="BLEU-1"),
    "bleu4": Measure(words="BLEU-4"),
    "rouge1": Measure(words="ROUGE-1"),
    "rouge2": Measure(words="ROUGE-2"),
    "rougeL": Measure(words="ROUGE-L"),
    "meteor": Measure(words="METEOR, words and stems"),
    "chexbert": Measure(words="CheXbert, F1 of 14 conditions"),
    "ratescore": Measure(words="RaTEScore"),
    "radgraph": Measure(words="RadGraph-XL, F1 partial"),
    "rubric": Measure(words="rubric points, as a judge saw them"),
    "judged": Measure(words="right as a judge saw it"),
    "finding_f1": Measure(words="findings present or absent, F1"),
    "side": Measure(words="side right, of those found"),
    "slice": Measure(words="box on an image that the lesion reaches"),
    "pointing": Measure(words="centre of the box inside the lesion's"),
    "iou": Measure(words="box IoU, mean"),
    "iou50": Measure(words="box IoU at least 0.5"),
    "centre_mm": Measure(words="centre error, median", higher=False, unit="mm", reduce=Reduce.MEDIAN),
    "size_off": Measure(words="size error, median", higher=False, reduce=Reduce.MEDIAN),
    "size_mm": Measure(words="size error, median", higher=False, unit="mm", reduce=Reduce.MEDIAN),
    "false_normal": Measure(words="false findings on a normal study", higher=False, unit=""),
    "change": Measure(words="change right, of the findings that were compared"),
}
"""By their keys in records and `metrics.json`, in the order of tables."""

Score = float | Sequence[float]
"""Of an item: a value; for a share that is no mean, its numerator and denominator; for a median, values."""


def estimate(key: str, scores: Sequence[tuple[str, Score]], *, seed: int = 0) -> Estimate:
    """A figure with its 95 % interval (percentile bootstrap over clusters).

    Args:
        key: Of `MEASURES`.
        scores: (cluster, score) of each item that has one.
        seed: Of the draws.

    >>> one = estimate("accuracy", [("a", 1.0), ("b", 0.0), ("c", 1.0), ("d", 1.0)])
    >>> one.value, one.low < one.value < one.high
    (0.75, True)
    >>> estimate("side", [("a", (1, 2)), ("b", (3, 3))]).value
    0.8
    """
    if MEASURES[key].reduce is Reduce.MEDIAN:
        return _median(scores, seed)
    sums: dict[str, list[float]] = {}
    for cluster, score in scores:
        top, bottom = (score, 1.0) if isinstance(score, float | int) else score
        mine = sums.setdefault(cluster, [0.0, 0.0])
        mine[0] += top
        mine[1] += bottom
    table = np.array(list(sums.values()), np.float64).reshape(-1, 2)
    whole = table.sum(axis=0)
    if not whole[1]:
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    drawn = _counts(len(table), seed) @ table
    known = drawn[drawn[:, 1] > 0]
    low, high = np.percentile(known[:, 0] / known[:, 1], [2.5, 97.5]).tolist()
    return Estimate(value=float(whole[0] / whole[1]), low=low, high=high)


def _median(scores: Sequence[tuple[str, Score]], seed: int) -> Estimate:
    values: dict[str, list[float]] = {}
    for cluster, score in scores:
        listed = [score] if isinstance(score, float | int) else list(score)
        values.setdefault(cluster, []).extend(listed)
    groups = [np.array(one) for one in values.values() if one]
    if not groups:
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    rng = np.random.default_rng(seed)
    drawn = [
        float(np.median(np.concatenate([groups[k] for k in rng.integers(0, len(groups), len(groups))])))
        for _ in range(DRAWS)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5]).tolist()
    return Estimate(value=float(np.median(np.concatenate(groups))), low=low, high=high)


def _counts(clusters: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """How often each cluster is drawn in each sample, shape (draws, clusters)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=DRAWS).astype(np.float64)
