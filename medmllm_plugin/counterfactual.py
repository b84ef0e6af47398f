"""Pictures changed on purpose, while every word about them is kept: what the evidence pass shows a model.

Each function gives a slice set of as many pictures, numbered as before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.resampled import Source
from medmllm_plugin.slice import Montage, Slice
from medmllm_plugin.sliceset import SliceSet

BESIDE = 1
"""How many slices to each side of those that a finding cites are covered with them: what is seen in one slice
often reaches into the next, and models are not exact about numbers."""

GREY = 128


class Fill(Enum):
    """What a covered picture shows instead."""

    COPY = "the nearest picture that is not covered"
    BLACK = "black"
    GREY = "grey"


def covering(slices: SliceSet, cited: Collection[int]) -> frozenset[int]:
    """The pictures to cover so that nothing of what is cited can be seen any more.

    Those cited, every other picture of the same slices (another window, a larger one), and those beside them
    in the same series. A montage is covered by itself.

    Args:
        slices: The pictures.
        cited: Numbers of pictures, from 1.
    """
    series = list(_series(slices))
    hidden: set[Source | Montage] = set()
    for number in cited:
        source = slices.picture(number).source
        hidden.add(source)
        if not isinstance(source, Montage):
            hidden |= _beside(slices, series, source)
    return frozenset(k for k, one in enumerate(slices.slices, 1) if one.source in hidden)


def covered(slices: SliceSet, numbers: Collection[int], fill: Fill) -> SliceSet | None:
    """The pictures with some covered.

    Returns:
        None if they were to show copies of others and there is none like them that is not covered.
    """
    series = list(_series(slices))
    made = []
    for k, one in enumerate(slices.slices):
        if k + 1 not in numbers:
            made.append(one)
            continue
        if fill is Fill.COPY:
            like = [
                j
                for j, other in enumerate(slices.slices)
                if j + 1 not in numbers
                and (series[j], other.window, other.pixels.shape) == (series[k], one.window, one.pixels.shape)
            ]
            if not like:
                return None
            nearest = min(like, key=lambda j: abs(j - k))
            made.append(replace(one, pixels=slices.slices[nearest].pixels))
        else:
            level = 0 if fill is Fill.BLACK else GREY
            made.append(replace(one, pixels=np.full_like(one.pixels, level)))
    return replace(slices, slices=tuple(made))


def mirrored(slices: SliceSet) -> SliceSet | None:
    """The pictures with the patient's left and right exchanged.

    What is drawn around the image, such as side letters, stays. Of a sagittal series the order is reversed.

    Returns:
        None if it is not known where left and right are, or one picture can't be mirrored by itself.
    """
    made = list(slices.slices)
    across: dict[int, list[int]] = {}
    for k, (one, series) in enumerate(zip(slices.slices, _series(slices), strict=True)):
        axis = _left_right(one)
        if axis is None:
            return None
        if axis == "normal":
            across.setdefault(series, []).append(k)
        else:
            made[k] = replace(one, pixels=_flipped(one, rows=axis == "rows"))
    for ks in across.values():
        if len(ks) < 2 or len({slices.slices[k].pixels.shape for k in ks}) > 1:
            return None
        for k, other in zip(ks, reversed(ks), strict=True):
            made[k] = replace(made[k], pixels=slices.slices[other].pixels)
    return replace(slices, slices=tuple(made))


def shifted(slices: SliceSet, *, right: float, down: float) -> SliceSet:
    """The pictures moved, edges repeated; the way back to image and patient is moved with them.

    Args:
        slices: The pictures.
        right: How far, as a part of a picture's longer side; made whole pixels, not 0 unless it is.
        down: The same.
    """
    return replace(slices, slices=tuple(_shifted(one, right, down) for one in slices.slices))


def shuffled(slices: SliceSet, *, seed: int) -> SliceSet | None:
    """The pictures in another order, within their series.

    Returns:
        None if there are not two that could change places.
    """
    rng = np.random.default_rng([seed, len(slices)])
    groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for k, (one, series) in enumerate(zip(slices.slices, _series(slices), strict=True)):
        groups.setdefault((series, one.pixels.shape), []).append(k)
    made = list(slices.slices)
    for ks in groups.values():
        for k, other in zip(ks, rng.permutation(ks).tolist(), strict=True):
            made[k] = replace(made[k], pixels=slices.slices[other].pixels)
    if all(one.pixels is other.pixels for one, other in zip(made, slices.slices, strict=True)):
        return None
    return replace(slices, slices=tuple(made))


def only(slices: SliceSet, numbers: Sequence[int]) -> SliceSet:
    """Some of the pictures, in their order; `numbers` rise from 1."""
    parts, first = [], 1
    for part in slices.parts:
        kept = sum(first <= number < first + part.pictures for number in numbers)
        first += part.pictures
        if kept:
            parts.append(replace(part, pictures=kept))
    return replace(
        slices,
        slices=tuple(slices.picture(number) for number in numbers),
        parts=tuple(parts) if len(parts) > 1 else (),
    )


def _series(slices: SliceSet) -> Iterator[int]:
    """For each picture the number of the series it is of, from 0."""
    if not slices.parts:
        yield from (0 for _ in slices.slices)
    for number, part in enumerate(slices.parts):
        yield from (number for _ in range(part.pictures))


def _beside(slices: SliceSet, series: Sequence[int], source: Source) -> set[Source | Montage]:
    """The slices next to every picture of a slice, to both sides, other windows of itself passed over."""
    found: set[Source | Montage] = set()
    every = slices.slices
    for k, one in enumerate(every):
        if one.source != source:
            continue
        for step in (-1, 1):
            seen: list[Source | Montage] = [source]
            j = k + step
            while 0 <= j < len(every) and series[j] == series[k] and len(seen) <= BESIDE:
                if every[j].source not in seen:
                    seen.append(every[j].source)
                j += step
            found |= set(seen)
    return found


def _left_right(one: Slice) -> str | None:
    """Along what the patient's left and right lie: `columns`, `rows`, `normal`; None if that is not known."""
    edges = one.edges
    if not edges:
        return None
    right, down = edges["right"][:1], edges["bottom"][:1]
    if right in "LR":
        return "columns"
    return "rows" if down in "LR" else "normal"


