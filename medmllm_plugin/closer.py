"""Looks at what an overview found once more, from near, and says more exactly where it is.

An overview shows a whole study in few, small pictures: a nodule is a few pixels wide there, and the slice
that it is largest in may not be shown at all. So a model can come with another one for close looks, which is
shown what surrounds a finding, cut out, slice by slice. What a finding is, on which side and how certain,
stays as the overview says it; where it is and how large, is as it was seen from near.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from medmllm_plugin.asking import Answered, ask
from medmllm_plugin.codes import finding as code_of
from medmllm_plugin.errors import GeometryError
from medmllm_plugin.findings import Finding, Status
from medmllm_plugin.models import Cancel, LooksCloser, Model
from medmllm_plugin.place import LARGEST_MM, Place, Triple
from medmllm_plugin.sliceset import SliceSet, joined
from medmllm_plugin.strategies import Looked, Stages, View
from medmllm_plugin.strategies.merging import distance, numbered_on, words

LEAST_MM = 70.0
"""Side of the least that is shown: as far as an overview may be off, on both sides of a small finding."""

WIDER = 2.0
"""How much wider than a finding what is shown is."""

DEEPER_MM = 45.0
"""How much deeper, across the slices."""


def around(center_mm: Triple, size_mm: float) -> Place:
    """What surrounds a finding.

    Args:
        center_mm: Of its box, LPS mm.
        size_mm: The longer side of its box.

    >>> around((10, 20, 300), 20).box
    '-25/-15/267.5/45/55/332.5'
    """
    across = min(max(LEAST_MM, WIDER * size_mm), LARGEST_MM)
    return Place(center_mm=center_mm, size_mm=(across, across, min(size_mm + DEEPER_MM, LARGEST_MM)))


def settings(place: Place, count: int) -> Mapping[str, Any]:
    """Settings of `transforms.slices.SlicePlan` that show a place from near, in at most `count` pictures."""
    return {"count": count, "select": place.selector, "part": place.box, "square": True}


def looked_closer(
    looked: Looked,
    model: Model,
    *,
    view: View | None = None,
    progress: Stages | None = None,
    cancel: Cancel | None = None,
) -> Looked:
    """What came of a look, each finding where a close look sees it.

    A finding that can't be shown from near, or isn't seen there, stays where it was, with a note. All stays
    as it was where the model has nobody for close looks, or there is no volume to make pictures of.

    Args:
        looked: What was read.
        model: Who read it.
        view: Makes more pictures of the same volume.
        progress: Called as tokens go on.
        cancel: Says when to stop.

    Raises:
        ModelError: If the model can't answer.
        CancelledError: If `cancel` said so.
    """
    request = looked.request
    if view is None or not isinstance(model, LooksCloser) or not request.task.whole or request.place:
        return looked
    closer = model.closer(request.slices)
    known = () if closer is None else closer.findings
    wanted = [k for k, one in enumerate(looked.parsed.findings) if one.finding in known and _is_placed(one)]
    if closer is None or not wanted:
        return looked
    count = closer.model.capabilities.pictures
    shown: dict[int, SliceSet] = {}
    for k in wanted:
        with suppress(GeometryError):  # images of two sizes, or none there: said of it below
            shown[k] = view(settings(_around(looked.parsed.findings[k]), count))
    tell = None if progress is None else lambda done, most: progress(2, 2, done, most)
    said = ask(
        [replace(request, slices=one, priors=()) for one in shown.values()],
        closer.model,
        purpose="close look",
        asks=1,
        progress=tell,
        cancel=cancel,
    )
    close = dict(zip(shown, said, strict=True))
    return _together(looked, {k: close.get(k) for k in wanted})


def _is_placed(one: Finding) -> bool:
    return one.status is not Status.ABSENT and one.center_mm is not None and one.size_mm is not None


def _around(one: Finding) -> Place:
    assert one.center_mm is not None
    assert one.size_mm is not None
    return around(one.center_mm, one.size_mm)


def _together(looked: Looked, close: Mapping[int, Answered | None]) -> Looked:
    """The findings of a look, some of them where close looks, by their numbers, saw them.

    Args:
        looked: What was read.
        close: By the number of a finding what was said from near; None where it couldn't be shown.
    """
    findings, notes = list(looked.parsed.findings), []
    sets: list[SliceSet] = [looked.request.slices]
    named = [""]
    for k, answered in close.items():
        one = findings[k]
        if answered is None:
            notes.append(f"{words(one)} can't be shown from near; its place is as the overview says it")
            continue
        seen = _seen(one, () if answered.parsed is None else answered.parsed.findings)
        if seen is None:
            notes.append(f"{words(one)} was not seen from near; its place is as the overview says it")
            continue
        its = numbered_on(seen, sum(map(len, sets)))
        sets.append(answered.request.slices)
        named.append(f"close look at the {code_of(one.finding).words}")
        findings[k] = replace(
            one,
            pictures=its.pictures,
            images=its.images,
            box=its.box,
            center_mm=its.center_mm,
            size_mm=its.size_mm,
            measurements=its.measurements,
        )
    count = len(sets) - 1
    if count:
        told = f"{count} {'finding was' if count == 1 else 'findings were'} looked at from near"
        notes.insert(0, told)
    before, last = looked.heard[:-1], looked.heard[-1:]
    return replace(
        looked,
        parsed=replace(looked.parsed, findings=tuple(findings)),
        request=replace(looked.request, slices=joined(sets, words=named)) if count else looked.request,
        heard=(*before, *(heard for one in close.values() if one is not None for heard in one.heard), *last),
        notes=(*looked.notes, *notes),
    )


def _seen(one: Finding, from_near: Sequence[Finding]) -> Finding | None:
    """Of what was seen from near that which is the finding: of its kind, the nearest."""
    fitting = [
        other
        for other in from_near
        if other.finding == one.finding and other.status is not Status.ABSENT and other.center_mm is not None
    ]
    return min(fitting, key=lambda other: distance(one, other), default=None)
