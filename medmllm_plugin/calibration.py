"""What a model's certainties are worth: a curve from the score of its tokens to how often it was right.

A curve is fitted on studies whose truth is known, see `medmllm calibrate`, and kept in a small JSON file
beside the weights that the model's card names. It holds for those weights and studies like those, no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from medmllm_plugin.errors import SettingsError

SCHEMA = "medmllm-calibration/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A rising way from a raw score to a probability, straight between its points.

    >>> Curve(scores=(0.2, 0.6), probabilities=(0.1, 0.9)).probability(0.3)
    0.3
    """

    scores: tuple[float, ...]
    """Raw scores, 0 to 1, rising."""
    probabilities: tuple[float, ...]
    """How often findings of that score were right, 0 to 1, not falling. Beyond its ends a curve is level."""

    def __post_init__(self) -> None:
        scores, shares = self.scores, self.probabilities
        if not scores or len(scores) != len(shares):
            raise ValueError(f"a curve has as many probabilities as scores, got {len(scores)}, {len(shares)}")
        if not all(isfinite(one) and 0 <= one <= 1 for one in (*scores, *shares)):
            raise ValueError("scores and probabilities of a curve are 0 to 1")
        if any(a >= b for a, b in zip(scores, scores[1:], strict=False)):
            raise ValueError("scores of a curve rise from point to point")
        if any(a > b for a, b in zip(shares, shares[1:], strict=False)):
            raise ValueError("probabilities of a curve don't fall from point to point")

    def probability(self, score: float) -> float:
        """How often a finding of this score is right."""
        return round(float(np.interp(score, self.scores, self.probabilities)), 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What the certainties of one model were worth on studies whose truth is known."""

    curve: Curve
    """For findings that have no curve of their own."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """By key of the finding, where there were enough."""
    abstain_below: float = 0.5
    """A finding below this probability is reported as indeterminate."""
    basis: str = ""
    """In words, on what it was measured: it holds for studies like those."""
    weights_sha256: str = ""
    """Of the model that it was measured with; empty if that has none."""

    def __post_init__(self) -> None:
        if not 0 <= self.abstain_below <= 1:
            raise ValueError(f"abstain_below is 0 to 1, got {self.abstain_below}")

    def probability(self, finding: str, score: float) -> float:
        """How probable it is that a finding of this raw score is there, 0 to 1."""
        return self.curves.get(finding, self.curve).probability(score)

    def to_json(self) -> dict[str, Any]:
        """The content of `calibration.json`."""
        return {
            "schema": SCHEMA,
            "basis": self.basis,
            "weights_sha256": self.weights_sha256,
            "abstain_below": self.abstain_below,
            "curve": _points(self.curve),
            "curves": {key: _points(curve) for key, curve in self.curves.items()},
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
                curve=_curve(content["curve"]),
                curves={key: _curve(points) for key, points in content["curves"].items()},
                abstain_below=float(content["abstain_below"]),
                basis=str(content["basis"]),
                weights_sha256=str(content["weights_sha256"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise SettingsError(
                f"{path}: found no usable calibration ({why}), expected what medmllm calibrate writes; "
                "run it again"
            ) from error


def _points(curve: Curve) -> list[list[float]]:
    return [list(point) for point in zip(curve.scores, curve.probabilities, strict=True)]


def _curve(points: Any) -> Curve:
    scores, probabilities = zip(*points, strict=True)
    return Curve(scores=tuple(map(float, scores)), probabilities=tuple(map(float, probabilities)))
