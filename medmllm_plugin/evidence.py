"""Asks again with the pictures changed: a finding must go when its pictures are covered, and stay otherwise.

A model can say what studies like this usually show, without looking. So each finding is put to trials:

- What it cites is covered, by copies of other pictures, and if it is still said there, by black. It must go.
- The pictures are moved by a few pixels, twice, and the slices between those shown are shown. It must stay.
- Left and right are exchanged. It must change sides.

`trials.supported` says what follows. What is not image-supported becomes indeterminate; nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medmllm_plugin import counterfactual
from medmllm_plugin.asking import Answered, ask
from medmllm_plugin.counterfactual import Fill
from medmllm_plugin.findings import Effect, Finding, Status, Trial, TrialResult
from medmllm_plugin.models import Cancel, Model
from medmllm_plugin.prompting import prompt_for
from medmllm_plugin.report import Heard
from medmllm_plugin.request import Request
from medmllm_plugin.slice import Montage
from medmllm_plugin.strategies import Looked, Stages, View
from medmllm_plugin.strategies.merging import words
from medmllm_plugin.trials import Seen, again, effect, lost_by, on_its_side, results, said_again_of, supported

TRIALS = frozenset({Trial.MASKED, Trial.MIRRORED, Trial.SHIFTED, Trial.BETWEEN})
"""What is done unless something else is asked for. Another order of the pictures loses so many true findings
with the model that was measured that it says little."""

SHIFTS = ((0.027, 0.018), (-0.027, 0.009))
"""How far pictures are moved to the right and down, as parts of their longer side."""

MOST_COVERS = 6
"""Findings are covered in so many passes at most; those that cite much the same share one."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Look:
    """One way of asking again."""

    trial: Trial | None
    """None for the pictures as they are."""
    request: Request
    words: str
    covers: frozenset[int] = frozenset()
    """The pictures covered."""


def examine(
    looked: Looked,
    model: Model,
    *,
    view: View | None = None,
    trials: Collection[Trial] = TRIALS,
    progress: Stages | None = None,
    cancel: Cancel | None = None,
) -> Looked:
    """What came of a look, each finding with its trials and whether it is image-supported.

    Findings said to be absent, and those that cite no picture, are left as they are. So is what the model
    doesn't say when it is asked once more about the same pictures, where it was found in another way.

    Args:
        looked: What was read.
        model: Who read it.
        view: Makes the pictures between; without it that trial is left out.
        trials: Which trials to do.
        progress: Called as passes and tokens go on.
        cancel: Says when to stop.

    Raises:
        ModelError: If the model can't answer.
        CancelledError: If `cancel` said so.
    """
    open_ones = [k for k, one in enumerate(looked.parsed.findings) if _can_be_tried(one)]
    if not open_ones:
        return looked
    request, numbers = _within(looked, open_ones, model)
    if request is None:
        note = "evidence: no finding was tried; they cite more pictures than the model looks at together"
        return replace(looked, notes=(*looked.notes, note))
    findings = {k: _renumbered(looked.parsed.findings[k], numbers) for k in open_ones}
    covers = _covers(request, findings) if Trial.MASKED in trials else {}
    looks = [*_control(looked, request, model), *_looks(request, view, trials, looked.request)]
    looks += _covered(request, set(covers.values()), again=False)
    seen = _asked(looks, model, 1, progress, cancel)
    kept = {
        covers[k]
        for k, one in findings.items()
        for said in _said(seen)
        if said.covers and said.covers == covers.get(k)
        if effect(one, said_again_of(one, said)) is Effect.KEPT
    }
    seen += _asked(_covered(request, kept, again=True), model, 2, progress, cancel)
    after, notes = list(looked.parsed.findings), []
    for k, one in findings.items():
        if _in_control(one, seen):
            after[k], why = _judged(
                looked.parsed.findings[k], tuple(results(one, covers.get(k), _said(seen)))
            )
        else:
            why = ["not said when asked once more, so it was not tried"]
        notes += [f"evidence: finding {k + 1} ({words(one)}): {reason}" for reason in why]
    told = f"evidence: asked {len(seen)} more times, with the pictures changed"
    return replace(
        looked,
        parsed=replace(looked.parsed, findings=tuple(after)),
        heard=(*looked.heard[:-1], *_heard(seen), *looked.heard[-1:]),
        notes=(*looked.notes, told, *notes),
    )


def _asked(
    looks: Sequence[_Look], model: Model, number: int, progress: Stages | None, cancel: Cancel | None
) -> list[tuple[_Look, Answered]]:
    tell = None if progress is None else lambda done, most: progress(number, 2, done, most)
    requests = [one.request for one in looks]
    said = ask(requests, model, purpose="evidence", asks=1, progress=tell, cancel=cancel)
    return list(zip(looks, said, strict=True))


def _judged(finding: Finding, tried: tuple[TrialResult, ...]) -> tuple[Finding, list[str]]:
    """The finding with its trials, and what a reader must know of them."""
    verdict, notes = supported(finding, tried), []
    if on_its_side(finding, tried):
        notes.append(f"still on the {finding.side.value} side when left and right were exchanged")
    if verdict is not False:
        return replace(finding, trials=tried, image_supported=verdict), notes
    lost, of = lost_by(finding, tried)
    why = [f"lost by {lost} of {of} changes that it should outlast"] if 2 * lost > of else []
    if any(one.trial is Trial.MASKED and one.effect is Effect.KEPT for one in tried):
        why.append("said even of covered pictures")
    was = "; its status was present and is now indeterminate" if finding.status is Status.PRESENT else ""
    notes.append(f"not image-supported: {' and '.join(why)}{was}")
    return replace(finding, trials=tried, image_supported=False, status=Status.INDETERMINATE), notes


