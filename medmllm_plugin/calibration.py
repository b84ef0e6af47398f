"""What a model's certainties are worth: from the score of its tokens to how often it was right.

It is fitted on studies whose truth is known, see `medmllm calibrate`, and kept in a small JSON file beside
the weights, which the model's card names. It holds for those weights and studies like those, no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import exp, isfinite, log
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import SettingsError

SCHEMA = "medmllm-calibration/1"

EXTREME = 0.001
"""Scores are taken as no nearer to 0 and 1 than this: the odds of what lies beyond mean nothing."""


def log_odds(score: float) -> float:
    """The logarithm of the odds of a raw score.

    >>> round(log_odds(0.9), 3), round(log_odds(1.0), 3)
    (2.197, 6.907)
    """
    held = min(max(score, EXTREME), 1 - EXTREME)
    return log(held / (1 - held))


@dataclass(frozen=True, kw_only=True, slots=True)
class Odds:
    """The odds that a finding is there, as a sum of what is known of it (logistic regression).

    After Platt, Probabilistic Outputs for Support Vector Machines (1999), with a term for each finding.

    >>> Odds(slope=1.0, intercept=0.0).probability("nodule", 0.7)
    0.7
    """

    slope: float
    """What a step in the log odds of the raw score adds, not below 0."""
    intercept: float
    findings: Mapping[str, float] = field(default_factory=dict)
    """What it adds that it is this finding, by key."""
    unsupported: float = 0.0
    """What it adds that the evidence pass did not find it image-supported."""

    def __post_init__(self) -> None:
        terms = (self.slope, self.intercept, self.unsupported, *self.findings.values())
        if not all(map(isfinite, terms)) or self.slope < 0:
            raise ValueError("the terms of odds are numbers, and the slope is not below 0")

    def probability(self, finding: str, score: float, *, supported: bool | None = None) -> float:
        """How probable it is that a finding of this raw score is there, 0 to 1."""
        sum_ = self.intercept + self.slope * log_odds(score) + self.findings.get(finding, 0.0)
        sum_ += self.unsupported if supported is False else 0.0
        return round(1 / (1 + exp(-min(max(sum_, -30.0), 30.0))), 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What the certainties of one model were worth on studies whose truth is known."""

    plain: Odds
    """Of findings as they are read."""
    tried: Odds | None = None
    """Of findings that the evidence pass has judged; None if that was not measured."""
    abstain_below: float = 0.5
    """A finding below this probability is reported as indeterminate."""
    basis: str = ""
    """In words, on what it was measured: it holds for studies like those."""
    weights_sha256: str = ""
    """Of the model that it was measured with; empty if that has none."""

    def __post_init__(self) -> None:
        if not 0 <= self.abstain_below <= 1:
            raise ValueError(f"abstain_below is 0 to 1, got {self.abstain_below}")

    def probability(self, finding: str, score: float, *, supported: bool | None = None) -> float:
        """How probable it is that a finding is there, 0 to 1.

        Args:
            finding: Its key.
            score: Its raw certainty.
            supported: The verdict of the evidence pass; None if there is none.
        """
        odds = self.plain if supported is None or self.tried is None else self.tried
        return odds.probability(finding, score, supported=supported)

    def to_json(self) -> dict[str, Any]:
        """The content of `calibration.json`."""
        return {
            "schema": SCHEMA,
            "basis": self.basis,
            "weights_sha256": self.weights_sha256,
            "abstain_below": self.abstain_below,
            "plain": asdict(self.plain),
            "tried": None if self.tried is None else asdict(self.tried),
        }

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """The calibration that a file holds.

        Raises:
            SettingsError: If it can't be read or holds none.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or content.get("schema") != SCHEMA:
                raise ValueError(f"it is no {SCHEMA}")
            return cls(
                plain=_odds(content["plain"]),
                tried=None if content["tried"] is None else _odds(content["tried"]),
                abstain_below=float(content["abstain_below"]),
                basis=str(content["basis"]),
                weights_sha256=str(content["weights_sha256"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise SettingsError(
                f"{path}: found no usable calibration ({why}), expected what medmllm calibrate writes; "
                "run it again"
            ) from error


def _odds(content: Any) -> Odds:
    return Odds(
        slope=float(content["slope"]),
        intercept=float(content["intercept"]),
        findings={str(key): float(term) for key, term in content["findings"].items()},
        unsupported=float(content["unsupported"]),
    )
