"""Which series of a study are worth showing, how many pictures each gets, and why.

The rules, by modality; what they leave out they say in words, and the user may take or leave any series.

- Out everywhere: localizers, screens and dose sheets, what can't be read, test bolus and timing series.
- CT: of each part of the body and each contrast phase one axial stack of originals: with a smooth kernel
  before a sharp one, then the thinnest. The rest shows the same scan again.
- MR: of each weighting (T1, T1 with contrast, T2, FLAIR, DWI, ADC, ...) one stack: originals first (but ADC
  maps are derived by nature), then the most slices. Perfusion, functional series and field maps are no
  pictures to read.
- PT: the largest that is corrected for attenuation, before its CT, for which the rules of CT hold.
- CR, DX, MG and RF: every view. Others: every series of originals.

Pictures are shared evenly among what is taken, no series getting more than it has; a prior study gets a third
of the budget at most. Where there are fewer pictures than series, the first in this order are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.transforms.dicom_choice import that_are_named
from medmllm_plugin.transforms.series_facts import SeriesFacts

_VIEWS = frozenset({"CR", "DX", "MG", "RF", "RG", "IO", "PX"})
_MR_ORDER = ("flair", "t2", "t1 with contrast", "t1", "dwi", "adc", "stir", "pd", "swi", "angiography", "")
_NO_PICTURES = frozenset({"perfusion", "functional", "fieldmap"})
_SAME_SCAN = 90.0
"""Acquisitions of a CT that begin this close together, in seconds, are one scan reconstructed twice."""
_PRIOR_SHARE = 3
"""A prior study gets at most one picture in so many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedSeries:
    """What became of one series."""

    facts: SeriesFacts
    pictures: int
    """How many pictures it may have; 0 if it is left out."""
    why: str
    """Why it was taken or left out, in words."""
    prior: bool = False
    """Whether it belongs to an earlier study that is shown to compare with."""

    @property
    def stack(self) -> int | None:
        """Which of its stacks: of a diffusion series that of the highest b-value; None for the largest."""
        values = [_b_value(name) for name in self.facts.stacks]
        if self.facts.weighting != "dwi" or not values or max(values) <= 0:
            return None
        return values.index(max(values))

    @property
    def taken(self) -> bool:
        """Whether it is shown."""
        return self.pictures > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyPlan:
    """The series of a study, each with its verdict; those taken first, in the order to show them."""

    series: tuple[PlannedSeries, ...]

    @property
    def taken(self) -> tuple[PlannedSeries, ...]:
        """The series to show, the current study before the prior."""
        return tuple(one for one in self.series if one.taken)

    def lines(self) -> list[str]:
        """One line for each series, for the reader."""
        return [_line(one) for one in self.series]

    def to_json(self) -> dict[str, Any]:
        """What `medmllm series --json` prints."""
        return {"schema": "medmllm-series/1", "series": [_to_json(one) for one in self.series]}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Verdict:
    facts: SeriesFacts
    taken: bool
    why: str


