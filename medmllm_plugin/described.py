"""What is known of the pictures of a slice set, in words: computed and coded facts, no free text of headers.

Free text of a header could instruct the model; so a modality is told by its letters if it is one that DICOM
defines, planes and directions are computed, and nothing else of a header is told at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.geometry import apply, orientation_letters, plane_name, unit_normal
from medmllm_plugin.quoting import plain
from medmllm_plugin.slice import Montage, Slice
from medmllm_plugin.sliceset import SliceSet

MODALITIES = frozenset(
    (
        *("AR", "BI", "CR", "CT", "DG", "DX", "ECG", "ES", "EPS", "GM", "IO", "IVOCT", "IVUS", "KER", "LP"),
        *("LS", "MA", "MG", "MR", "MS", "NM", "OCT", "OP", "OPM", "OPT", "OT", "PA", "PT", "PX", "RF", "RG"),
        *("RTIMAGE", "SM", "TG", "US", "VF", "XA", "XC"),
    )
)
"""Defined terms of Modality (0008,0060) that are images (PS3.3 C.7.3.1.1.1)."""

Words = Mapping[str, Any]
"""The words that all tasks share, in a language; see `tasks.common_words`."""


def describe(slices: SliceSet, words: Words, *, first: int = 1, alone: bool = True) -> str:
    """The pictures of a set: modality, plane, order, which way the patient lies in them, grey levels.

    Where they are of several series, or of several planes, each run of like pictures is told by itself.

    Args:
        slices: The pictures.
        words: In which words.
        first: The number of the first of them in the prompt.
        alone: Whether they are all that is shown.
    """
    runs = _runs(slices)
    told = [
        _of_run(run, words, slices, first=first + run.start, alone=alone and len(runs) == 1) for run in runs
    ]
    return "\n".join(told)


def earlier(slices: SliceSet, words: Words) -> str:
    """The line that stands before the pictures of an earlier study."""
    days = slices.days_before
    if days is None or days < 1:
        before = ""
    elif days < 60:
        before = words["days"].format(count=days)
    else:
        before = words["months"].format(count=round(days / 30.44))
    line: str = words["prior"].format(before=before)
    return line


def seen_at(slices: SliceSet, center_mm: Sequence[float]) -> tuple[int, float, float]:
    """The picture nearest to a point in the patient, and where in it the point lies.

    Args:
        slices: Pictures that are placed, none of them a montage.
        center_mm: The point, LPS mm.

    Returns:
        The picture's number, from 1, and the parts of its width from the left and of its height from the top.

    Raises:
        GeometryError: If no picture is placed.
    """
    found: list[tuple[float, int, float, float]] = []
    for number, one in enumerate(slices.slices, 1):
        if one.to_patient is not None:
            column, row, off = apply(np.linalg.inv(one.to_patient), center_mm)
            rows, columns = one.pixels.shape[:2]
            found.append((round(abs(off), 3), number, (column + 0.5) / columns, (row + 0.5) / rows))
    if not found:
        raise GeometryError("a place is asked about, but the pictures say no place in the patient")
    _, number, across, down = min(found)
    return number, float(across), float(down)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Run:
    """Pictures in a row that the same words are true of."""

    start: int
    """Index of the first among the set's."""
    pictures: tuple[Slice, ...]
    modality: str
    series: str
    """What sets their series apart, if anything."""


def _runs(slices: SliceSet) -> list[_Run]:
    parts = [(part.pictures, part.study.modality, part.words) for part in slices.parts]
    runs, start = [], 0
    for count, modality, series in parts or [(len(slices), slices.study.modality, "")]:
        shown = slices.slices[start : start + count]
        cuts = [0, *(k for k in range(1, len(shown)) if not _alike(shown[k - 1], shown[k])), len(shown)]
        runs += [
            _Run(start=start + low, pictures=shown[low:high], modality=modality, series=series)
            for low, high in pairwise(cuts)
        ]
        start += count
    return runs


def _alike(one: Slice, other: Slice) -> bool:
    """Whether two pictures lie in planes of one name, the same way round."""
    ways = [each.insets[0].shown.to_patient for each in (one, other)]
    if one.edges != other.edges or (ways[0] is None) != (ways[1] is None):
        return False
    return ways[0] is None or ways[1] is None or plane_name(ways[0]) == plane_name(ways[1])


def _of_run(run: _Run, words: Words, slices: SliceSet, *, first: int, alone: bool) -> str:
    pictures, count = run.pictures, len(run.pictures)
    modality = run.modality if run.modality in MODALITIES else "OT"
    series = plain(run.series, longest=40)
    named = f"{modality} ({series})" if series else modality
    if alone:
        text: str = words["one" if count == 1 else "many"].format(count=count, modality=named)
    else:
        numbers = words["picture" if count == 1 else "pictures"].format(first=first, last=first + count - 1)
        text = words["these"].format(pictures=numbers, modality=named)
    text += _lie(pictures, words)
    windows = list(dict.fromkeys(inset.shown.window for one in pictures for inset in one.insets))
    key = "greys" if len(windows) > 1 else "grey"
    text += words[key].format(windows=words["semicolon"].join(windows))
    return text + _laid_out(pictures, words, first=first)


def _lie(pictures: Sequence[Slice], words: Words) -> str:
    """Plane, order and edges of like pictures."""
    shown = [inset.shown for one in pictures for inset in one.insets]
    text, start = "", shown[0].to_patient
    if start is not None:
        *oblique, name = plane_name(start).split()
        text = words["oblique" if oblique else "straight"].format(plane=words["names"][name])
        way = _way(shown)
        if way:
            text += words["towards"].format(way=way)
    edges = pictures[0].edges
    if edges:
        what = words["a_slice" if isinstance(pictures[0].source, Montage) else "a_picture"]
        text += words["edges"].format(what=what, right=edges["right"][:1], bottom=edges["bottom"][:1])
    return text


def _way(shown: Sequence[Slice]) -> str:
    """The direction in which the pictures follow each other, one letter; empty if there is none."""
    places = [one.to_patient for one in shown if one.to_patient is not None]
    if len(places) < 2 or len(places) < len(shown):
        return ""
    centres = np.array([place[:3, 3] for place in places])
    whole = centres[-1] - centres[0]
    if np.linalg.norm(whole) <= 1e-3:
        return ""
    steps = np.diff(centres, axis=0) @ unit_normal(places[0])
    if (steps > 1e-3).any() and (steps < -1e-3).any():
        return ""
    return orientation_letters(whole)[:1]


def _laid_out(pictures: Sequence[Slice], words: Words, *, first: int) -> str:
    """Where the slices of montages are; nothing where each picture is a slice."""
    grid = pictures[0].source
    if not isinstance(grid, Montage):
        return ""
    shown, low = [], 1
    for number, one in enumerate(pictures, first):
        high = low + len(one.insets) - 1
        shown.append(words["tile" if low == high else "tiles"].format(number=number, first=low, last=high))
        low = high + 1
    text: str = words["montage"].format(columns=grid.columns, shown=words["comma"].join(shown))
    return text
