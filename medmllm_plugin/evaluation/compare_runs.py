"""Two runs of one benchmark, item by item: what only one of them got right, and whether that is chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

import numpy as np

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Kind, Verdict
from medmllm_plugin.evaluation.measures import MEASURES, Reduce
from medmllm_plugin.evaluation.records import Record
from medmllm_plugin.evaluation.run import all_records, head_of

DRAWS = 10_000
"""Of the randomisation test."""

LISTED = 12
"""Items of each sort that are told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A figure of two runs on the same items."""

    key: str
    first: float
    second: float
    low: float
    high: float
    """95 % interval of second minus first, clusters drawn again."""
    p: float
    """How often chance alone, exchanging the runs cluster by cluster, differs as much; two-sided."""
    cases: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """What came of the comparison."""

    names: tuple[str, str]
    """The models."""
    gained: tuple[str, ...]
    """Items that only the second got right."""
    lost: tuple[str, ...]
    """Items that only the first got right."""
    mcnemar: float
    """p of the exact McNemar test over items; it takes them for independent."""
    differences: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "models": list(self.names),
            "gained": list(self.gained),
            "lost": list(self.lost),
            "mcnemar_p": self.mcnemar,
            "measures": [
                {
                    "key": one.key,
                    "first": one.first,
                    "second": one.second,
                    "difference": [one.second - one.first, one.low, one.high],
                    "p": one.p,
                    "cases": one.cases,
                }
                for one in self.differences
            ],
        }

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        first, second = self.names
        yield f"{first} against {second}"
        yield (
            f"  right by {second} only: {len(self.gained)}, by {first} only: {len(self.lost)}; "
            f"McNemar p = {self.mcnemar:.4f}"
        )
        for one in self.differences:
            measure = MEASURES[one.key]
            yield (
                f"  {measure.words}: {measure.shown(one.first)} and {measure.shown(one.second)}, difference "
                f"{measure.shown(one.second - one.first)} ({measure.shown(one.low)} to "
                f"{measure.shown(one.high)}), p = {one.p:.4f}, of {one.cases}"
            )
        for words, names in ((f"Only {second}", self.gained), (f"Only {first}", self.lost)):
            if names:
                more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
                yield f"{words}: {', '.join(names[:LISTED])}{more}"


def compare(first: Path, second: Path) -> Paired:
    """Compare two runs of the same items.

    Raises:
        SettingsError: If one is no whole run, or they are of different items.
    """
    heads = head_of(first), head_of(second)
    for key in ("benchmark", "items_sha256"):
        if heads[0].get(key) != heads[1].get(key):
            raise SettingsError(
                f"{first} and {second}: found runs of different items (they differ in {key}), expected the "
                "same; run both with the same --data and -n"
            )
    return compare_records(
        all_records(first), all_records(second), names=(str(heads[0]["model"]), str(heads[1]["model"]))
    )


def compare_records(first: Sequence[Record], second: Sequence[Record], *, names: tuple[str, str]) -> Paired:
    """Compare records of the same items.

    Args:
        first: Of one run.
        second: Of the other, in any order.
        names: Of the two, in this order.
    """
    other = {one.item: one for one in second}
    pairs = [(one, other[one.item]) for one in sorted(first, key=lambda one: one.item)]
    judged = [(a, b) for a, b in pairs if a.kind is not Kind.REPORT]
    gained = [a.item for a, b in judged if _right(b) and not _right(a)]
    lost = [a.item for a, b in judged if _right(a) and not _right(b)]
    found = []
    if judged:
        found.append(
            _difference(
                "accuracy", [(a.cluster, (float(_right(a)), 1.0), (float(_right(b)), 1.0)) for a, b in judged]
            )
        )
    for key, measure in MEASURES.items():
        rows = [
            (a.cluster, _sums(a.scores[key]), _sums(b.scores[key]))
            for a, b in pairs
            if measure.reduce is Reduce.SHARE and key in a.scores and key in b.scores
        ]
        if rows:
            found.append(_difference(key, rows))
    return Paired(
        names=names,
        gained=tuple(gained),
        lost=tuple(lost),
        mcnemar=mcnemar(len(gained), len(lost)),
        differences=tuple(found),
    )


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p of the McNemar test.

    >>> round(mcnemar(9, 1), 4), mcnemar(3, 3)
    (0.0215, 1.0)
    """
    both, few = gained + lost, min(gained, lost)
    return min(1.0, 2.0 * sum(comb(both, k) for k in range(few + 1)) / 2.0**both)


def _right(one: Record) -> bool:
    return one.verdict is Verdict.RIGHT


def _sums(score: Any) -> tuple[float, float]:
    return (float(score), 1.0) if isinstance(score, int | float) else (float(score[0]), float(score[1]))


def _difference(key: str, rows: Sequence[tuple[str, tuple[float, float], tuple[float, float]]]) -> Difference:
    sums: dict[str, list[float]] = {}
    for cluster, one, two in rows:
        mine = sums.setdefault(cluster, [0.0] * 4)
        for k, value in enumerate((*one, *two)):
            mine[k] += value
    table = np.array(list(sums.values()), np.float64)
    rng = np.random.default_rng(0)
    count = len(table)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS) @ table
    flips = rng.random((DRAWS, count)) < 0.5
    swapped = flips @ table[:, [2, 3, 0, 1]] + (~flips) @ table
    real = _minus(table.sum(axis=0)[None])[0]
    low, high = np.nanpercentile(_minus(drawn), [2.5, 97.5]).tolist()
    extreme = int((np.abs(np.nan_to_num(_minus(swapped))) >= abs(real) - 1e-12).sum())
    whole = table.sum(axis=0)
    return Difference(
        key=key,
        first=float(whole[0] / whole[1]) if whole[1] else 0.0,
        second=float(whole[2] / whole[3]) if whole[3] else 0.0,
        low=low,
        high=high,
        p=(extreme + 1) / (DRAWS + 1),
        cases=len(rows),
    )


def _minus(sums: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Second minus first, for sums of shape (samples, 4)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[:, 2] / sums[:, 3] - sums[:, 0] / sums[:, 1])
