"""Images of one direction that were not taken together, though one series holds them.

Two fields of view at the same levels (both hips, each by itself), two acquisitions of which one lies between
the slices of the other: sorted by position alone they would make one stack of two things.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.geometry import Matrix, unit_normal

BETWEEN = (
    *("field of view", "stack", "b-value", "echo number", "echo time"),
    *("temporal position", "acquisition number"),
)
"""What tells images apart that lie between one another, in the order in which it is tried."""
BETWEEN_KEYWORDS = (
    *("StackID", "DiffusionBValue", "EchoNumbers", "EchoTime", "EffectiveEchoTime"),
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "AcquisitionNumber"),
)
"""The attributes of `BETWEEN`."""
_SAME_FIELD = 2.0
"""Fields of view whose centres are closer than this in the plane, mm, are one."""
_MOST_FIELDS = 8
"""Slices with more centres than this are tilted or turned about."""
_FEWEST = 2
"""Fewer images than this are no stack of their own."""


def lie_between(labels: Sequence[Hashable]) -> bool:
    """Whether things come back after others came between.

    Args:
        labels: What each image is of, by rising position.

    >>> lie_between("aaabbb"), lie_between("aabab"), lie_between("abc")
    (False, True, False)
    """
    runs = 1 + sum(a != b for a, b in pairwise(labels))
    return runs > len(set(labels))


def are_stacks(labels: Sequence[Hashable]) -> bool:
    """Whether images that lie between one another are stacks, each of several images.

    >>> are_stacks("ababab"), are_stacks("aabaa"), are_stacks("aabb")
    (True, False, False)
    """
    return lie_between(labels) and min(Counter(labels).values()) >= _FEWEST


def fields_of_view(matrices: Sequence[Matrix], *, rows: int, columns: int) -> list[str]:
    """For each parallel plane the field of view that it belongs to, by its centre in the plane.

    Args:
        matrices: Shape (4, 4) each: (column, row, 0, 1) to LPS mm.
        rows: Rows of each image.
        columns: Columns of each image.

    Returns:
        The centre of each field in words, such as `L 70 A 12` (mm from the origin); empty for all if there is
        one field, or if the fields are not stacks (gantry tilt moves each slice a little).
    """
    places = _in_plane(matrices, rows=rows, columns=columns)
    firsts: list[int] = []
    numbers = []
    for k, place in enumerate(places):
        near = (n for n, f in enumerate(firsts) if np.abs(places[f] - place).max() < _SAME_FIELD)
        number = next(near, len(firsts))
        if number == len(firsts):
            firsts.append(k)
            if len(firsts) > _MOST_FIELDS:
                return [""] * len(places)
        numbers.append(number)
    if len(firsts) < 2 or min(Counter(numbers).values()) < _FEWEST:
        return [""] * len(places)
    return [_words(places[firsts[number]]) for number in numbers]


def jumps(origins: NDArray[np.float64], normal: NDArray[np.float64]) -> bool:
    """Whether sorted planes move sideways by more than they move on: no gantry tilts so far.

    Args:
        origins: Shape (planes, 3), LPS mm, by rising position along the normal.
        normal: Shape (3,).
    """
    steps = np.diff(origins, axis=0)
    along = steps @ normal
    sideways = np.linalg.norm(steps - along[:, None] * normal, axis=1)
    return bool((sideways > np.maximum(along, _SAME_FIELD)).any())


def _in_plane(matrices: Sequence[Matrix], *, rows: int, columns: int) -> NDArray[np.float64]:
    """Shape (planes, 3): the centre of each without what lies along the normal, LPS mm."""
    centre = np.array([(columns - 1) / 2, (rows - 1) / 2, 0, 1])
    normal = unit_normal(matrices[0])
    centres = np.array([(matrix @ centre)[:3] for matrix in matrices])
    return np.asarray(centres - (centres @ normal)[:, None] * normal)


def _words(place: NDArray[np.float64]) -> str:
    letters = zip(map(float, place), ("LR", "PA", "SI"), strict=True)
    words = [f"{pair[value < 0]} {abs(value):.0f}" for value, pair in letters if abs(value) >= 0.5]
    return " ".join(words) or "0"
