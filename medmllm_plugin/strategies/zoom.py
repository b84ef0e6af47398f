"""An overview of everything, then a close look at what stood out in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from medmllm_plugin.asking import Answered, ask
from medmllm_plugin.codes import site_group
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.findings import Finding, Status
from medmllm_plugin.models import Cancel, Capabilities, Model
from medmllm_plugin.parsing import Parsed
from medmllm_plugin.request import Request
from medmllm_plugin.resampled import Source, layers
from medmllm_plugin.slice import Montage
from medmllm_plugin.sliceset import SliceSet, joined
from medmllm_plugin.strategies import Looked, Stages, View
from medmllm_plugin.strategies.merging import (
    groups,
    medoid,
    narrative,
    numbered_on,
    same,
    told_apart,
    words,
)
from medmllm_plugin.strategies.sentences import OVERVIEW_ONLY, finding_name, sentence

SMALL = 252
"""Longer side of a slice in the overview, px: still legible."""
MANY = 64
"""Most pictures of the overview."""
FEW = 16
"""A model that takes fewer pictures than this is shown montages."""
GRID = 3
"""Rows and columns of slices in such a montage."""
CLOSE = 12
"""Most slices in one close look."""

WINDOWS: Mapping[str, tuple[str, ...]] = {
    "ct-lung": ("lung", "pleura", "airways"),
    "ct-bone": ("bones", "joints"),
    "ct-brain": ("brain",),
}
"""Which window of a CT fits findings at sites of these groups of `codes.toml`."""
OTHERWISE = "ct-soft-tissue"
"""The window for all other sites of a CT."""

NOTHING = "nothing stood out in the overview, so nothing was looked at closely"
"""The note on a reading that had no second look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Zoom:
    """Shows the whole volume small, then the slices that stood out and their neighbours at full size."""

    own_overview: bool = True
    """Whether the overview is made here; False if the request's pictures are it, as a user planned them."""

    name = "zoom"
    summary = "everything small, then what stood out at full size, in windows that fit"

    def read(
        self,
        request: Request,
        model: Model,
        *,
        view: View | None = None,
        progress: Stages | None = None,
        cancel: Cancel | None = None,
    ) -> Looked:
        """Look twice; see `Strategy.read`.

        Raises:
            SettingsError: If there is nothing to make pictures of, or the model knows one kind of pictures.
        """
        able = model.capabilities
        if able.terse:
            raise SettingsError(
                f"{model.name} was trained on one kind of pictures and can't look closer; "
                "use --strategy single or consistency, or name another model"
            )
        if view is None:
            raise SettingsError("a closer look needs the images, and only pictures of them are given")
        told = progress or (lambda number, passes, done, most: None)
        first = replace(request, slices=view(_small(able))) if self.own_overview else request
        (overview,) = ask(
            [first],
            model,
            purpose="overview",
            progress=lambda done, most: told(1, 2, done, most),
            cancel=cancel,
        )
        seen = overview.usable(model)
        looks = [
            replace(request, slices=view({**_large(able), **window, "sources": wanted}))
            for window, wanted in _candidates(seen, first)
        ]
        if not looks:
            return Looked(
                parsed=seen,
                request=first,
                heard=overview.heard,
                notes=(*overview.notes, NOTHING),
            )
        close = ask(
            looks,
            model,
            purpose="close look",
            progress=lambda done, most: told(2, 2, done, most),
            cancel=cancel,
        )
        return _together(first, overview, seen, close)


def _small(able: Capabilities) -> dict[str, Any]:
    """Settings of the overview: as many slices as the model takes, in montages if those are few."""
    if able.pictures >= FEW:
        return {"count": min(able.pictures, MANY), "size": SMALL}
    return {"count": able.pictures, "size": GRID * SMALL, "montage": f"{GRID}x{GRID}"}


def _large(able: Capabilities) -> dict[str, Any]:
    """Settings of a close look: each slice as large as it is, as far as the model's tokens go."""
    return {"count": min(able.pictures, CLOSE), "size": None, "slab_mm": None, "neighbours": 1}


def _candidates(seen: Parsed, request: Request) -> Iterator[tuple[dict[str, str], tuple[Source, ...]]]:
    """What to look at closely: for each window, as a setting, the slices, those with a box first.

    Where one thing was asked there is one look, so that there is one answer.
    """
    by_window: dict[str | None, list[Source]] = {}
    slices, told = request.slices, [one for one in seen.findings if one.status is not Status.ABSENT]
    for one in told:
        window = _window(one if request.task.whole else told[0], slices)
        by_window.setdefault(window, []).extend(_sources(one, slices))
    cited = {number for one in told for number in one.pictures}
    marked = [number for number in seen.abnormal if number not in cited]
    if marked:
        window = None if request.task.whole or not by_window else next(iter(by_window))
        by_window.setdefault(window, []).extend(_shown_in(slices, marked))
    for window, sources in by_window.items():
        if not sources:  # as of a model that names no pictures
            continue
        yield {} if window is None else {"window": window}, tuple(dict.fromkeys(sources))


