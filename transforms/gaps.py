"""What is odd about the places of sorted planes, in words: uneven gaps, missing slices, tilt, overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.geometry import Matrix, unit_normal

SAME_PLACE = 0.01
"""Planes closer than this along the normal, mm, are at one place."""
_MOST_TILT = 35.0
"""Degrees; no gantry tilts further."""


def spacing_notes(matrices: Sequence[Matrix], thickness: float | None = None) -> tuple[str, ...]:
    """What is odd about the places of sorted planes: uneven gaps, tilt, slices thicker than their gaps.

    >>> planes = [np.eye(4) for _ in range(3)]
    >>> for matrix, z in zip(planes, (0, 4, 11)): matrix[2, 3] = z
    >>> spacing_notes(planes)
    ('the slices are unevenly spaced: gaps 4.00 to 7.00 mm',)
    """
    if not matrices:
        return ()
    return place_notes(unit_normal(matrices[0]), np.array([m[:3, 3] for m in matrices]), thickness)


def place_notes(
    normal: NDArray[np.float64], origins: NDArray[np.float64], thickness: float | None = None
) -> tuple[str, ...]:
    """As `spacing_notes`, of sorted planes of one normal whose places are `origins`, shape (planes, 3)."""
    if len(origins) < 2:
        return ()
    notes = []
    gaps = np.diff(origins @ normal)
    narrowest, widest = float(gaps.min()), float(gaps.max())
    if widest < SAME_PLACE:
        return ()
    uneven = widest - narrowest > SAME_PLACE
    if uneven:
        missing = _missing(gaps)
        why = f", as if {missing} slice{'s'[: missing != 1]} were missing" if missing else ""
        notes.append(f"the slices are unevenly spaced: gaps {narrowest:.2f} to {widest:.2f} mm{why}")
    way = origins[-1] - origins[0]
    length = math.hypot(*way.tolist())
    straight = float(way @ normal) / length if length else 1.0
    tilt = math.degrees(math.acos(max(-1.0, min(1.0, straight))))
    if tilt > 0.5:
        why = "gantry tilt" if tilt < _MOST_TILT else "more than a gantry tilts: are the positions right?"
        notes.append(f"the stack is sheared by {tilt:.1f} degrees ({why}); each slice keeps its own place")
    middle = float(np.median(gaps))
    if thickness is not None and not uneven and abs(thickness - middle) > 0.05 * middle:
        what = "they overlap" if thickness > middle else "what lies between was not imaged"
        notes.append(f"the slices are {thickness:g} mm thick every {middle:.2f} mm: {what}")
    return tuple(notes)


def _missing(gaps: NDArray[np.float64]) -> int:
    """How many slices seem to be missing where gaps are multiples of the usual one; 0 where they are not."""
    usual = float(np.median(gaps))
    steps = np.rint(gaps / usual) if usual > 0 else gaps
    regular = steps.min() >= 1 and np.abs(gaps - steps * usual).max() < 0.05 * usual
    missing = int(steps.sum()) - len(gaps)
    return missing if regular and missing <= len(gaps) else 0
