"""Tree A: the findings as an Imaging Measurement Report (TID 1500), one box to a group.

A finding with a box becomes a Measurement Group (TID 1410). Everything else stands in Qualitative
Evaluations: findings without a place, coded negatives, how the reading ended, and what a reader must know.
An absent finding is never "Finding = X" with a modifier that a viewer may drop, but "X = Absent".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from pydicom.dataset import Dataset

from medmllm_plugin import codes
from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_document import MANUFACTURER, language_item, observer_items, or_unknown
from medmllm_plugin.dicom_bridge.sr_images import StudyImages
from medmllm_plugin.dicom_bridge.sr_items import (
    Relationship,
    box_item,
    code_item,
    container,
    has_words,
    image_item,
    num_item,
    text_item,
    uidref_item,
)
from medmllm_plugin.dicom_bridge.sr_words import MODALITIES, OUTCOME_WORDS, comment, outcome_code
from medmllm_plugin.findings import Box, Finding, Side, Status
from medmllm_plugin.report import DISCLAIMER, Report

_CONTAINS, _MODIFIER, _OBSERVED = (
    Relationship.CONTAINS,
    Relationship.HAS_CONCEPT_MOD,
    Relationship.HAS_OBS_CONTEXT,
)


def findings_tree(report: Report, images: StudyImages) -> Dataset:
    """The root CONTAINER of tree A.

    Raises:
        ValueError: If a finding cites what is not among the images, or a box leaves its image.
    """
    numbered = list(enumerate(report.findings, 1))
    placed = [one for one in numbered if _is_placed(one[1])]
    sentences = [finding.sentence for finding in report.findings]
    children = [language_item(*sentences), *observer_items(report), _library(images)]
    if placed:
        groups = [_group(number, finding, report, images) for number, finding in placed]
        children.append(container(_CONTAINS, concepts.IMAGING_MEASUREMENTS, groups))
    others = [finding for finding in report.findings if not _is_placed(finding)]
    children.append(_evaluations(report, others, images))
    return container(None, concepts.IMAGING_MEASUREMENT_REPORT, children, template="1500")


def parameters(report: Report) -> str:
    """What it takes to run the reading again, as one line of JSON: readers keep only the first such item."""
    known = asdict(report.provenance)
    for elsewhere in ("model", "model_version", "seconds"):
        del known[elsewhere]
    return json.dumps(known, ensure_ascii=False, separators=(",", ":"))


def _is_placed(finding: Finding) -> bool:
    return finding.box is not None and finding.status is not Status.ABSENT


def _library(images: StudyImages) -> Dataset:
    """The Image Library (TID 1600): what a series' images share is said once, in its group (TID 1602)."""
    acquired = Relationship.HAS_ACQ_CONTEXT
    groups = []
    for headers in images.series.values():
        items = []
        modality = _shared(headers, "Modality")
        if modality in MODALITIES:
            items.append(code_item(acquired, concepts.MODALITY, MODALITIES[modality]))
        frame_of_reference = _shared(headers, "FrameOfReferenceUID")
        if frame_of_reference:
            items.append(uidref_item(acquired, concepts.FRAME_OF_REFERENCE, frame_of_reference))
        for name, keyword in ((concepts.ROWS, "Rows"), (concepts.COLUMNS, "Columns")):
            count = _shared(headers, keyword)
            if count:
                items.append(num_item(acquired, name, int(count), concepts.PIXELS))
        items += [image_item(_CONTAINS, concepts.SOURCE, images.whole(header)) for header in headers]
        groups.append(container(_CONTAINS, concepts.IMAGE_LIBRARY_GROUP, items))
    return container(_CONTAINS, concepts.IMAGE_LIBRARY, groups)


def _shared(headers: Sequence[Dataset], keyword: str) -> str:
    """The value that all headers have, else nothing."""
    values = {str(header.get(keyword) or "") for header in headers}
    return values.pop() if len(values) == 1 else ""


def _group(number: int, finding: Finding, report: Report, images: StudyImages) -> Dataset:
    """A finding with its place, as a Measurement Group of one planar region (TID 1410).

    The first NUM carries the region too: without it OHIF draws the box and then can't make it its own.
    """
    if finding.box is None:
        raise ValueError(f"{finding.finding} has no box, so it is no measurement group")
    finding_code = codes.finding(finding.finding).code
    items = [
        text_item(_OBSERVED, concepts.TRACKING_IDENTIFIER, _tracking_identifier(number, finding)),
        uidref_item(_OBSERVED, concepts.TRACKING_UID, finding.tracking_uid),
        code_item(_CONTAINS, concepts.FINDING_CATEGORY, concepts.ABNORMAL_STRUCTURE),
        code_item(_CONTAINS, concepts.FINDING, finding_code),
        _site(finding),
        *_algorithm(report),
    ]
    numbers = _numbers(finding)
    for index, (name, value, unit) in enumerate(numbers):
        region = [_region(Relationship.INFERRED_FROM, finding.box, images)] if index == 0 else []
        items.append(num_item(_CONTAINS, name, value, unit, *region))
    items += _qualifiers(finding, _CONTAINS)
    if finding.status is Status.INDETERMINATE:
        items.append(code_item(_CONTAINS, finding_code, codes.qualifier("status", finding.status.value)))
    items.append(code_item(_CONTAINS, concepts.GEOMETRIC_PURPOSE, concepts.BOUNDED_BY))
    items.append(_region(_CONTAINS, finding.box, images))
    others = [image for image in finding.images if image != finding.box.image]
    evidence = [_inferred_from(images.reference(image)) for image in others]
    items.append(text_item(_CONTAINS, concepts.COMMENT, comment(finding), *evidence))
    return container(_CONTAINS, concepts.MEASUREMENT_GROUP, items, template="1410")