def _window(one: Finding, slices: SliceSet) -> str | None:
    """The window that shows a finding's site; None where there are no Hounsfield units."""
    if slices.study.modality != "CT":
        return None
    fitting = (
        window for window, names in WINDOWS.items() if any(one.site in site_group(name) for name in names)
    )
    return next(fitting, OTHERWISE)


def _sources(one: Finding, slices: SliceSet) -> list[Source]:
    """The slices that a finding cites, that with its box first; of a montage with the box only that one."""
    if one.box is None:
        return _shown_in(slices, one.pictures)
    boxed, _ = slices.picture(one.box.picture).showing(one.box)
    others = _shown_in(slices, (number for number in one.pictures if number != one.box.picture))
    return others if isinstance(boxed.source, Montage) else [*layers(boxed.source), *others]


def _shown_in(slices: SliceSet, numbers: Iterable[int]) -> list[Source]:
    """What pictures show: images and cuts, of slabs those that they are put together of."""
    insets = (inset for number in numbers for inset in slices.picture(number).insets)
    shown = (inset.shown.source for inset in insets)
    return [part for one in shown if not isinstance(one, Montage) for part in layers(one)]


def _together(request: Request, overview: Answered, seen: Parsed, close: Sequence[Answered]) -> Looked:
    """Both looks as one: what was looked at closely stands as it was seen there."""
    sets = [request.slices, *(one.request.slices for one in close)]
    usable = [one.parsed for one in close if one.parsed is not None]
    looked_at = set[Source]()
    replies = []
    for number, one in enumerate(close, 1):
        if one.parsed is not None:
            before = sum(map(len, sets[:number]))
            replies.append(_moved(one, one.parsed, before, pictures=sum(map(len, sets))))
            looked_at.update(_shown_in(sets[number], range(1, len(sets[number]) + 1)))
    confirmed = [_nearest([one for _, one in group]) for group in groups([one.findings for one in replies])]
    kept, notes = _kept(request, seen, confirmed, looked_at, more=sum(map(len, sets[1:])))
    unusable = len(close) - len(usable)
    if unusable:
        notes.append(f"{unusable} of {len(close)} close looks gave no usable reply and don't count")
    findings = told_apart([*confirmed, *kept])
    alone = [finding_name(one, language=request.language) for one in kept if one.status is not Status.ABSENT]
    impression = [text for one in replies for text in one.impression] or list(seen.impression)
    if alone and replies:
        impression.append(sentence(OVERVIEW_ONLY, alone, language=request.language))
    return Looked(
        parsed=Parsed(
            findings=findings,
            narrative=narrative(findings),
            impression=tuple(dict.fromkeys(impression)),
            notes=tuple(dict.fromkeys(note for one in [seen, *replies] for note in one.notes)),
            answer=next((one.answer for one in replies if one.answer is not None), seen.answer),
            differential=next((one.differential for one in replies if one.differential), seen.differential),
        ),
        request=replace(request, slices=joined(sets)),
        heard=(*overview.heard, *(heard for one in close for heard in one.heard)),
        notes=(
            f"read as an overview of {len(sets[0])} pictures and {len(close)} close "
            f"{'look' if len(close) == 1 else 'looks'} at {len(looked_at)} slices",
            *notes,
            *dict.fromkeys(note for one in [overview, *close] for note in one.notes),
        ),
    )


def _moved(one: Answered, parsed: Parsed, before: int, *, pictures: int) -> Parsed:
    """A close look with the numbers that its pictures have among all."""
    on = partial(numbered_on, offset=before, prior_offset=pictures - len(one.request.slices))
    return replace(
        parsed,
        findings=tuple(on(each) for each in parsed.findings),
        answer=None if parsed.answer is None else on(parsed.answer),
        differential=tuple(on(each) for each in parsed.differential),
    )


def _nearest(members: Sequence[Finding]) -> Finding:
    """Of one finding in several close looks the one that sees it, rather than one that doesn't."""
    return medoid([one for one in members if one.status is not Status.ABSENT] or members)


def _kept(
    request: Request, seen: Parsed, confirmed: Sequence[Finding], looked_at: set[Source], *, more: int
) -> tuple[list[Finding], list[str]]:
    """Findings of the overview that the close look didn't see or speak of, and what became of the others."""
    kept, notes = [], []
    for one in seen.findings:
        if any(same(one, other) for other in confirmed):
            continue
        there = one.status is not Status.ABSENT
        if there and looked_at.issuperset(_sources(one, request.slices)):
            notes.append(f"left out {words(one)}: seen in the overview, but not at full size")
            continue
        if there:
            notes.append(f"{words(one)} was seen in the overview only, not at full size")
        kept.append(numbered_on(one, 0, prior_offset=more))
    return kept, notes
