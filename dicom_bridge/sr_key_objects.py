"""The images of the findings as a Key Object Selection (TID 2010), for the key-image list of a PACS."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DatasetSequence
from pydicom.uid import KeyObjectSelectionDocumentStorage

from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_document import device_items, language_item, machine_made
from medmllm_plugin.dicom_bridge.sr_header import Series
from medmllm_plugin.dicom_bridge.sr_items import Relationship, container, image_item, text_item
from medmllm_plugin.dicom_bridge.sr_preconditions import checked_images
from medmllm_plugin.dicom_bridge.sr_references import referenced, settled
from medmllm_plugin.dicom_bridge.sr_words import comment, tracking_identifier
from medmllm_plugin.findings import Status
from medmllm_plugin.report import DISCLAIMER, Report
from medmllm_plugin.source import ImageRef

KEY_OBJECT_SERIES = Series(
    name="key objects",
    number=9003,
    description="AI key images (unverified)",
    sop_class_uid=KeyObjectSelectionDocumentStorage,
    modality="KO",
)


def key_images(report: Report) -> tuple[ImageRef, ...]:
    """The images to look at: of each finding that may be there its box's image, else those it cites."""
    there = [finding for finding in report.findings if finding.status is not Status.ABSENT]
    images = [one for finding in there for one in ((finding.box.image,) if finding.box else finding.images)]
    return tuple(dict.fromkeys(images))


def key_object_selection(
    report: Report,
    headers: Sequence[Dataset],
    *,
    predecessors: Sequence[Dataset] = (),
    written: datetime | None = None,
) -> Dataset:
    """The `key_images` of a report as a Key Object Selection Document (PS3.3 A.35.4), "Of Interest".

    Args:
        report: The reading of one study.
        headers: Headers of that study's images.
        predecessors: Earlier selections that late images outdated, so the UIDs are others; such a document
            has no place to name them.
        written: Content Date and Time; now by default.

    Returns:
        A dataset ready for `save_as(path, enforce_file_format=True)`.

    Raises:
        StudyError: If the headers are of several studies or patients, or lack UIDs.
        ValueError: If no finding that may be there cites an image, and as `findings_sr` says.
    """
    images = checked_images(report, headers)
    chosen = key_images(report)
    if not chosen:
        raise ValueError("no finding cites an image, so there are no key images")
    document = machine_made(
        report,
        images,
        series=KEY_OBJECT_SERIES,
        written=written or datetime.now(),
        predecessors=predecessors,
    )
    evidence = referenced(images.study_instance_uid, images.cited(chosen))
    document.CurrentRequestedProcedureEvidenceSequence = DatasetSequence([evidence])
    description = "\n".join([DISCLAIMER, *_lines(report)])
    contains = Relationship.CONTAINS
    root = container(
        None,
        concepts.OF_INTEREST,
        [
            language_item(description),
            *device_items(report.provenance),
            text_item(contains, concepts.KEY_OBJECT_DESCRIPTION, description),
            *(image_item(contains, None, images.reference(image)) for image in chosen),
        ],
        template="2010",
    )
    for element in root:
        document.add(element)
    return settled(document)


def _lines(report: Report) -> list[str]:
    return [
        f"{tracking_identifier(number, finding)}: {comment(finding)}"
        for number, finding in enumerate(report.findings, 1)
        if finding.status is not Status.ABSENT
    ]
