"""What must hold before anything is written of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.uid import UID

from medmllm_plugin.dicom_bridge.sr_images import StudyImages
from medmllm_plugin.findings import Status
from medmllm_plugin.report import Outcome, Report


def checked_images(report: Report, headers: Sequence[Dataset]) -> StudyImages:
    """The images of a report, once all that every object of ours relies on is seen to hold.

    Raises:
        StudyError: If the headers are of several studies or patients, or lack UIDs.
        ValueError: If the report is of another study, a finding or sentence cites an image or frame that is
            not among the headers, a box leaves its image, two findings share a tracking UID, or the outcome
            contradicts the findings.
    """
    images = StudyImages(headers, first_series=report.study.series_instance_uid)
    if report.study.study_instance_uid != images.study_instance_uid:
        raise ValueError(
            f"the report is of study {report.study.study_instance_uid}, "
            f"the headers are of {images.study_instance_uid}"
        )
    _check_places(report, images)
    _check_tracking_uids(report)
    _check_outcome(report)
    return images


def _check_places(report: Report, images: StudyImages) -> None:
    for finding in report.findings:
        if finding.box is not None:
            images.boxed(finding.box)
    cited = [one.images for one in report.findings] + [one.images for one in report.narrative]
    for image in chain.from_iterable(cited):
        images.reference(image)


def _check_tracking_uids(report: Report) -> None:
    uids = Counter(finding.tracking_uid for finding in report.findings)
    for uid, count in uids.items():
        if not UID(uid, validation_mode=IGNORE).is_valid:
            raise ValueError(f"tracking UID {uid!r} is not a UID")
        if count > 1:
            raise ValueError(f"{count} findings share the tracking UID {uid}; each needs its own")


def _check_outcome(report: Report) -> None:
    stated = sum(finding.status is not Status.ABSENT for finding in report.findings)
    present = sum(finding.status is Status.PRESENT for finding in report.findings)
    if report.outcome is Outcome.NO_FINDINGS and present:
        raise ValueError(f"the outcome is no-findings, but {present} findings are present")
    if report.outcome is Outcome.FINDINGS and not stated:
        raise ValueError("the outcome is findings, but none is present or indeterminate")
    # a question that was answered may have denied a finding, and the rest of the study is not assessed
    denied = len(report.findings) if report.outcome is Outcome.NOT_ASSESSED and not stated else 0
    if report.outcome not in (Outcome.FINDINGS, Outcome.NO_FINDINGS) and len(report.findings) > denied:
        raise ValueError(f"the outcome is {report.outcome.value}, so there can be no findings")
