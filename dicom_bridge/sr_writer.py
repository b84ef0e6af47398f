"""A report as DICOM Structured Reports, each in its own series.

`findings_sr` is tree A, TID 1500: boxes, codes, numbers; `points_sr` the same with points in the patient;
`text_sr` is tree B, TID 2000: the words. All come from the report and the image headers alone; all are
unverified and preliminary, and a second run of the same reading replaces the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
)

from medmllm_plugin.dicom_bridge.sr_document import document
from medmllm_plugin.dicom_bridge.sr_findings import center_point, findings_tree
from medmllm_plugin.dicom_bridge.sr_header import Series
from medmllm_plugin.dicom_bridge.sr_preconditions import checked_images
from medmllm_plugin.dicom_bridge.sr_priors import other_evidence
from medmllm_plugin.dicom_bridge.sr_text import text_tree
from medmllm_plugin.report import Report

FINDINGS_SERIES = Series(
    name="findings",
    number=9001,
    description="AI findings (unverified)",
    sop_class_uid=Comprehensive3DSRStorage,
)
TEXT_SERIES = Series(
    name="text",
    number=9002,
    description="AI draft report (unverified)",
    sop_class_uid=EnhancedSRStorage,
)
POINTS_SERIES = Series(
    name="points",
    number=9004,
    description="AI findings as points (unverified)",
    sop_class_uid=Comprehensive3DSRStorage,
)

FINDINGS_SOP_CLASSES = (Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage)
"""What tree A may be stored as: the first is what IHE AIR asks for, the others are for old PACS."""
TEXT_SOP_CLASSES = (EnhancedSRStorage, BasicTextSRStorage, ComprehensiveSRStorage)
"""What tree B may be stored as; Basic Text is what the oldest PACS shows."""


def findings_sr(
    report: Report,
    headers: Sequence[Dataset],
    *,
    sop_class: str = Comprehensive3DSRStorage,
    predecessors: Sequence[Dataset] = (),
    prior_study: str | None = None,
    written: datetime | None = None,
) -> Dataset:
    """The findings of a report as an SR of TID 1500, by default a Comprehensive 3D SR (PS3.3 A.35.13).

    Args:
        report: The reading of one study; a normal, failed or outside-domain one gives an SR too.
        headers: Headers of that study's images, all that the SR shall name as evidence; no pixels needed.
        sop_class: One of `FINDINGS_SOP_CLASSES`.
        predecessors: Earlier AI SRs of this study that this one amends, such as when late images changed the
            reading. They are named (PS3.3 C.17.2, Predecessor Documents Sequence) and never overwritten.
        prior_study: Study Instance UID of the earlier study that findings are compared with; None where its
            images aren't cited.
        written: Content Date and Time; now by default.

    Returns:
        A dataset ready for `save_as(path, enforce_file_format=True)`.

    Raises:
        StudyError: If the headers are of several studies or patients, or lack UIDs.
        ValueError: If a finding cites an image or frame that is not among the headers, a box leaves its
            image, two findings share a tracking UID, the outcome contradicts the findings, a predecessor is
            of another study or patient, or `sop_class` is none of those above.
    """
    images = checked_images(report, headers)
    return document(
        findings_tree(report, images, compared=prior_study is not None),
        report=report,
        images=images,
        series=_stored_as(FINDINGS_SERIES, sop_class, FINDINGS_SOP_CLASSES),
        written=written or datetime.now(),
        predecessors=predecessors,
        others=None if prior_study is None else other_evidence(report.findings, prior_study),
    )


def points_sr(
    report: Report,
    headers: Sequence[Dataset],
    *,
    predecessors: Sequence[Dataset] = (),
    prior_study: str | None = None,
    written: datetime | None = None,
) -> Dataset:
    """The findings as `findings_sr` has them, each at one point in the patient (SCOORD3D) for its box.

    3D Slicer's stock loader places points right in every orientation, boxes only on axial series. A finding
    without a place in the patient is a qualitative evaluation here.

    Arguments, result and errors are those of `findings_sr`, and:

    Raises:
        StudyError: If a finding has a place in millimetres and its image no Frame of Reference UID.
    """
    images = checked_images(report, headers)
    return document(
        findings_tree(report, images, place=center_point, compared=prior_study is not None),
        report=report,
        images=images,
        series=POINTS_SERIES,
        written=written or datetime.now(),
        predecessors=predecessors,
        others=None if prior_study is None else other_evidence(report.findings, prior_study),
    )


def text_sr(
    report: Report,
    headers: Sequence[Dataset],
    *,
    sop_class: str = EnhancedSRStorage,
    predecessors: Sequence[Dataset] = (),
    written: datetime | None = None,
) -> Dataset:
    """The words of a report as an SR of TID 2000, by default an Enhanced SR (PS3.3 A.35.2).

    Arguments, result and errors are those of `findings_sr`, but `sop_class` is one of `TEXT_SOP_CLASSES`.
    """
    images = checked_images(report, headers)
    return document(
        text_tree(report, images),
        report=report,
        images=images,
        series=_stored_as(TEXT_SERIES, sop_class, TEXT_SOP_CLASSES),
        written=written or datetime.now(),
        predecessors=predecessors,
    )


def _stored_as(series: Series, sop_class: str, allowed: Sequence[str]) -> Series:
    """The series of another SOP class: one UID never stands for objects of two."""
    if sop_class not in allowed:
        names = ", ".join(UID(one).name for one in allowed)
        raise ValueError(f"{series.description} can't be a {UID(sop_class).name}; it can be: {names}")
    if sop_class == series.sop_class_uid:
        return series
    return replace(series, name=f"{series.name} {sop_class}", sop_class_uid=sop_class)
