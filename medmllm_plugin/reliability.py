"""How far scores can be believed: calibration error, its spread by chance, and odds that correct it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.calibration import Odds, log_odds
from medmllm_plugin.findings import TrialResult

BINS = 10
"""Bins of equal width from 0 to 1."""

DRAWS = 1000
"""Samples drawn for an interval."""

SPREAD = 1.5
"""Standard deviation of the terms of single findings, in log odds, before anything is seen."""

STEPS = 60
"""Of Newton's method; each changes no term by more than 1, so it can't run away."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A finding that a model said to be present, and whether it is."""

    finding: str
    """Its key."""
    score: float
    """Its raw certainty, 0 to 1."""
    right: bool
    lateral: bool = False
    """Whether it was said to be left or right."""
    supported: bool | None = None
    """The verdict of the evidence pass; None if there was none or it can't say."""
    trials: tuple[TrialResult, ...] = ()
    """What the evidence pass did to it."""


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
    """A figure and its 95 % interval; NaN where it can't be told."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if isnan(self.value):
            return "not known"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def bins(scores: Sequence[float], right: Sequence[bool]) -> tuple[Bin, ...]:
    """The findings in bins of equal width; those without any are left out."""
    if not scores:
        return ()
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

    After Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning (2015).

    >>> round(ece([0.9, 0.9, 0.9, 0.9], [True, True, True, False]), 3)
    0.15
    """
    values, _ = _arrays(scores, right)
    return sum(one.count * abs(one.score - one.share) for one in bins(scores, right)) / len(values)


def brier(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Mean squared distance of scores from the truth, 0 at best: unlike `ece` it can't be had for nothing.

    After Brier, Verification of Forecasts Expressed in Terms of Probability (1950).

    >>> round(brier([0.9, 0.6], [True, False]), 3)
    0.185
    """
    values, hits = _arrays(scores, right)
    return float(((values - hits) ** 2).mean())


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
    value = _of(filled, figure)
    drawn = (
        _of([filled[k] for k in rng.integers(0, len(filled), len(filled))], figure) for _ in range(DRAWS)
    )
    known = [one for one in drawn if not isnan(one)] or [value]
    low, high = np.percentile(known, [2.5, 97.5]).tolist()
    return Estimate(value=value, low=low, high=high)


def fit(findings: Sequence[Scored], *, tried: bool) -> Odds:
    """The odds that fit findings best, by Newton's method on the penalised likelihood.

    The terms of single findings, and that of the evidence pass, are pulled towards 0 (normal prior of
    standard deviation `SPREAD`), so what was right a few times is not held to be always right.

    Args:
        findings: What was said, and whether it was right.
        tried: Whether the verdict of the evidence pass counts.

    Raises:
        ValueError: If they are all right or all wrong, from which nothing can be learnt.
    """
    if len({one.right for one in findings}) < 2:
        raise ValueError(f"found {len(findings)} findings of which none is right, or none is wrong")
    keys = sorted({one.finding for one in findings})
    rows = [
        [
            log_odds(one.score),
            1.0,
            *(float(one.finding == key) for key in keys),
            float(tried and one.supported is False),
        ]
        for one in findings
    ]
    design, right = np.array(rows), np.array([one.right for one in findings], np.float64)
    pull = np.diag([1e-3, 1e-3, *[SPREAD**-2] * (len(keys) + 1)])
    terms = np.zeros(design.shape[1])
    terms[0] = 1.0
    for _ in range(STEPS):
        likely = 1 / (1 + np.exp(-np.clip(design @ terms, -30, 30)))
        slope = design.T @ (right - likely) - pull @ terms
        bend = (design * (likely * (1 - likely))[:, None]).T @ design + pull
        step = np.linalg.solve(bend, slope)
        terms = terms + step / max(1.0, float(np.abs(step).max()))
    values = [round(float(one), 4) for one in terms]
    return Odds(
        slope=max(values[0], 0.0),
        intercept=values[1],
        findings=dict(zip(keys, values[2:-1], strict=True)),
        unsupported=values[-1],
    )


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