def _flipped(one: Slice, *, rows: bool) -> NDArray[np.uint8]:
    """The picture with columns, or rows, of each image in it reversed; of what is around it nothing."""
    made = np.array(one.pixels)
    for inset in one.insets:
        shown = inset.shown
        height, width = shown.source_shape
        bounds = shown.box_from_source(column_min=0, row_min=0, column_max=width, row_max=height)
        left, top, right, bottom = (round(edge) for edge in inset.to_picture(bounds))
        limits = inset.bounds
        left, top = max(left, int(limits[0])), max(top, int(limits[1]))
        right, bottom = min(right, int(limits[2])), min(bottom, int(limits[3]))
        part = made[top:bottom, left:right]
        made[top:bottom, left:right] = (part[::-1] if rows else part[:, ::-1]).copy()
    return made


def _shifted(one: Slice, right: float, down: float) -> Slice:
    rows, columns = one.pixels.shape[:2]
    dx, dy = (_pixels(part, max(rows, columns)) for part in (right, down))
    at_rows = np.clip(np.arange(rows) - dy, 0, rows - 1)
    at_columns = np.clip(np.arange(columns) - dx, 0, columns - 1)
    pixels = one.pixels[at_rows][:, at_columns]
    if isinstance(one.source, Montage):
        return replace(one, pixels=pixels)
    back = np.array([[1.0, 0, -dx], [0, 1, -dy], [0, 0, 1]])
    lifted = np.eye(4)
    lifted[:2, 3] = back[:2, 2]
    return replace(
        one,
        pixels=pixels,
        to_source=one.to_source @ back,
        to_patient=None if one.to_patient is None else one.to_patient @ lifted,
    )


def _pixels(part: float, side: int) -> int:
    whole = round(part * side)
    return whole or (1 if part > 0 else -1 if part < 0 else 0)
