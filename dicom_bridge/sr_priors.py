"""The images of an earlier study that findings are compared with, as an SR cites them (PS3.3 C.17.2).

They are of another study, so they stand in Pertinent Other Evidence Sequence (0040,A385), and in the tree as
what a finding is compared with (Baseline, PS3.16 CID 7003), never as what it is seen on.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DatasetSequence

from medmllm_plugin.dicom_bridge.sr_references import whole
from medmllm_plugin.findings import Finding
from medmllm_plugin.source import DicomImage


def prior_references(finding: Finding) -> tuple[Dataset, ...]:
    """The earlier images that a finding is compared with, as items of Referenced SOP Sequence (0008,1199)."""
    return tuple(_reference(one) for one in _images([finding]))


def other_evidence(findings: Iterable[Finding], study_instance_uid: str) -> Dataset | None:
    """The item of Pertinent Other Evidence Sequence for all of them; None where none is cited.

    Args:
        findings: Of one report.
        study_instance_uid: Of the earlier study.
    """
    series: dict[str, dict[str, DicomImage]] = {}
    for one in _images(findings):
        series.setdefault(one.series_instance_uid, {}).setdefault(one.sop_instance_uid, one)
    if not series:
        return None
    item = Dataset()
    item.StudyInstanceUID = study_instance_uid
    item.ReferencedSeriesSequence = DatasetSequence(
        _series(uid, images.values()) for uid, images in series.items()
    )
    return item


def _images(findings: Iterable[Finding]) -> list[DicomImage]:
    return [one for finding in findings for one in finding.prior_images if isinstance(one, DicomImage)]


def _series(uid: str, images: Iterable[DicomImage]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = uid
    item.ReferencedSOPSequence = DatasetSequence(
        whole(one.sop_class_uid, one.sop_instance_uid) for one in images
    )
    return item


def _reference(image: DicomImage) -> Dataset:
    reference = whole(image.sop_class_uid, image.sop_instance_uid)
    if image.frame is not None:
        reference.ReferencedFrameNumber = image.frame
    return reference
