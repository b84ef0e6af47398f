"""A model's reply checked and turned into findings whose place is known."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from medmllm_plugin import codes
from medmllm_plugin.findings import Box, Change, Finding, Measurement, Severity, Side, Status
from medmllm_plugin.geometry import apply
from medmllm_plugin.models import Model, Reply
from medmllm_plugin.report import Sentence
from medmllm_plugin.resampled import Bounds, Resampled
from medmllm_plugin.slice import Inset, Slice
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.source import ImageRef


class UnusableReplyError(ValueError):
    """Why a reply can't be used, in words that a model can be told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """What a reply says."""

    findings: tuple[Finding, ...]
    narrative: tuple[Sentence, ...]
    impression: tuple[str, ...]
    notes: tuple[str, ...]
    """What was left out of the reply, and why."""


def parse(reply: Reply, *, schema: dict[str, Any], slices: SliceSet, model: Model) -> Parsed:
    """Findings, narrative and impression of a reply.

    Args:
        reply: As the model gave it.
        schema: What it was asked to satisfy (`findings.reply_schema`).
        slices: The pictures it was shown.
        model: Whose convention its boxes have.

    Raises:
        UnusableReplyError: If it is not JSON, breaks the schema, or contradicts itself (a side that its site
            can't have, a finding that can't be where it says).
    """
    data = _checked(reply.text, schema)
    notes: list[str] = []
    marked = sorted({int(number) for number in data["abnormal_pictures"]})
    if marked and all(said["status"] == Status.ABSENT for said in data["findings"]):
        numbers = ", ".join(map(str, marked))
        notes.append(
            f"the model marked pictures as abnormal ({numbers}) but reported no finding that is there"
        )
    certainties = _certainties(reply, len(data["findings"]))
    findings = []
    for index, said in enumerate(data["findings"]):
        findings.append(
            _finding(index, said, slices=slices, model=model, certainty=certainties[index], notes=notes)
        )
    return Parsed(
        findings=tuple(findings),
        narrative=tuple(
            Sentence(sentence=one.sentence, images=one.images, pictures=one.pictures) for one in findings
        ),
        impression=tuple(_one_line(text, "the impression") for text in data["impression"]),
        notes=tuple(notes),
    )


def _checked(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    import jsonschema

    try:
        data = json.loads(text)
    except ValueError as error:
        raise UnusableReplyError(f"it is not JSON ({error}).") from error
    except RecursionError as error:
        raise UnusableReplyError("it is not JSON that can be read (nested too deeply).") from error
    errors = jsonschema.Draft202012Validator(schema).iter_errors(data)
    worst = jsonschema.exceptions.best_match(errors)
    if worst is not None:
        raise UnusableReplyError(f"at {worst.json_path} {worst.message[:300]}.")
    result: dict[str, Any] = data
    return result


def _finding(
    index: int,
    said: dict[str, Any],
    *,
    slices: SliceSet,
    model: Model,
    certainty: float | None,
    notes: list[str],
) -> Finding:
    finding, site = said["finding"], said["site"]
    label = f"finding {index + 1} ({codes.finding(finding).words})"
    if not codes.site_allowed(finding, site):
        raise UnusableReplyError(f"{label} can't be at the site {site}.")
    side = _side(said, label, notes)
    numbers = sorted({int(number) for number in said["pictures"]})
    absent = said["status"] == Status.ABSENT
    box = _box(said.get("box"), label, absent=absent, slices=slices, model=model, notes=notes)
    if box is not None and box.picture not in numbers:
        numbers = sorted({*numbers, box.picture})
    center, size = (None, None) if box is None else _measured(*slices.picture(box.picture).showing(box))
    return Finding(
        finding=finding,
        site=site,
        side=side,
        status=Status(said["status"]),
        sentence=_one_line(said["sentence"], f"the sentence of {label}"),
        images=_images(slices, numbers, box),
        pictures=tuple(numbers),
        tracking_uid=_tracking_uid(slices, index, finding, site, side, numbers),
        certainty=certainty,
        box=box,
        center_mm=center,
        size_mm=size,
        measurements=() if size is None else (Measurement(code="long_axis", value=size, unit="mm"),),
        severity=None if said["severity"] is None else Severity(said["severity"]),
        change=None if said.get("change") is None else Change(said["change"]),
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


def _box(
    said: dict[str, Any] | None, label: str, *, absent: bool, slices: SliceSet, model: Model, notes: list[str]
) -> Box | None:
    if said is None:
        return None
    if absent:
        notes.append(f"{label}: said to be absent, so its box was left out")
        return None
    number = int(said["picture"])
    one = slices.picture(number)
    rows, columns = one.pixels.shape[:2]
    left, top, right, bottom = model.box_to_picture(tuple(said["bbox_2d"]), rows=rows, columns=columns)
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


def _certainties(reply: Reply, count: int) -> list[float | None]:
    """For each finding the joint probability that the model gave to its finding, site, side and status.

    It is the product over the tokens from the value of `finding` to the value of `status`; None where the
    model gave no probabilities or the reply doesn't say these in that order.
    """
    if not reply.token_probabilities:
        return [None] * count
    spans = list(_spans(reply.text))
    if len(spans) != count:
        return [None] * count
    ends, at = [], 0
    for text in reply.token_texts:
        at += len(text)
        ends.append(at)
    starts = [0, *ends[:-1]]
    return [
        round(
            prod(
                probability
                for start, end, probability in zip(starts, ends, reply.token_probabilities, strict=True)
                if end > first and start < last
            ),
            4,
        )
        for first, last in spans
    ]


def _spans(text: str) -> Iterator[tuple[int, int]]:
    key = r'"{}"\s*:\s*"([^"]*)"'
    pattern = key.format("finding") + r"(?:[^{}\[\]]*?)" + key.format("status")
    for match in re.finditer(pattern, text):
        yield match.start(1), match.end(2)


def _tracking_uid(
    slices: SliceSet, index: int, finding: str, site: str, side: Side, numbers: list[int]
) -> str:
    """The same for the same finding of the same reading, so a second run makes the same report."""
    study = slices.study
    key = [study.study_instance_uid, study.series_instance_uid, index, finding, site, side.value, numbers]
    first = slices.slices[0].source.to_json()
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, json.dumps([key, first])).int}"


def _one_line(text: str, what: str) -> str:
    line = " ".join(text.split())
    if not line:
        raise UnusableReplyError(f"{what} is blank.")
    if not line.isascii() and re.search("[\ud800-\udfff]", line):
        raise UnusableReplyError(f"{what} has half a character (a lone surrogate).")
    return line
