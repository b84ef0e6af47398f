"""The whole line, from paths to a report and its files: the only module that knows every step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medmllm_plugin import engine, page, pictures, registry
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models import Model
from medmllm_plugin.report import Report
from medmllm_plugin.sliceset import SliceSet, picture_name
from medmllm_plugin.tasks import TASKS, Task
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.recipes import settings_of
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.transforms.window import PRESETS
from medmllm_plugin.volume import Volume

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); stages are `reading`, `pictures`, `model`, `thinking`, `report`."""


NO_SR = "no DICOM SR is written: the input is not DICOM, so it names no patient and study to write one for"
"""The note on a reading of a NIfTI, NRRD or MetaImage file."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reading:
    """A study as read: what went in, what was shown, what was said."""

    report: Report
    slices: SliceSet
    volume: Volume


def read(
    paths: Sequence[Path | str] | Path | str,
    *,
    task: str = "report",
    question: str | None = None,
    model: str | Model = "embedded",
    series: str | None = None,
    volume: int | str | None = None,
    modality: str | None = None,
    count: int | None = None,
    plan: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Reading:
    """Read a study: a folder, files, a DICOMDIR, a zip, or a NIfTI, NRRD or MetaImage file.

    Args:
        paths: What to read, one study.
        task: A name of `tasks.TASKS`.
        question: The user's own question, for the task `question`.
        model: A name that `registry.open_model` knows, or a model.
        series: Which series: its UID, the end of it, or its number; None chooses and says why.
        volume: Of a series or file of several volumes which one, as `read_volume` takes it.
        modality: What a NIfTI, NRRD or MetaImage file shows, such as CT, since it doesn't say.
        count: Most pictures; None for what suits the model.
        plan: How pictures are chosen and made, as `transforms.recipes.settings_of` takes it; None for what
            suits the model.
        seed: For models that sample.
        progress: Called as the work goes on.

    Raises:
        MedMLLMError: One of its branches, see `errors`.
    """
    tell = progress or (lambda stage, done, total: None)
    chosen = _task(task)
    asked = settings_of(plan) if plan is not None else {}
    tell("reading", 0, 1)
    places = [paths] if isinstance(paths, Path | str) else paths
    whole = read_volume([Path(path) for path in places], series=series, modality=modality, volume=volume)
    tell("reading", 1, 1)
    tell("model", 0, 1)
    reader = registry.open_model(model) if isinstance(model, str) else model
    tell("model", 1, 1)
    slices = shown_to(
        reader,
        whole,
        plans=plans_for(reader, whole, count=count, asked=asked),
        progress=lambda done, total: tell("pictures", done, total),
    )
    tell("pictures", len(slices), len(slices))
    if not whole.headers:
        slices = replace(slices, notes=(*slices.notes, NO_SR))
    report = engine.run(
        chosen,
        slices,
        reader,
        question=question,
        seed=seed,
        progress=lambda done, total: tell("thinking", done, total),
    )
    return Reading(report=report, slices=slices, volume=whole)


def plan_for(
    model: Model, volume: Volume, *, count: int | None = None, asked: Mapping[str, Any] | None = None
) -> SlicePlan:
    """The slice plan that suits a model, as far as the volume allows it: the first of `plans_for`."""
    return plans_for(model, volume, count=count, asked=asked)[0]


def plans_for(
    model: Model, volume: Volume, *, count: int | None = None, asked: Mapping[str, Any] | None = None
) -> tuple[SlicePlan, ...]:
    """The slice plans that may suit a model, as far as the volume allows them.

    Several where the model has plans of its own for kinds of studies of this modality and nothing says which
    kind the volume is.

    Args:
        model: The model; its own plans and its limits of pictures and tokens count.
        volume: What is shown.
        count: Most pictures; None for what suits the model.
        asked: Settings of `SlicePlan` that a user asked for; they stand before the model's own.

    Raises:
        SettingsError: If the model's own plan is not one, or the settings can't be joined to one.
    """
    plans = [
        _plan(model, own, volume, count, asked or {}) for own in model.capabilities.plans_for(volume.study)
    ]
    return tuple(dict.fromkeys(plans))


def shown_to(
    model: Model,
    volume: Volume,
    *,
    plans: Sequence[SlicePlan],
    progress: Callable[[int, int], None] | None = None,
) -> SliceSet:
    """A volume as the first plan shows it that keeps it in the model's domain; if none does, as the first."""
    first: SliceSet | None = None
    for plan in plans:
        slices = plan.apply(volume, progress=progress)
        if len(plans) == 1 or model.outside_domain(slices) is None:
            return slices
        first = first or slices
    if first is None:
        raise ValueError("to show a volume needs a plan")
    return first


