"""Where a finding is: what a model said, checked and mapped back to images and millimetres."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

import numpy as np

from medmllm_plugin import codes
from medmllm_plugin.findings import (
    Box,
    Change,
    Finding,
    Measurement,
    Severity,
    Side,
    Status,
    StatusProbabilities,
)
from medmllm_plugin.geometry import apply
from medmllm_plugin.models import Model
from medmllm_plugin.request import Request
from medmllm_plugin.resampled import Bounds, Resampled
from medmllm_plugin.slice import Inset, Slice
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.source import ImageRef


class UnusableReplyError(ValueError):
    """Why a reply can't be used, in words that a model can be told."""


def finding_of(
    index: int,
    said: dict[str, Any],
    *,
    request: Request,
    model: Model,
    certainty: float | None,
    probabilities: StatusProbabilities | None,
    notes: list[str],
) -> Finding:
    """A finding as it was said, with the images and the place that it is about.

    Args:
        index: Which it is of the reply, from 0.
        said: An item of `findings` of a reply that satisfies its schema.
        request: What was asked.
        model: Whose convention its box has.
        certainty: How probable it was to the model, see `token_odds.certainties`.
        probabilities: Of its status.
        notes: Gets what was left out, and why.

    Raises:
        UnusableReplyError: If it contradicts itself.
    """
    finding, site, slices = said["finding"], said["site"], request.slices
    label = f"finding {index + 1} ({codes.finding(finding).words})"
    if not codes.site_allowed(finding, site):
        raise UnusableReplyError(f"{label} can't be at the site {site}.")
    side = _side(said, label, notes)
    numbers = sorted({int(number) for number in said["pictures"]})
    status = Status(said["status"])
    box = None
    if said.get("box") is not None:
        if status is Status.ABSENT:
            notes.append(f"{label}: said to be absent, so its box was left out")
        else:
            box = box_of(said["box"], label, slices=slices, model=model, notes=notes)
    if box is not None and box.picture not in numbers:
        numbers = sorted({*numbers, box.picture})
    if not numbers:
        notes.append(f"{label}: the model named no picture that shows it")
    severity = None if said["severity"] is None else Severity(said["severity"])
    if severity is not None and status is Status.ABSENT:
        notes.append(f"{label}: said to be absent, so its severity ({severity}) was left out")
        severity = None
    change, before = _change(said, label, status, notes), _before(said, request)
    center, size = (None, None) if box is None else _measured(*slices.picture(box.picture).showing(box))
    return Finding(
        finding=finding,
        site=site,
        side=side,
        status=status,
        sentence=one_line(said["sentence"], f"the sentence of {label}"),
        images=_images(slices, numbers, box),
        pictures=tuple(numbers),
        tracking_uid=_tracking_uid(slices, index, finding, site, side, numbers),
        certainty=certainty,
        probabilities=probabilities,
        box=box,
        center_mm=center,
        size_mm=size,
        measurements=() if size is None else (Measurement(code="long_axis", value=size, unit="mm"),),
        severity=severity,
        change=change,
        prior_pictures=tuple(number for number, _ in before),
        prior_images=tuple(dict.fromkeys(image for _, one in before for image in one.images)),
    )


def box_of(
    said: dict[str, Any], label: str, *, slices: SliceSet, model: Model, notes: list[str]
) -> Box | None:
    """A box as it was drawn, on the image that it lies on; None, with a note, if it lies on none.

    Args:
        said: With `picture`, its number, and `bbox_2d` by the model's convention.
        label: What it is a box of, for notes.
        slices: The pictures of the study.
        model: Whose convention it has.
        notes: Gets what was left out, and why.
    """
    number = int(said["picture"])
    one = slices.picture(number)
    rows, columns = one.pixels.shape[:2]
    left, top, right, bottom = model.box_to_picture(tuple(said["bbox_2d"]), rows=rows, columns=columns)
    if left > right or top > bottom:
        notes.append(f"{label}: its box {said['bbox_2d']} gives its corners the other way round")
    left, right = max(0.0, min(left, right)), min(float(columns), max(left, right))
    top, bottom = max(0.0, min(top, bottom)), min(float(rows), max(top, bottom))
    if right - left < 0.5 or bottom - top < 0.5:
        notes.append(f"{label}: its box {said['bbox_2d']} is empty or outside the picture and was left out")
        return None
    drawn = (left, top, right, bottom)
    outlines = one.outlines(drawn)
    inset = one.inset_of(drawn)
    if inset is None or not outlines:
        notes.append(f"{label}: its box {said['bbox_2d']} lies outside of the images and was left out")
        return None
    if sum(other.meets(drawn) for other in one.insets) > 1:
        notes.append(
            f"{label}: its box {said['bbox_2d']} lies over several slices of picture {number} and was cut to "
            "the one in which its centre lies"
        )
    on = outlines[0]
    return Box(
        picture=number,
        image=on.image,
        column_min=on.column_min,
        row_min=on.row_min,
        column_max=on.column_max,
        row_max=on.row_max,
        in_picture=_cut_to_plane(inset, drawn) if isinstance(inset.shown.source, Resampled) else None,
    )


