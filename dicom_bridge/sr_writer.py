"""A report as two DICOM Structured Reports, each in its own series.

`findings_sr` is a Comprehensive 3D SR of TID 1500: boxes, codes, numbers. `text_sr` is an Enhanced SR of
TID 2000: the words. Both come from the report and the image headers alone; both are unverified and
preliminary, and a second run of the same reading replaces the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.uid import UID, Comprehensive3DSRStorage, EnhancedSRStorage

from medmllm_plugin.dicom_bridge.sr_document import Series, document
from medmllm_plugin.dicom_bridge.sr_findings import findings_tree
from medmllm_plugin.dicom_bridge.sr_images import StudyImages
from medmllm_plugin.dicom_bridge.sr_text import text_tree
from medmllm_plugin.findings import Status
from medmllm_plugin.report import Outcome, Report

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


def findings_sr(report: Report, headers: Sequence[Dataset], *, written: datetime | None = None) -> Dataset:
    """The findings of a report as a Comprehensive 3D SR (PS3.3 A.35.13) of TID 1500.

    Args:
        report: The reading of one study; a normal, failed or outside-domain one gives an SR too.
        headers: Headers of that study's images, all that the SR shall name as evidence; no pixels needed.
        written: Content Date and Time; now by default.

    Returns:
        A dataset ready for `save_as(path, enforce_file_format=True)`.

    Raises:
        StudyError: If the headers are of several studies or patients, or lack UIDs.
        ValueError: If a finding cites an image or frame that is not among the headers, a box leaves its
            image, two findings share a tracking UID, or the outcome contradicts the findings.
    """
    images = _checked(report, headers)
    tree = findings_tree(report, images)
    return document(
        tree, report=report, images=images, series=FINDINGS_SERIES, written=written or datetime.now()
    )


def text_sr(report: Report, headers: Sequence[Dataset], *, written: datetime | None = None) -> Dataset:
    """The words of a report as an Enhanced SR (PS3.3 A.35.2) of TID 2000.

    Arguments, result and errors are those of `findings_sr`.
    """
    images = _checked(report, headers)
    tree = text_tree(report, images)
    return document(tree, report=report, images=images, series=TEXT_SERIES, written=written or datetime.now())


def _checked(report: Report, headers: Sequence[Dataset]) -> StudyImages:
    """The images, once all that both SRs rely on is seen to hold."""
    images = StudyImages(headers, first_series=report.study.series_instance_uid)
    if report.study.study_instance_uid != images.study_instance_uid:
        raise ValueError(
            f"the report is of study {report.study.study_instance_uid}, "
            f"the headers are of {images.study_instance_uid}"
        )
    uids = Counter(finding.tracking_uid for finding in report.findings)
    for uid, count in uids.items():
        if not UID(uid, validation_mode=IGNORE).is_valid:
            raise ValueError(f"tracking UID {uid!r} is not a UID")
        if count > 1:
            raise ValueError(f"{count} findings share the tracking UID {uid}; each needs its own")
    stated = sum(finding.status is not Status.ABSENT for finding in report.findings)
    present = sum(finding.status is Status.PRESENT for finding in report.findings)
    if report.outcome is Outcome.NO_FINDINGS and present:
        raise ValueError(f"the outcome is no-findings, but {present} findings are present")
    if report.outcome is Outcome.FINDINGS and not stated:
        raise ValueError("the outcome is findings, but none is present or indeterminate")
    if report.outcome not in (Outcome.FINDINGS, Outcome.NO_FINDINGS) and report.findings:
        raise ValueError(f"the outcome is {report.outcome.value}, so there can be no findings")
    return images
