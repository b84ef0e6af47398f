"""Where the body is, and where only air, padding or noise: a coarse rule on values.

It serves choices (which slices, which part of a slice, which grey levels), never a finding: what is in doubt
counts as body.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEP = 4
"""Every 4th pixel of every 4th row is looked at."""

_AIR_HU = -300.0
"""Between air, -1000 HU, and fat, about -100 HU."""
_NOISE = 0.1
"""Background of MR and PET lies below this part of the way from nothing to the 90th percentile; above that
lie the brightest fat and the hottest tumour, which say nothing of the rest."""
_PADDED = 0.6
"""If so much of all corners has one value, that value is padding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BodyRule:
    """Which values are body: those above a threshold that are not the padding value."""

    above: float
    padding: float | None = None
    """The value of pixels outside of the body, if they all have one."""

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """True where a value is body; shape of the values. What is no number is not."""
        body: NDArray[np.bool_] = values > self.above
        if self.padding is not None:
            body &= values != np.float32(self.padding)
        return body


def body_rule(samples: Sequence[NDArray[np.float32]], *, unit: str) -> BodyRule:
    """The rule for a volume, from coarse samples of its slices.

    Hounsfield units have a known threshold. For other values the background is what is below 10 % of their
    range from 0 (from the lowest if that is negative), and the padding value that the corners share, wherever
    in the range it lies (0 in a z-scored MR).

    Args:
        samples: Modality values of slices, each of shape (rows, columns); what is no number doesn't count.
        unit: `Volume.unit`.

    >>> mr = np.zeros((8, 8), np.float32)
    >>> mr[2:6, 2:6] = 100
    >>> int(body_rule([mr], unit="")(mr).sum())
    16
    """
    if unit == "HU":
        return BodyRule(above=_AIR_HU)
    padding = _padding(samples)
    values = np.concatenate([one.ravel() for one in samples])
    values = values[np.isfinite(values)]
    if padding is not None:
        values = values[values != np.float32(padding)]
    if not len(values):
        return BodyRule(above=-np.inf)
    low, high = (float(v) for v in np.percentile(values, (1, 90)))
    if high == low or (padding is not None and low < padding):
        return BodyRule(above=-np.inf, padding=padding)
    dark = min(low, 0.0) if padding is None else padding
    return BodyRule(above=dark + _NOISE * (high - dark), padding=padding)


def _padding(samples: Sequence[NDArray[np.float32]]) -> float | None:
    """The value that most pixels in the corners have, if one has most."""
    corners = np.concatenate(
        [one[rows, columns].ravel() for one in samples for rows in _ENDS for columns in _ENDS]
    )
    there = corners[np.isfinite(corners)]
    middle = np.median(there) if len(there) else np.nan
    return float(middle) if (corners == np.float32(middle)).mean() >= _PADDED else None


_ENDS = (slice(0, 3), slice(-3, None))