def _said(seen: Sequence[tuple[_Look, Answered]]) -> list[Seen]:
    """What was said of changed pictures, as far as it can be used."""
    return [
        Seen(trial=look.trial, findings=answered.parsed.findings, covers=look.covers)
        for look, answered in seen
        if look.trial is not None and answered.parsed is not None
    ]


def _in_control(finding: Finding, seen: Sequence[tuple[_Look, Answered]]) -> bool:
    """Whether the model says it of the pictures as they are; taken for granted where that was not asked."""
    return all(
        answered.parsed is not None and again(finding, answered.parsed.findings, placed=True) is not None
        for look, answered in seen
        if look.trial is None
    )


def _can_be_tried(finding: Finding) -> bool:
    return finding.status is not Status.ABSENT and bool(finding.pictures)


def _control(looked: Looked, request: Request, model: Model) -> Iterator[_Look]:
    """The request as it is, where the findings did not come of one plain reply to it."""
    asked = prompt_for(request, model.capabilities).sha256
    if (
        request is looked.request
        and looked.heard
        and looked.heard[-1].prompt_sha256 == asked
        and all(one.agreement is None for one in looked.parsed.findings)
    ):
        return
    yield _Look(trial=None, request=request, words="as it is")


def _looks(request: Request, view: View | None, trials: Collection[Trial], whole: Request) -> Iterator[_Look]:
    """The looks at pictures that are changed, but not covered."""
    slices = request.slices
    if Trial.MIRRORED in trials:
        sets = [counterfactual.mirrored(one) for one in (slices, *request.priors)]
        turned = [one for one in sets if one is not None]
        if len(turned) == len(sets):
            now, *before = turned
            yield _Look(
                trial=Trial.MIRRORED,
                request=replace(request, slices=now, priors=tuple(before)),
                words="left and right exchanged",
            )
    if Trial.SHIFTED in trials:
        for right, down in SHIFTS:
            moved = counterfactual.shifted(slices, right=right, down=down)
            yield _Look(trial=Trial.SHIFTED, request=replace(request, slices=moved), words="pictures moved")
    if Trial.SHUFFLED in trials:
        mixed = counterfactual.shuffled(slices, seed=request.seed)
        if mixed is not None:
            yield _Look(trial=Trial.SHUFFLED, request=replace(request, slices=mixed), words="another order")
    if Trial.BETWEEN in trials and view is not None and request is whole:
        yield from _between(request, view)


def _between(request: Request, view: View) -> Iterator[_Look]:
    sources = tuple(one.source for one in request.slices.slices)
    if any(isinstance(one, Montage) for one in sources) or len(set(sources)) < len(sources):
        return
    try:
        slices = view({"sources": sources, "between": True})
    except ValueError:
        return
    if len(slices) == len(request.slices) and tuple(one.source for one in slices.slices) != sources:
        yield _Look(trial=Trial.BETWEEN, request=replace(request, slices=slices), words="slices between")


def _covers(request: Request, findings: dict[int, Finding]) -> dict[int, frozenset[int]]:
    """For each finding the pictures to cover; those of several together where one holds the other's."""
    own = {k: counterfactual.covering(request.slices, one.pictures) for k, one in findings.items()}
    sets = sorted(set(own.values()), key=len, reverse=True)
    joined: list[frozenset[int]] = []
    for one in sets:
        if not any(one <= other for other in joined):
            joined.append(one)
    while len(joined) > MOST_COVERS:
        joined.sort(key=len)
        joined[:2] = [joined[0] | joined[1]]
    return {k: next(other for other in joined if one <= other) for k, one in own.items()}


def _covered(request: Request, sets: Collection[frozenset[int]], *, again: bool) -> list[_Look]:
    """A look for each set of pictures that is covered; the second time they are covered in another way."""
    looks = []
    for numbers in sorted(sets, key=sorted):
        fills = [
            (fill, slices)
            for fill in Fill
            if (slices := counterfactual.covered(request.slices, numbers, fill)) is not None
        ]
        fill, slices = fills[1 if again else 0]
        told = f"picture{'s' * (len(numbers) > 1)} {', '.join(map(str, sorted(numbers)))}"
        looks.append(
            _Look(
                trial=Trial.MASKED,
                request=replace(request, slices=slices),
                words=f"{told} covered by {fill.value}",
                covers=numbers,
            )
        )
    return looks


def _within(looked: Looked, open_ones: Sequence[int], model: Model) -> tuple[Request | None, dict[int, int]]:
    """The request with no more pictures than the model looks at, and the new number of each picture kept."""
    request = looked.request
    total = len(request.slices)
    most = model.capabilities.pictures - (request.pictures - total)
    if total <= most:
        return request, {number: number for number in range(1, total + 1)}
    cited = {number for k in open_ones for number in looked.parsed.findings[k].pictures}
    needed = counterfactual.covering(request.slices, cited)
    if len(needed) > most:
        return None, {}
    rest = [number for number in range(1, total + 1) if number not in needed]
    room = most - len(needed)
    spread = {rest[k] for k in np.linspace(0, len(rest) - 1, room).round().astype(int)} if room else set()
    numbers = sorted(needed | spread)
    smaller = replace(request, slices=counterfactual.only(request.slices, numbers))
    return smaller, {number: place for place, number in enumerate(numbers, 1)}


def _renumbered(finding: Finding, numbers: dict[int, int]) -> Finding:
    return replace(finding, pictures=tuple(sorted(numbers[number] for number in finding.pictures)))


def _heard(seen: Sequence[tuple[_Look, Answered]]) -> Iterator[Heard]:
    for look, answered in seen:
        for one in answered.heard:
            yield replace(one, purpose=f"{one.purpose}: {look.words}")