def _side(said: dict[str, Any], label: str, notes: list[str]) -> Side:
    """The side said, if its site can have it; a site without sides loses it, a contradiction is refused."""
    side, site = Side(said["side"]), codes.site(said["site"])
    if side.value in site.allowed_sides:
        return side
    if site.sides in (codes.Sides.UNPAIRED, codes.Sides.MIDLINE):
        notes.append(f"{label}: the model said {side.value}, left out because {site.words} has no sides")
        return Side.NONE
    raise UnusableReplyError(f"{label} is said to be {side.value}, which {site.words} can't be.")


def _change(said: dict[str, Any], label: str, status: Status, notes: list[str]) -> Change | None:
    """The change since an earlier study, if it fits the status."""
    if said.get("change") is None:
        return None
    change = Change(said["change"])
    gone = change is Change.RESOLVED
    if gone != (status is Status.ABSENT) and (gone or change is not Change.UNCHANGED):
        raise UnusableReplyError(f"{label} is said to be {change.value} and {status.value}, which can't be.")
    if change is not Change.NEW and not said.get("prior_pictures"):
        notes.append(f"{label}: said to be {change.value}, but no picture of the earlier study is named")
    return change


def _before(said: dict[str, Any], request: Request) -> list[tuple[int, Slice]]:
    """The pictures of earlier studies that it cites, rising, each with its number."""
    numbers = {int(number) for number in said.get("prior_pictures", ())}
    return [(number, one) for number, _, one in request.numbered() if number in numbers]


def _cut_to_plane(inset: Inset, drawn: Bounds) -> Bounds:
    """What of a box in a picture lies on the plane of a slice in it, for a picture may be padded."""
    column_min, row_min, column_max, row_max = inset.shown.box_in_source(inset.from_picture(drawn))
    return inset.to_picture(
        inset.shown.box_from_source(
            column_min=column_min, row_min=row_min, column_max=column_max, row_max=row_max
        )
    )


def _images(slices: SliceSet, numbers: list[int], box: Box | None) -> tuple[ImageRef, ...]:
    """The images that a finding cites.

    Of its pictures all, but of a montage that its box is drawn in only the slice with the box. Where that is
    drawn in a reformat or slab: the images that the box passes through, also when it is moved straight
    through the patient to the other pictures cited.
    """
    if box is None:
        return tuple(dict.fromkeys(image for number in numbers for image in slices.picture(number).images))
    boxed, bounds = slices.picture(box.picture).showing(box)
    if box.in_picture is None:
        shown = [boxed if number == box.picture else slices.picture(number) for number in numbers]
        return tuple(dict.fromkeys(image for one in shown for image in one.images))
    others = [number for number in numbers if number != box.picture]
    shown = [boxed, *(inset.shown for number in others for inset in slices.picture(number).insets)]
    return tuple(dict.fromkeys(on.image for one in shown for on in one.outlines(_moved(bounds, boxed, one))))


def _moved(bounds: Bounds, one: Slice, other: Slice) -> Bounds:
    """A box of a slice moved straight through the patient to another one; both have a place there."""
    assert one.to_patient is not None
    assert other.to_patient is not None
    (left, top), (right, bottom) = np.reshape(bounds, (2, 2)) - 0.5
    corners = apply(one.to_patient, [(left, top, 0.0), (right, bottom, 0.0)])
    there = apply(np.linalg.inv(other.to_patient), corners)[:, :2] + 0.5
    low, high = there.min(axis=0), there.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _measured(one: Slice, bounds: Bounds) -> tuple[tuple[float, float, float] | None, float | None]:
    """Centre (LPS mm) and longer side (mm) of a box of a slice; None without a place in the patient."""
    if one.to_patient is None:
        return None, None
    left, top, right, bottom = bounds
    xy = np.array([(left, top), (right, top), (left, bottom)]) - 0.5
    placed = apply(one.to_patient, np.column_stack([xy, np.zeros(3)]))
    middle = (placed[1] + placed[2]) / 2
    size = max(float(np.linalg.norm(placed[k] - placed[0])) for k in (1, 2))
    x, y, z = (round(float(v), 2) for v in middle)
    return (x, y, z), round(size, 1)


def _tracking_uid(
    slices: SliceSet, index: int, finding: str, site: str, side: Side, numbers: list[int]
) -> str:
    """The same for the same finding of the same reading, so a second run makes the same report."""
    study = slices.study
    key = [study.study_instance_uid, study.series_instance_uid, index, finding, site, side.value, numbers]
    first = slices.slices[0].source.to_json()
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([key, first])).int}"


def one_line(text: str, what: str) -> str:
    """Words on one line.

    Args:
        text: As they were said.
        what: What they are, for the error.

    Raises:
        UnusableReplyError: If they are blank or can't be written.
    """
    line = " ".join(text.split())
    if not line:
        raise UnusableReplyError(f"{what} is blank.")
    if not line.isascii() and re.search("[\ud800-\udfff]", line):
        raise UnusableReplyError(f"{what} has half a character (a lone surrogate).")
    return line