def _evaluations(report: Report, findings: Sequence[Finding], images: StudyImages) -> Dataset:
    """What has no place, how the reading ended, and what a reader must know (TID 1500 rows 12 to 14)."""
    items = [code_item(_CONTAINS, concepts.OUTCOME, outcome_code(report.outcome))]
    for finding in findings:
        items.append(_evaluation(finding, images))
        items.append(
            text_item(_CONTAINS, concepts.COMMENT, comment(finding, seen_on=images.words(finding.images)))
        )
    said = [DISCLAIMER, OUTCOME_WORDS[report.outcome], *report.notes]
    items += [text_item(_CONTAINS, concepts.COMMENT, words) for words in said if has_words(words)]
    items.append(text_item(_CONTAINS, concepts.ALGORITHM_PARAMETERS, parameters(report)))
    return container(_CONTAINS, concepts.QUALITATIVE_EVALUATIONS, items)


def _evaluation(finding: Finding, images: StudyImages) -> Dataset:
    """A finding without a place; one that is not plainly present is "X = Absent" or "X = Undetermined"."""
    name, value = concepts.FINDING, codes.finding(finding.finding).code
    if finding.status is not Status.PRESENT:
        name, value = value, codes.qualifier("status", finding.status.value)
    return code_item(
        _CONTAINS,
        name,
        value,
        uidref_item(_OBSERVED, concepts.TRACKING_UID, finding.tracking_uid),
        _site(finding),
        *_qualifiers(finding, _MODIFIER),
        *(num_item(Relationship.HAS_PROPERTIES, *number) for number in _numbers(finding)),
        *(_inferred_from(images.reference(image)) for image in finding.images),
    )


def _tracking_identifier(number: int, finding: Finding) -> str:
    """What a person calls the finding, such as `AI-1 nodule, lung, right`."""
    words = [codes.finding(finding.finding).words, codes.site(finding.site).words]
    if finding.side is not Side.NONE:
        words.append(finding.side.value)
    return f"AI-{number} {', '.join(words)}"


def _site(finding: Finding) -> Dataset:
    sides = []
    if finding.side is not Side.NONE:
        sides.append(
            code_item(_MODIFIER, concepts.LATERALITY, codes.qualifier("laterality", finding.side.value))
        )
    return code_item(_MODIFIER, concepts.FINDING_SITE, codes.site(finding.site).code, *sides)


def _algorithm(report: Report) -> list[Dataset]:
    """The model (TID 4019)."""
    provenance = report.provenance
    return [
        text_item(_MODIFIER, concepts.ALGORITHM_NAME, or_unknown(provenance.model)),
        text_item(_MODIFIER, concepts.ALGORITHM_VERSION, or_unknown(provenance.model_version)),
        text_item(_MODIFIER, concepts.ALGORITHM_MANUFACTURER, MANUFACTURER),
        text_item(_MODIFIER, concepts.ALGORITHM_PARAMETERS, parameters(report)),
        code_item(_MODIFIER, concepts.ALGORITHM_FAMILY, concepts.ARTIFICIAL_INTELLIGENCE),
    ]


def _numbers(finding: Finding) -> list[tuple[Code, float, Code]]:
    """(name, value, unit): the size first, the certainty last.

    The size measured from the box stands back where the finding states a long axis of its own.
    """
    stated = [_measurement(one.code, one.value, one.unit) for one in finding.measurements]
    numbers = list(stated)
    if finding.size_mm is not None and not any(
        name.value == concepts.LONG_AXIS.value for name, _, _ in stated
    ):
        numbers.insert(0, (concepts.LONG_AXIS, finding.size_mm, concepts.MILLIMETER))
    if finding.certainty is not None:
        numbers.append((concepts.CERTAINTY, 100 * finding.certainty, concepts.PERCENT))
    return numbers


def _measurement(key: str, value: float, unit: str) -> tuple[Code, float, Code]:
    known = codes.measurement(key)
    if unit != known.unit.value:
        raise ValueError(f"measurement {key} is in {unit!r}, expected {known.unit.value!r}")
    return known.code, value, known.unit


def _qualifiers(finding: Finding, relationship: Relationship) -> list[Dataset]:
    items = []
    if finding.severity is not None:
        severity = codes.qualifier("severity", finding.severity.value)
        items.append(code_item(relationship, concepts.SEVERITY, severity))
    if finding.change is not None:
        items.append(
            code_item(relationship, concepts.CHANGE, codes.qualifier("change", finding.change.value))
        )
    return items


def _region(relationship: Relationship, box: Box, images: StudyImages) -> Dataset:
    source = image_item(Relationship.SELECTED_FROM, concepts.SOURCE, images.boxed(box))
    corners = (box.column_min, box.row_min, box.column_max, box.row_max)
    return box_item(relationship, concepts.IMAGE_REGION, corners, source)


def _inferred_from(reference: Dataset) -> Dataset:
    return image_item(Relationship.INFERRED_FROM, concepts.BEST_ILLUSTRATION, reference)