def plan_study(
    series: Sequence[SeriesFacts],
    *,
    pictures: int,
    prior: Sequence[SeriesFacts] = (),
    take: Sequence[str] = (),
    leave: Sequence[str] = (),
) -> StudyPlan:
    """Choose the series to show and share the pictures among them.

    Args:
        series: All series of one study.
        pictures: Most pictures in all: what the model's limit or token budget allows.
        prior: All series of an earlier study of the patient; of it, what compares with what is taken.
        take: Series that are shown whatever the rules say: UID, its unique beginning or end, or number.
        leave: Series that are left out.

    Raises:
        SettingsError: If `take` or `leave` names no series or several, or `pictures` is below 1.

    >>> ct = SeriesFacts(uid="1.2", label="series 2", number=2, modality="CT", images=300, plane="axial")
    >>> scout = replace(ct, uid="1.1", number=1, images=1, localizer=True)
    >>> [(one.facts.number, one.pictures, one.why) for one in plan_study([scout, ct], pictures=24).series]
    [(2, 24, 'the only axial CT'), (1, 0, 'a localizer')]
    """
    if pictures < 1:
        raise SettingsError(f"the budget is {pictures} pictures, expected at least 1")
    wanted = {_named(series, name).uid for name in take}
    unwanted = {_named(series, name).uid for name in leave}
    verdicts = [_overridden(one, wanted, unwanted) for one in _verdicts(series)]
    before = _comparable(_verdicts(prior), verdicts)
    old = [one for one in before if one.taken]
    for_prior = min(pictures // _PRIOR_SHARE, sum(one.facts.images for one in old))
    planned = [*_shared(verdicts, pictures - for_prior, prior=False), *_shared(before, for_prior, prior=True)]
    return StudyPlan(series=tuple(sorted(planned, key=lambda one: not one.taken)))


def _named(series: Sequence[SeriesFacts], wanted: str) -> SeriesFacts:
    found = that_are_named(series, wanted)
    if len(found) != 1:
        raise SettingsError(
            f"{wanted!r} names {len(found)} series of the study, expected one; see `medmllm series`"
        )
    return found[0]


def _overridden(verdict: _Verdict, wanted: set[str], unwanted: set[str]) -> _Verdict:
    if verdict.facts.uid in unwanted:
        return replace(verdict, taken=False, why="it was left out by the user")
    if verdict.facts.uid in wanted:
        return replace(verdict, taken=True, why="it was asked for")
    return verdict


def _verdicts(series: Sequence[SeriesFacts]) -> list[_Verdict]:
    """All series with their verdict, those taken first, by the order in which they are shown."""
    left = {s.uid: why for s in series if (why := _never(s))}
    proper = [s for s in series if s.uid not in left]
    taken: list[_Verdict] = []
    for modality, rule in _by_modality(proper):
        for verdict in rule([s for s in proper if s.modality == modality]):
            if verdict.taken:
                taken.append(verdict)
            else:
                left[verdict.facts.uid] = verdict.why
    readable = [s for s in series if not s.problem]
    if not taken and readable:  # nothing but scouts or screens is still something to show
        best = max(readable, key=lambda s: (not s.localizer, not s.secondary, s.images, -s.number))
        taken = [_Verdict(facts=best, taken=True, why=f"{left.pop(best.uid)}, but there is nothing else")]
    return [*taken, *_left(series, left)]


def _left(series: Sequence[SeriesFacts], left: dict[str, str]) -> list[_Verdict]:
    return [_Verdict(facts=s, taken=False, why=left[s.uid]) for s in series if s.uid in left]


def _never(s: SeriesFacts) -> str:
    """Why no rule would take a series; empty if one might."""
    if s.problem:
        return s.problem
    if s.localizer or ("scout" in s.words and s.images < 20):
        return "a localizer"
    if not s.stacked and (s.secondary or "dose" in s.words):
        return "screens or results, not images of the patient"
    if "bolus" in s.words and not s.stacked:
        return "a timing series at one place"
    if s.modality == "PT" and not s.corrected:
        return "not corrected for attenuation"
    return ""


Rule = Callable[[Sequence[SeriesFacts]], list[_Verdict]]


def _by_modality(series: Sequence[SeriesFacts]) -> list[tuple[str, Rule]]:
    """The modalities, that with the most images first, but PET before its CT."""
    count: dict[str, int] = {}
    for s in series:
        count[s.modality] = count.get(s.modality, 0) + s.images
    order = sorted(count, key=lambda m: (m != "PT", -count[m]))
    rules: dict[str, Rule] = {"CT": _ct, "MR": _mr, "PT": _pt}
    return [(m, rules.get(m, _views if m in _VIEWS else _others)) for m in order]


def _ct(series: Sequence[SeriesFacts]) -> list[_Verdict]:
    axial = [s for s in series if s.plane.endswith("axial")] or list(series)
    stacks = [s for s in axial if s.stacked] or axial
    original = [s for s in stacks if not (s.derived or {"projection", "subtraction"} & s.words)] or stacks
    verdicts = [
        _Verdict(facts=s, taken=False, why=_no_choice(s, axial=axial, stacks=stacks))
        for s in series
        if s not in original
    ]
    kept: list[SeriesFacts] = []
    for s in sorted(original, key=_ct_rank):
        twin = next((k for k in kept if _same_scan(s, k)), None)
        if twin is None:
            kept.append(s)
        else:
            verdicts.append(_Verdict(facts=s, taken=False, why=_worse_than(s, twin)))
    alone = len(kept) == 1
    for s in sorted(kept, key=lambda s: (s.acquired or 0.0, s.number)):
        phase = f", {_phase_words(s)}" if _phase_words(s) else ""
        plane = s.plane or "unplaced"
        verdicts.append(_Verdict(facts=s, taken=True, why=f"the {'only ' if alone else ''}{plane} CT{phase}"))
    return verdicts


def _no_choice(s: SeriesFacts, *, axial: list[SeriesFacts], stacks: list[SeriesFacts]) -> str:
    if s not in axial:
        return "not axial"
    return "made from other images" if s in stacks else "no stack of slices"


def _ct_rank(s: SeriesFacts) -> tuple[bool, bool, float, int, int]:
    """The best first."""
    return not s.stacked, s.sharp, s.gap or s.thickness or 1e9, -s.images, s.number


def _same_scan(a: SeriesFacts, b: SeriesFacts) -> bool:
    """Whether two CT stacks show one scan of one part of the body in one contrast phase."""
    if len({a.frame_of_reference, b.frame_of_reference} - {""}) > 1 or not _overlap(a.extent, b.extent):
        return False  # extents in two frames of reference can't be compared
    if a.phase and b.phase and a.phase != b.phase:
        return False
    if None not in (a.contrast, b.contrast) and a.contrast != b.contrast:
        return False
    if a.acquired is not None and b.acquired is not None:
        return abs(a.acquired - b.acquired) <= _SAME_SCAN or bool(a.phase and a.phase == b.phase)
    return a.phase == b.phase


def _overlap(a: tuple[float, float] | None, b: tuple[float, float] | None) -> bool:
    """Whether at least half of the shorter one lies in the other; unknown extents count as one."""
    if a is None or b is None:
        return True
    shared = min(a[1], b[1]) - max(a[0], b[0])
    return shared >= 0.5 * min(a[1] - a[0], b[1] - b[0])


def _worse_than(s: SeriesFacts, twin: SeriesFacts) -> str:
    if s.sharp and not twin.sharp:
        return f"the same scan as {twin.label} with a sharp kernel"
    if (s.gap or 0) > (twin.gap or 0):
        return f"the same scan as {twin.label} in thicker slices"
    return f"the same scan as {twin.label}"


def _phase_words(s: SeriesFacts) -> str:
    if s.phase:
        return s.phase if s.phase == "native" else f"{s.phase} phase"
    return {True: "with contrast", False: "without contrast", None: ""}[s.contrast]


def _mr(series: Sequence[SeriesFacts]) -> list[_Verdict]:
    verdicts = []
    best: dict[str, SeriesFacts] = {}
    for s in sorted(series, key=_mr_rank):
        kind = _mr_kind(s)
        if s.weighting in _NO_PICTURES:
            verdicts.append(_Verdict(facts=s, taken=False, why=f"{s.weighting}, which is no picture to read"))
        elif ((s.derived and kind != "adc") or {"projection", "subtraction"} & s.words) and best:
            verdicts.append(_Verdict(facts=s, taken=False, why="made from other images"))
        elif kind in best or (not kind and best):
            why = f"{kind.upper() or 'of unknown weighting'}, "
            other = best.get(kind)
            why += f"as {other.label} shows it" if other else "beside series whose weighting is known"
            verdicts.append(_Verdict(facts=s, taken=False, why=why))
        else:
            best[kind] = s
    for kind in _MR_ORDER:
        if kind in best:
            why = f"the {'best ' if len(series) > 1 else 'only '}{kind.upper() or 'MR'} stack"
            verdicts.append(_Verdict(facts=best[kind], taken=True, why=why))
    return verdicts


def _mr_kind(s: SeriesFacts) -> str:
    return "t1 with contrast" if s.weighting == "t1" and s.contrast else s.weighting


def _mr_rank(s: SeriesFacts) -> tuple[bool, bool, bool, int, int]:
    """The best first."""
    return not s.weighting, s.derived and s.weighting != "adc", not s.stacked, -s.images, s.number


def _pt(series: Sequence[SeriesFacts]) -> list[_Verdict]:
    best = min(series, key=lambda s: (s.derived, not s.stacked, -s.images, s.number))
    return [
        _Verdict(
            facts=s,
            taken=s is best,
            why="PET, corrected for attenuation" if s is best else f"a PET beside {best.label}",
        )
        for s in series
    ]


def _views(series: Sequence[SeriesFacts]) -> list[_Verdict]:
    return [_Verdict(facts=s, taken=True, why="a view") for s in sorted(series, key=lambda s: s.number)]


def _others(series: Sequence[SeriesFacts]) -> list[_Verdict]:
    original = [s for s in series if not s.derived] or list(series)
    return [
        _Verdict(
            facts=s,
            taken=s in original,
            why=f"{s.modality or 'images'} of the patient" if s in original else "made from other images",
        )
        for s in sorted(series, key=lambda s: s.number)
    ]


def _comparable(prior: list[_Verdict], current: list[_Verdict]) -> list[_Verdict]:
    """Of a prior study only what is of a modality, plane and weighting that is shown now too."""
    shown = {_kind(one.facts) for one in current if one.taken}
    return [
        replace(one, taken=False, why="nothing shown now compares with it")
        if one.taken and _kind(one.facts) not in shown
        else one
        for one in prior
    ]


def _kind(s: SeriesFacts) -> tuple[str, str]:
    films = {"DX": "CR", "RG": "CR"}
    return films.get(s.modality, s.modality), _mr_kind(s)


def _shared(verdicts: list[_Verdict], pictures: int, *, prior: bool) -> list[PlannedSeries]:
    """Evenly, no series getting more than it has; what one leaves goes to the others."""
    taken = [one for one in verdicts if one.taken][: max(pictures, 0)]
    shares = dict.fromkeys((one.facts.uid for one in taken), 0)
    left = pictures
    while left > 0:
        open_ones = [one.facts for one in taken if shares[one.facts.uid] < one.facts.images]
        if not open_ones:
            break
        each = max(1, left // len(open_ones))
        for facts in open_ones[:left]:
            more = min(each, facts.images - shares[facts.uid])
            shares[facts.uid] += more
            left -= more
    return [
        PlannedSeries(
            facts=one.facts,
            pictures=shares.get(one.facts.uid, 0),
            why=one.why if one.facts.uid in shares or not one.taken else "no picture is left for it",
            prior=prior,
        )
        for one in verdicts
    ]


def _b_value(name: str) -> float:
    """The b-value in the name of a stack; -1 if it names none."""
    found = re.search(r"b-value ([0-9.]+)", name)
    return -1.0 if found is None else float(found[1])


def _line(one: PlannedSeries) -> str:
    prior = "prior, " if one.prior else ""
    if one.taken:
        stacks = one.facts.stacks
        largest = f", the largest of {len(stacks)} stacks" if len(stacks) > 1 else ""
        part = largest if one.stack is None else f" of {stacks[one.stack]}"
        return f"{one.facts.label}: {prior}{one.pictures} of {one.facts.images} images{part}: {one.why}"
    return f"{one.facts.label}: {prior}left out: {one.why}"


def _to_json(one: PlannedSeries) -> dict[str, Any]:
    s = one.facts
    return {
        "series_instance_uid": s.uid,
        "number": s.number,
        "modality": s.modality,
        "images": s.images,
        "stacks": list(s.stacks),
        "stack": one.stack,
        "plane": s.plane or None,
        "gap_mm": s.gap,
        "thickness_mm": s.thickness,
        "weighting": s.weighting or None,
        "contrast": s.contrast,
        "phase": s.phase or None,
        "prior": one.prior,
        "taken": one.taken,
        "pictures": one.pictures,
        "why": one.why,
    }
