"""A study on disk → the series worth showing, planned and read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from medmllm_plugin.errors import StudyError
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.transforms.attributes import text
from medmllm_plugin.transforms.dicom_choice import Series, choose, named_series, of_modality
from medmllm_plugin.transforms.dicom_series import all_series, require_one_patient, volume_of
from medmllm_plugin.transforms.entries import list_entries
from medmllm_plugin.transforms.quiet import quiet
from medmllm_plugin.transforms.reading import nothing_found
from medmllm_plugin.transforms.series_facts import all_facts
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.transforms.study_plan import PlannedSeries, StudyPlan, plan_study
from medmllm_plugin.transforms.window import PRESETS
from medmllm_plugin.volume import Volume

PICTURES = 64
"""Pictures of a study where no budget is given."""
_ALONE = "one series is shown"
"""Why the others are left out where a single one is to be shown."""


def plan_of(
    paths: Sequence[Path],
    *,
    pictures: int = PICTURES,
    prior: Sequence[Path] = (),
    take: Sequence[str] = (),
    leave: Sequence[str] = (),
) -> StudyPlan:
    """Which series of a study are worth showing, and why; headers are read, no pixels.

    Args:
        paths: Folders, files, a DICOMDIR or zips of one study.
        pictures: Most pictures in all.
        prior: The same of an earlier study of the patient, to compare with.
        take: Series to show whatever the rules say, as `read_volume` names them.
        leave: Series to leave out.

    Raises:
        StudyError: If there is no DICOM image, more than one study in `paths` or in `prior`, the same study
            in both, or more than one patient.
        SettingsError: If `take` or `leave` names no one series, or the budget is below 1.
    """
    return _planned(paths, pictures, prior, take, leave)[0]


def read_study(
    paths: Sequence[Path],
    *,
    pictures: int = PICTURES,
    prior: Sequence[Path] = (),
    take: Sequence[str] = (),
    leave: Sequence[str] = (),
    single: bool = False,
    series: str | None = None,
    modality: str | None = None,
) -> list[tuple[PlannedSeries, Volume]]:
    """The series that `plan_of` takes, each with its volume, in the order to show them.

    The notes of the first volume say also which series were left out, and why.

    Args:
        paths: As `plan_of`.
        pictures: As `plan_of`.
        prior: As `plan_of`.
        take: As `plan_of`.
        leave: As `plan_of`.
        single: Of the study itself show one series only, that which `read_volume` would choose.
        series: With `single` which one, as `read_volume` takes it.
        modality: With `single` of which Modality (0008,0060).

    Raises:
        StudyError: As `plan_of`, or if a series that was taken can't be read.
        SettingsError: As `plan_of`.
    """
    which = (lambda found, where: _one(found, where, series, modality)) if single else None
    plan, found = _planned(paths, pictures, prior, take, leave, which)
    left = [f"left out {_of(one)}: {one.why}" for one in plan.series if not one.taken]
    with quiet():
        return [
            (one, volume_of(found[one.facts.uid], [_note(one), *([] if k else left)], stack=one.stack))
            for k, one in enumerate(plan.taken)
        ]


def _one(found: Sequence[Series], where: str, series: str | None, modality: str | None) -> tuple[Series, str]:
    """The one series of a study to show, and why."""
    candidates = of_modality(list(found), modality, where)
    return named_series(candidates, series, where) if series else choose(candidates, where)


def study_slices(
    paths: Sequence[Path],
    *,
    plan: SlicePlan | None = None,
    prior: Sequence[Path] = (),
    take: Sequence[str] = (),
    leave: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[PlannedSeries, SliceSet]]:
    """The pictures of a study: of each series that is taken its share of one budget.

    Args:
        paths: As `plan_of`.
        plan: How pictures are made. Its count and its tokens are those of the whole study, a prior included.
        prior: As `plan_of`.
        take: As `plan_of`.
        leave: As `plan_of`.
        progress: Called with (series done, series in all).

    Raises:
        StudyError: As `read_study`.
        SettingsError: As `plan_of`, or if a series can't be shown as the plan says.
    """
    asked = plan or SlicePlan()
    taken = read_study(paths, pictures=asked.usual_count, prior=prior, take=take, leave=leave)
    total = sum(one.pictures for one, _ in taken)
    made = []
    for done, (one, volume) in enumerate(taken):
        if progress is not None:
            progress(done, len(taken))
        made.append((one, share(asked, one, volume, total).apply(volume)))
    return made


def share(plan: SlicePlan, one: PlannedSeries, volume: Volume, total: int) -> SlicePlan:
    """The plan for one series of several.

    Args:
        plan: For all of them together.
        one: The series and how many pictures it may have.
        volume: Its volume.
        total: Pictures of all series.
    """
    zoomed = plan.zoom_count * one.pictures // total
    windows = (plan.window or "").split("+")
    return replace(
        plan,
        count=one.pictures,
        tokens=None if plan.tokens is None else max(1, plan.tokens * one.pictures // total),
        zoom=plan.zoom if 1 <= zoomed < one.pictures else None,
        zoom_count=max(1, zoomed),
        window=None if volume.unit != "HU" and any(name in PRESETS for name in windows) else plan.window,
    )


def _note(one: PlannedSeries) -> str:
    return f"{_of(one)} was taken: {one.why}"


def _of(one: PlannedSeries) -> str:
    return f"{one.facts.label}{' of the prior study' if one.prior else ''}"


def _planned(
    paths: Sequence[Path],
    pictures: int,
    prior: Sequence[Path],
    take: Sequence[str],
    leave: Sequence[str],
    which: Callable[[Sequence[Series], str], tuple[Series, str]] | None = None,
) -> tuple[StudyPlan, dict[str, Series]]:
    with quiet():
        current = _series(paths)
        before = _series(prior) if prior else []
        where = ", ".join(map(str, [*paths, *prior]))
        require_one_patient([header for one in (*current, *before) for header in one.kinds], where)
        if (_uids(before) & _uids(current)) - {""}:
            raise StudyError(
                found="the study itself as its prior study",
                expected="an earlier study of the patient",
                where=where,
                remedy="give the folder of that earlier study",
            )
        if _dates(before) and _dates(current) and max(_dates(current)) < min(_dates(before)):
            raise StudyError(
                found="a prior study of a later date",
                expected="one before the study",
                where=where,
                remedy="exchange the two, or what has grown is said to have shrunk",
            )
        why = ""
        if which is not None:
            chosen, why = which(current, where)
            take, leave = [chosen.uid], [one.uid for one in current if one is not chosen]
        plan = plan_study(
            all_facts(current), pictures=pictures, prior=all_facts(before), take=take, leave=leave
        )
        if why:
            whys = (one.why if one.prior else why if one.taken else _ALONE for one in plan.series)
            told = (replace(one, why=said) for one, said in zip(plan.series, whys, strict=True))
            plan = replace(plan, series=tuple(told))
    return plan, {one.uid: one for one in (*before, *current)}


def _uids(series: Sequence[Series]) -> set[str]:
    return {header.study_instance_uid for one in series for header in one.kinds}


def _dates(series: Sequence[Series]) -> set[str]:
    """Study Date (0008,0020) of each header that has one, as YYYYMMDD."""
    return {text(header, "StudyDate") for one in series for header in one.kinds} - {""}


def _series(paths: Sequence[Path]) -> list[Series]:
    """The series of one study.

    Raises:
        StudyError: If they are of several, or there is none.
    """
    where = ", ".join(map(str, paths))
    listing = list_entries(paths)
    if not listing.entries and not listing.files:
        raise nothing_found(listing, where)
    if not listing.entries:
        raise StudyError(
            found="no DICOM images",
            expected="the series of a study",
            where=where,
            remedy="give a folder, a DICOMDIR or a zip of DICOM; one volume alone has no series",
        )
    found, _ = all_series(listing, where)
    studies = _uids(found)
    if len(studies) > 1:
        raise StudyError(
            found=f"{len(studies)} studies",
            expected="the series of one study",
            where=where,
            remedy="give each study by itself, an earlier one as the prior",
        )
    return found
