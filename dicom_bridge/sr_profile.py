"""Which DICOM objects are written of a reading, by the name of a profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
)

from medmllm_plugin.dicom_bridge.key_pictures import key_pictures
from medmllm_plugin.dicom_bridge.sr_key_objects import key_images, key_object_selection
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, points_sr, text_sr
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.report import Report
from medmllm_plugin.sliceset import SliceSet


@dataclass(frozen=True, kw_only=True, slots=True)
class SrProfile:
    """What is written of a reading; each kind of object is a series of its own."""

    findings_sop_class: str = Comprehensive3DSRStorage
    """Of the findings (TID 1500); one of `sr_writer.FINDINGS_SOP_CLASSES`."""
    text_sop_class: str = EnhancedSRStorage
    """Of the narrative (TID 2000); one of `sr_writer.TEXT_SOP_CLASSES`."""
    points: bool = False
    """Whether the findings are also written as points in the patient."""
    pictures: bool = False
    """Whether the pictures of the findings are also written as plain images."""


PROFILES = {
    "default": SrProfile(),
    "points": SrProfile(points=True),
    "legacy": SrProfile(
        findings_sop_class=ComprehensiveSRStorage, text_sop_class=BasicTextSRStorage, pictures=True
    ),
}
"""`default` is for viewers of today, `points` for 3D Slicer's own SR loader, `legacy` for old PACS."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DicomFile:
    """An object of ours and its place among the files of a reading."""

    key: str
    """What it is, as `pipeline.write` calls it."""
    name: str
    """File name, `/` after a folder."""
    dataset: Dataset


def profile(name: str) -> SrProfile:
    """The profile of that name.

    Raises:
        SettingsError: If there is none.

    >>> profile("points").points
    True
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise SettingsError(f"no SR profile is named {name!r}; there are: {', '.join(PROFILES)}") from None


def dicom_files(
    report: Report,
    headers: Sequence[Dataset],
    slices: SliceSet,
    *,
    profile: SrProfile | None = None,
    predecessors: Mapping[str, Sequence[Dataset]] | None = None,
    prior_study: str | None = None,
    written: datetime | None = None,
) -> list[DicomFile]:
    """All DICOM objects of a reading, none written yet, so that a refusal leaves nothing behind.

    Args:
        report: The reading of one study.
        headers: Headers of that study's images.
        slices: The pictures that it was read from.
        profile: What to write; `default` by default.
        predecessors: By `DicomFile.key` the objects of an earlier report that this one amends.
        prior_study: As `findings_sr`.
        written: Content Date and Time; now by default.

    Raises:
        StudyError: As `findings_sr`, `points_sr` say.
        ValueError: As `findings_sr` says.
    """
    asked, written = profile or PROFILES["default"], written or datetime.now()
    return list(_made(report, headers, slices, asked, predecessors or {}, prior_study, written))


def _made(
    report: Report,
    headers: Sequence[Dataset],
    slices: SliceSet,
    asked: SrProfile,
    before: Mapping[str, Sequence[Dataset]],
    prior_study: str | None,
    written: datetime,
) -> Iterator[DicomFile]:
    def amended(key: str) -> Sequence[Dataset]:
        return before.get(key, ())

    findings = findings_sr(
        report,
        headers,
        sop_class=asked.findings_sop_class,
        predecessors=amended("findings_sr"),
        prior_study=prior_study,
        written=written,
    )
    yield DicomFile(key="findings_sr", name="findings.dcm", dataset=findings)
    text = text_sr(
        report,
        headers,
        sop_class=asked.text_sop_class,
        predecessors=amended("report_sr"),
        written=written,
    )
    yield DicomFile(key="report_sr", name="report.dcm", dataset=text)
    # the other objects are named by none, but must not take the UIDs of those before
    if key_images(report):
        selection = key_object_selection(
            report, headers, predecessors=amended("findings_sr"), written=written
        )
        yield DicomFile(key="key_images", name="key_images.dcm", dataset=selection)
    if asked.points:
        points = points_sr(
            report,
            headers,
            predecessors=amended("points_sr"),
            prior_study=prior_study,
            written=written,
        )
        yield DicomFile(key="points_sr", name="points.dcm", dataset=points)
    if asked.pictures:
        pictures = key_pictures(report, headers, slices, predecessors=amended("findings_sr"), written=written)
        for number, one in enumerate(pictures, 1):
            yield DicomFile(key="key_pictures", name=f"key_pictures/{number:03d}.dcm", dataset=one)
