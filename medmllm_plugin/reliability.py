"""How far scores can be believed: calibration error, its spread by chance, and curves that correct it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.calibration import Curve

BINS = 10
"""Bins of equal width from 0 to 1."""

DRAWS = 2000
"""Samples drawn for an interval."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """Findings of about the same score."""

    low: float
    high: float
    count: int
    score: float
    """Mean score."""
    share: float
    """Share of them that was right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def bins(scores: Sequence[float], right: Sequence[bool]) -> tuple[Bin, ...]:
    """The findings in bins of equal width; those without any are left out."""
    values, hits = _arrays(scores, right)
    places = np.minimum((values * BINS).astype(int), BINS - 1)
    return tuple(
        Bin(
            low=k / BINS,
            high=(k + 1) / BINS,
            count=int(inside.sum()),
            score=float(values[inside].mean()),
            share=float(hits[inside].mean()),
        )
        for k in range(BINS)
        if (inside := places == k).any()
    )


def ece(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Expected calibration error: how far scores are from shares, bin by bin, weighted by findings.

    After Naeini, Cooper and Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian Binning (2015).

    >>> round(ece([0.9, 0.9, 0.9, 0.9], [True, True, True, False]), 3)
    0.15
    """
    return sum(one.count * abs(one.score - one.share) for one in bins(scores, right)) / len(scores)


def auc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Area under the ROC curve: how often a right finding has the higher score than a wrong one.

    NaN where all are right or all wrong.

    >>> auc([0.2, 0.7, 0.7, 0.9], [False, False, True, True])
    0.875
    """
    values, hits = _arrays(scores, right)
    good, bad = values[hits], values[~hits]
    if not good.size or not bad.size:
        return float("nan")
    above = (good[:, None] > bad).mean() + (good[:, None] == bad).mean() / 2
    return float(above)


def estimate(
    groups: Sequence[Sequence[tuple[float, bool]]],
    figure: Callable[[Sequence[float], Sequence[bool]], float],
    *,
    seed: int = 0,
) -> Estimate:
    """A figure with its interval by drawing whole studies again and again (percentile bootstrap).

    Args:
        groups: Of each study its findings, as (score, whether it was right).
        figure: Such as `ece`.
        seed: Of the draws.

    Raises:
        ValueError: If there is no finding at all.
    """
    filled = [group for group in groups if group]
    if not filled:
        raise ValueError("there is no finding to take a figure of")
    rng = np.random.default_rng(seed)
    drawn = [
        _of([filled[k] for k in rng.integers(0, len(filled), len(filled))], figure) for _ in range(DRAWS)
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5]).tolist()
    return Estimate(value=_of(filled, figure), low=low, high=high)


def _of(
    groups: Sequence[Sequence[tuple[float, bool]]],
    figure: Callable[[Sequence[float], Sequence[bool]], float],
) -> float:
    flat = [pair for group in groups for pair in group]
    return figure([score for score, _ in flat], [right for _, right in flat])


def _arrays(scores: Sequence[float], right: Sequence[bool]) -> tuple[Floats, NDArray[np.bool_]]:
    if not scores or len(scores) != len(right):
        raise ValueError(f"found {len(scores)} scores of {len(right)} findings, expected as many, and some")
    return np.asarray(scores, np.float64), np.asarray(right, np.bool_)