def _plan(
    model: Model, settings: Mapping[str, Any], volume: Volume, count: int | None, asked: Mapping[str, Any]
) -> SlicePlan:
    able, own = model.capabilities, dict(settings)
    if own.get("window") in PRESETS and volume.unit != "HU":
        del own["window"]
    if able.tokens is not None:
        own.setdefault("tokens", able.tokens)
    joined: dict[str, Any] = {**own, **asked}
    joined.setdefault("count", min(SlicePlan().usual_count, able.pictures))
    if count is not None:
        joined["count"] = count
    try:
        plan = SlicePlan(**joined)
    except TypeError as error:
        raise SettingsError(f"{model.name}: its slice plan {joined} is not one ({error})") from error
    return plan if plan.count is not None else replace(plan, count=min(plan.usual_count, able.pictures))


def write(reading: Reading, folder: Path, *, sr: str = "default") -> dict[str, Path]:
    """Write a reading's files into an empty folder.

    Args:
        reading: The study as read.
        folder: Where to.
        sr: Which DICOM objects: a name of `sr_profile.PROFILES`.

    Returns:
        Paths by what they are: `report`, `page`, `slices`, `pictures` (a folder); for DICOM input also
        `findings_sr` (TID 1500), `report_sr` (TID 2000), where findings cite images `key_images` (TID 2010),
        and as the profile has it `points_sr` and `key_pictures` (a folder).

    Raises:
        SettingsError: If there is no such profile.
        MedMLLMError: If the report can't be written as the profile asks.
    """
    from medmllm_plugin.dicom_bridge import sr_profile

    profile, headers = sr_profile.profile(sr), reading.volume.headers
    made = sr_profile.dicom_files(reading.report, headers, reading.slices, profile=profile) if headers else []
    files = {
        "report": folder / "report.json",
        "page": folder / "report.html",
        **write_slices(reading.slices, folder, inside="pictures/"),
    }
    files["report"].write_text(reading.report.to_text(), encoding="utf-8")
    files["page"].write_text(page.render(reading.report, reading.slices), encoding="utf-8")
    for one in made:
        path = folder / one.name
        path.parent.mkdir(exist_ok=True)
        one.dataset.save_as(path, enforce_file_format=True)
        files[one.key] = path if path.parent == folder else path.parent
    return files


def write_slices(slices: SliceSet, folder: Path, *, inside: str = "") -> dict[str, Path]:
    """Write `slices.json` into an empty folder, and the pictures beside it or `inside` a folder there."""
    files = {"slices": folder / "slices.json", "pictures": folder / inside}
    files["pictures"].mkdir(exist_ok=True)
    for number, one in enumerate(slices.slices, 1):
        (files["pictures"] / picture_name(number)).write_bytes(pictures.png_bytes(one.pixels))
    files["slices"].write_text(json.dumps(slices.to_json(folder=inside), indent=1) + "\n", encoding="utf-8")
    return files


def _task(name: str) -> Task:
    try:
        return TASKS[name]
    except KeyError:
        raise SettingsError(f"no task is named {name!r}; there are: {', '.join(TASKS)}") from None
