"""The files of a reading: first what other programs wait for, then the pictures and the page for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from medmllm_plugin import page, pictures
from medmllm_plugin.report import Report
from medmllm_plugin.sliceset import SliceSet, picture_name

PAGE = "report.html"
"""The page's name; it is written last, so that all is there once it is."""

_PRIOR, _INSIDE = "prior", "pictures/"


def write_report(
    report: Report,
    slices: SliceSet,
    folder: Path,
    *,
    headers: Sequence[Dataset],
    priors: Sequence[SliceSet] = (),
    sr: str = "default",
    predecessors: Mapping[str, Sequence[Dataset]] | None = None,
) -> dict[str, Path]:
    """Write a report as JSON and as DICOM objects, and what its pictures are, into an empty folder.

    Args:
        report: Of one study.
        slices: The pictures that it was read from.
        folder: Where to.
        headers: Of that study's images; without any no DICOM object is written.
        priors: The pictures of an earlier study.
        sr: Which DICOM objects: a name of `sr_profile.PROFILES`.
        predecessors: As `sr_profile.dicom_files`.

    Returns:
        Paths by what they are, as `pipeline.write` says.

    Raises:
        SettingsError: If there is no such profile.
        MedMLLMError: If the report can't be written as the profile asks.
    """
    from medmllm_plugin.dicom_bridge import sr_profile

    profile = sr_profile.profile(sr)
    made = (
        sr_profile.dicom_files(
            report,
            headers,
            slices,
            profile=profile,
            predecessors=predecessors,
            prior_study=next((one.study.study_instance_uid for one in priors), None),
        )
        if headers
        else []
    )
    files = {"report": folder / "report.json", "slices": _list(slices, folder, inside=_INSIDE)}
    files["report"].write_text(report.to_text(), encoding="utf-8")
    for before in priors:
        (folder / _PRIOR).mkdir()
        files["prior_slices"] = _list(before, folder / _PRIOR, inside=_INSIDE, first=len(slices) + 1)
    for one in made:
        path = folder / one.name
        path.parent.mkdir(exist_ok=True)
        one.dataset.save_as(path, enforce_file_format=True)
        files[one.key] = path if path.parent == folder else path.parent
    return files


def write_pictures(
    report: Report, slices: SliceSet, folder: Path, *, priors: Sequence[SliceSet] = ()
) -> dict[str, Path]:
    """Write the pictures of a report and its page into the folder where it is, or one that is joined with it.

    Args:
        report: Its boxes name pictures of `slices`.
        slices: The pictures that it was read from.
        folder: Where to; it holds none of them yet.
        priors: The pictures of an earlier study, whose numbers follow.

    Returns:
        Paths by what they are, as `pipeline.write` says.
    """
    files = {"pictures": _draw(slices, folder / _INSIDE)}
    for before in priors:
        files["prior_pictures"] = _draw(before, folder / _PRIOR / _INSIDE, first=len(slices) + 1)
    files["page"] = folder / PAGE
    files["page"].write_text(page.render(report, slices, priors=priors), encoding="utf-8")
    return files


def write_slices(slices: SliceSet, folder: Path, *, inside: str = "", first: int = 1) -> dict[str, Path]:
    """Write `slices.json` into an empty folder, and the pictures beside it or `inside` a folder there.

    Args:
        slices: The pictures.
        folder: Where to.
        inside: A folder in it for the pictures, with a slash at its end.
        first: The number of the first picture.
    """
    listed = _list(slices, folder, inside=inside, first=first)
    return {"slices": listed, "pictures": _draw(slices, folder / inside, first=first)}


def is_of(slices: SliceSet, folder: Path) -> bool:
    """Whether these are the pictures that the report in a folder was read from, by its `slices.json`.

    Raises:
        OSError: If the folder has none.
    """
    known = json.loads((folder / "slices.json").read_text("utf-8"))
    return bool(known == json.loads(json.dumps(slices.to_json(folder=_INSIDE))))


def _list(slices: SliceSet, folder: Path, *, inside: str, first: int = 1) -> Path:
    path = folder / "slices.json"
    listed = slices.to_json(folder=inside, first=first)
    path.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    return path


def _draw(slices: SliceSet, folder: Path, *, first: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(slices.slices, first):
        (folder / picture_name(number)).write_bytes(pictures.png_bytes(one.pixels))
    return folder
