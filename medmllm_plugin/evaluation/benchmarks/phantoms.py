"""Our own: synthetic studies of CT, MR and X-ray whose truth is known to the voxel. They need no file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from medmllm_plugin import codes
from medmllm_plugin.evaluation.benchmark import Benchmark, Item, Kind, Marks, Preview
from medmllm_plugin.evaluation.phantom_marks import (
    marks_of_changes,
    marks_of_place,
    marks_of_report,
    marks_of_size,
)
from medmllm_plugin.evaluation.pictures import PREVIEWS
from medmllm_plugin.findings import Finding, Side
from medmllm_plugin.models import Model
from medmllm_plugin.page_pictures import side_words
from medmllm_plugin.phantoms.study import KINDS, PhantomStudy, sample_study
from medmllm_plugin.report import Report
from medmllm_plugin.scoring import bounds, true_findings
from medmllm_plugin.selftest_page import study_index
from medmllm_plugin.sliceset import Slice, SliceSet
from medmllm_plugin.strategies import View
from medmllm_plugin.transforms.window import apply_window
from medmllm_plugin.views import Views, views_of

FIRST_SEED = 2_300_000_000
"""Phantoms from here on served nobody to train, to choose or to calibrate."""

USUAL = 100
"""Items that are taken where nobody says how many."""

NO_END = 1_000_000
"""Studies that there are at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Phantom:
    """A phantom as a model is shown it, by the plan that suits the model."""

    kind: str
    seed: int
    hidden: tuple[str, ...] = ()
    """Findings that are taken out of it."""
    before: tuple[str, ...] | None = None
    """Findings that the earlier study of the same patient lacks; None for no earlier study."""

    @property
    def study(self) -> PhantomStudy:
        """The phantom."""
        return _study(self.kind, self.seed, self.hidden)

    @property
    def prior(self) -> PhantomStudy:
        """The same patient before."""
        return _study(self.kind, self.seed, self.before or ())

    def preview(self, details: Mapping[str, Any]) -> tuple[Preview, ...]:
        """The image that shows each finding best, and those on which something false was said."""
        study = self.study
        said = [
            (int(k), (left, top, right, bottom)) for k, left, top, right, bottom in details.get("boxes", ())
        ]
        true = [
            (study_index(study, one.box), bounds(one.box)) for one in study.truth() if one.box is not None
        ]
        shown = dict.fromkeys([*(k for k, _ in true), *(k for k, _ in said)])
        return tuple(
            Preview(
                pixels=(one := _pictured(study, k)).pixels,
                words=f"Image {k + 1} of {study.slices}; {side_words(one)}",
                frames=(
                    *(("truth", box) for here, box in true if here == k),
                    *(("said", box) for here, box in said if here == k),
                ),
            )
            for k in list(shown)[:PREVIEWS] or [study.slices // 2]
            if k is not None
        )

    def show(self, model: Model) -> tuple[SliceSet, tuple[SliceSet, ...]]:
        """The pictures that suit the model, and as many of the earlier study."""
        shown = self._views(model, self.study).slices
        if self.before is None:
            return shown, ()
        return shown, (replace(self._views(model, self.prior).slices, days_before=180),)

    def view(self, model: Model) -> View:
        """More pictures of the study."""
        shown = cache(lambda: self._views(model, self.study))
        return lambda settings: shown().again(settings)

    def _views(self, model: Model, study: PhantomStudy) -> Views:
        room = None if self.before is None else max(model.capabilities.pictures // 2, 1)
        return views_of(model, study.volume(), count=room)


def _pictured(study: PhantomStudy, k: int) -> Slice:
    """An image of a phantom in its own window."""
    center, width = study.scan.window
    plane = study.plane(k)
    grey = apply_window(study.values(k), center=center, width=width)
    return Slice(
        pixels=np.repeat(grey[..., None], 3, axis=2),
        source=plane.source,
        source_shape=(plane.rows, plane.columns),
        to_source=np.eye(3),
        to_patient=plane.to_patient,
        window="header",
        patient_orientation=plane.patient_orientation,
    )


@lru_cache(maxsize=8)
def _study(kind: str, seed: int, hidden: tuple[str, ...]) -> PhantomStudy:
    whole = sample_study(kind=kind, seed=seed)
    if not hidden:
        return whole
    lesions = tuple(one for one in whole.anatomy.lesions if one.finding not in hidden)
    return replace(whole, anatomy=replace(whole.anatomy, lesions=lesions), _cache={})  # type: ignore[type-var]


def _phantoms(kinds: Sequence[str]) -> Iterator[Phantom]:
    """Phantoms without end, the kinds in turn."""
    for number in count():
        if number == NO_END:
            return
        yield Phantom(kind=kinds[number % len(kinds)], seed=FIRST_SEED + number)


def _reports(folder: Path) -> Iterator[Item]:
    for one in _phantoms(tuple(KINDS)):
        yield _item(one, "report", task="report", scoring=_of_report)


def _of_report(item: Item, report: Report, slices: SliceSet) -> Marks:
    return marks_of_report(_phantom(item).study, report)


def _grounding(folder: Path) -> Iterator[Item]:
    for one in _phantoms(tuple(KINDS)):
        for index, true in _alone(one.study):
            yield _item(
                one,
                true.finding,
                task="locate",
                question=f"Where is the {_named(true)}?",
                gold=true.sentence,
                scoring=_place(index, true),
            )


def _place(index: int, true: Finding) -> Callable[[Item, Report, SliceSet], Marks]:
    return lambda item, report, slices: marks_of_place(_phantom(item).study, index, true, report)


def _volumes(folder: Path) -> Iterator[Item]:
    for one in _phantoms([kind for kind in KINDS if KINDS[kind].slices[2] > 1]):
        for _, true in _alone(one.study):
            words, size = _named(true), true.size_mm
            if size is not None and true.finding in ("nodule", "mass", "cyst"):
                yield _item(
                    one,
                    f"{true.finding}-size",
                    task="question",
                    question=f"How long is the {words} in its longest diameter in these images, in "
                    "millimetres? Give one number.",
                    gold=f"{size:g} mm",
                    scoring=lambda item, report, slices: marks_of_size(item.gold[0], report),
                )
            if true.side in (Side.LEFT, Side.RIGHT):
                yield _item(
                    one,
                    f"{true.finding}-side",
                    kind=Kind.CHOICE,
                    task="question",
                    question=f"On which side of the patient is the {words}?",
                    choices=("left", "right"),
                    gold=true.side.value,
                )


def _negation(folder: Path) -> Iterator[Item]:
    for number, one in enumerate(_phantoms(tuple(KINDS))):
        keys = KINDS[one.kind].findings
        there = [key for key in keys if any(true.finding == key for true in one.study.truth())]
        others = [key for key in keys if key not in there]
        is_there = bool(there) and (number % 2 == 0 or not others)
        key = there[0] if is_there else others[number // 2 % len(others)]
        words = codes.finding(key).words.lower()
        for form, way, question, right in (
            ("is", "asked plainly", f"Is there {_article(words)}{words} in this study?", is_there),
            ("is-no", "asked the other way round", f"Is this study free of any {words}?", not is_there),
        ):
            yield _item(
                one,
                f"{key}-{form}",
                kind=Kind.YES_NO,
                task="question",
                question=question,
                gold="yes" if right else "no",
                form=way,
                pair=f"{one.kind}-{one.seed}-{key}",
            )


def _priors(folder: Path) -> Iterator[Item]:
    """The same patient twice: of the findings one is new, one resolved, the others as they were."""
    for number, one in enumerate(_phantoms(tuple(KINDS))):
        keys = list(dict.fromkeys(true.finding for true in one.study.truth()))
        if not keys:
            continue
        new, gone = (keys[0], None) if number % 2 == 0 else (None, keys[0])
        shown = replace(one, hidden=(gone,) if gone else (), before=(new,) if new else ())
        changes = {key: "new" if key == new else "resolved" if key == gone else "unchanged" for key in keys}
        yield _item(
            shown,
            "changes",
            task="compare",
            gold=", ".join(f"{key} {change}" for key, change in changes.items()),
            scoring=_changes(changes),
        )


def _changes(changes: dict[str, str]) -> Callable[[Item, Report, SliceSet], Marks]:
    return lambda item, report, slices: marks_of_changes(changes, report)


def _item(
    one: Phantom,
    what: str,
    *,
    task: str,
    kind: Kind = Kind.PHANTOM,
    question: str | None = None,
    choices: tuple[str, ...] = (),
    gold: str | None = None,
    form: str = "",
    pair: str = "",
    scoring: Callable[[Item, Report, SliceSet], Marks] | None = None,
) -> Item:
    right = gold if gold is not None else " ".join(lesion.sentence for lesion in one.study.lesions)
    groups = {"kind": one.kind, **({"form": form} if form else {})}
    return Item(
        name=f"{one.kind}-{one.seed}-{what}",
        kind=kind,
        task=task,
        gold=(right or "No abnormality.",),
        shown=one,
        question=question,
        choices=choices,
        cluster=f"{one.kind}-{one.seed}",
        groups=groups,
        pair=pair,
        scoring=scoring,
    )


def _phantom(item: Item) -> Phantom:
    assert isinstance(item.shown, Phantom)
    return item.shown


def _alone(study: PhantomStudy) -> list[tuple[int, Finding]]:
    """The findings of a phantom that are the only ones of their kind, so that a question names one."""
    found = true_findings(study)
    keys = [true.finding for _, true in found]
    return [(index, true) for index, true in found if keys.count(true.finding) == 1]


def _named(true: Finding) -> str:
    """A finding in the words of a question; one that could be any has its site beside it."""
    words = codes.finding(true.finding).words.lower()
    return f"{words} of the {codes.site(true.site).words.lower()}" if true.finding == "lesion" else words


def _article(words: str) -> str:
    """The article before a finding's name, with its blank; none before what is not counted."""
    uncounted = ("cardiomegaly", "atelectasis", "edema", "hydronephrosis", "ascites", "calcification")
    if words.endswith(uncounted) or (words.endswith("s") and not words.endswith("ss")):
        return ""
    return "an " if words[0] in "aeiou" else "a "


BENCHMARKS = (
    Benchmark(
        name="phantom-report",
        summary="reports of synthetic CT, MR and X-ray studies: findings, sides, boxes, sizes",
        read=_reports,
    ),
    Benchmark(
        name="phantom-grounding",
        summary="where a finding is in a synthetic study: overlap, slice, millimetres",
        read=_grounding,
    ),
    Benchmark(
        name="phantom-volume",
        summary="size and side of a finding in synthetic studies of many slices",
        read=_volumes,
    ),
    Benchmark(
        name="phantom-negation",
        summary="the same asked both ways, is there and is there no: right, and consistent",
        read=_negation,
    ),
    Benchmark(
        name="phantom-prior",
        summary="two studies of one synthetic patient: what is new, resolved, unchanged",
        read=_priors,
    ),
)
