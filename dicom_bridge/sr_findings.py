"""Tree A: the findings as an Imaging Measurement Report (TID 1500), one box to a group.

A finding with a box becomes a Measurement Group (TID 1410). Everything else stands in Qualitative
Evaluations: findings without a place, coded negatives, how the reading ended, and what a reader must know.
The same tree with points in the patient for boxes is the profile `points`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from pydicom.dataset import Dataset

from medmllm_plugin import codes
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_document import MANUFACTURER, language_item, observer_items, or_unknown
from medmllm_plugin.dicom_bridge.sr_images import StudyImages
from medmllm_plugin.dicom_bridge.sr_items import (
    Relationship,
    code_item,
    container,
    has_words,
    image_item,
    num_item,
    text_item,
    uidref_item,
)
from medmllm_plugin.dicom_bridge.sr_priors import prior_references
from medmllm_plugin.dicom_bridge.sr_references import ITEM_HEAD, encoded, set_encoded, with_reference
from medmllm_plugin.dicom_bridge.sr_statement import (
    BoxRegion,
    Number,
    PointRegion,
    Statement,
    evaluation,
    measurement_group,
)
from medmllm_plugin.dicom_bridge.sr_words import (
    MODALITIES,
    OUTCOME_WORDS,
    answer_words,
    comment,
    diagnosis_words,
    outcome_code,
    tracking_identifier,
    trust_words,
)
from medmllm_plugin.findings import Finding, Side, Status
from medmllm_plugin.headers import InstanceFacts
from medmllm_plugin.report import DISCLAIMER, Report

_CONTAINS, _MODIFIER, _ACQUIRED = (
    Relationship.CONTAINS,
    Relationship.HAS_CONCEPT_MOD,
    Relationship.HAS_ACQ_CONTEXT,
)
_DESCRIPTORS = {
    "modality": concepts.MODALITY,
    "frame_of_reference_uid": concepts.FRAME_OF_REFERENCE,
    "rows": concepts.ROWS,
    "columns": concepts.COLUMNS,
}
"""`InstanceFacts` that the library says of images, in its order."""
_QUALIFIERS = {"severity": concepts.SEVERITY, "change": concepts.CHANGE}


Place = Callable[[Finding, StudyImages], BoxRegion | PointRegion | None]
"""Where a finding is, in the kind of region that an SR has: `box_region` or `center_point`."""


def findings_tree(
    report: Report, images: StudyImages, *, place: Place | None = None, compared: bool = False
) -> Dataset:
    """The root CONTAINER of tree A.

    Args:
        report: What was read.
        images: The study.
        place: The kind of region; `box_region` by default. One SR has one kind, or viewers drop findings.
        compared: Whether images of an earlier study are cited where findings are compared with them.

    Raises:
        ValueError: If a finding cites what is not among the images, or a box leaves its image.
        StudyError: If a point is on an image without frame of reference.
    """
    regions = [(place or box_region)(finding, images) for finding in report.findings]
    statements = [
        _statement(number, finding, report, images, region, compared=compared)
        for number, (finding, region) in enumerate(zip(report.findings, regions, strict=True), 1)
    ]
    sentences = [finding.sentence for finding in report.findings]
    children = [language_item(*sentences), *observer_items(report), _library(images)]
    groups = [measurement_group(one) for one in statements if one.region is not None]
    if groups:
        children.append(container(_CONTAINS, concepts.IMAGING_MEASUREMENTS, groups))
    children.append(_evaluations(report, [one for one in statements if one.region is None]))
    return container(None, concepts.IMAGING_MEASUREMENT_REPORT, children, template="1500")


def parameters(report: Report) -> str:
    """What it takes to run the reading again, as one line of JSON: readers keep only the first such item."""
    known = asdict(report.provenance)
    for elsewhere in ("model", "model_version", "seconds"):
        del known[elsewhere]
    if report.second is not None:
        second = asdict(report.second)
        known["second"] = {name: second[name] for name in ("model", "model_version", "weights_sha256")}
    return json.dumps(known, ensure_ascii=False, separators=(",", ":"))


def _library(study: StudyImages) -> Dataset:
    """The Image Library (TID 1600): what a series' images share is said once, in its group (TID 1602).

    The rest is said of each image (TID 1601).
    """
    groups = []
    for images in study.series.values():
        own = [name for name in _DESCRIPTORS if len({getattr(image, name) for image in images}) > 1]
        shared = _descriptors(images[0], [name for name in _DESCRIPTORS if name not in own])
        said: dict[tuple[object, ...], bytes] = {}
        items = [encoded(one) for one in shared]
        for image in images:
            values = tuple(getattr(image, name) for name in own)
            if values not in said:
                item = image_item(_CONTAINS, concepts.SOURCE, None, *_descriptors(image, own))
                said[values] = encoded(item)[ITEM_HEAD:]
            items.append(with_reference(image, said[values]))
        group = container(_CONTAINS, concepts.IMAGE_LIBRARY_GROUP, shared or [Dataset()])
        set_encoded(group, "ContentSequence", items)
        groups.append(group)
    return container(_CONTAINS, concepts.IMAGE_LIBRARY, groups)


def _descriptors(image: InstanceFacts, names: Sequence[str]) -> list[Dataset]:
    """What is known of an image, or of all of a series, among these (TID 1602)."""
    items = []
    for name in names:
        concept, value = _DESCRIPTORS[name], getattr(image, name)
        if name == "modality":
            if value in MODALITIES:
                items.append(code_item(_ACQUIRED, concept, MODALITIES[value]))
        elif value and name == "frame_of_reference_uid":
            items.append(uidref_item(_ACQUIRED, concept, value))
        elif value:
            items.append(num_item(_ACQUIRED, concept, value, concepts.PIXELS))
    return items


def _statement(
    number: int,
    finding: Finding,
    report: Report,
    images: StudyImages,
    region: BoxRegion | PointRegion | None,
    *,
    compared: bool,
) -> Statement:
    """The finding in codes; `region` is its place in this SR, or None where it has none here."""
    side = finding.side.value
    qualifiers = {"severity": finding.severity, "change": finding.change}
    return Statement(
        tracking_uid=finding.tracking_uid,
        tracking_identifier=tracking_identifier(number, finding),
        finding=codes.finding(finding.finding).code,
        site=codes.site(finding.site).code,
        laterality=None if finding.side is Side.NONE else codes.qualifier("laterality", side),
        status=finding.status,
        algorithm=tuple(_algorithm(report)),
        numbers=tuple(_numbers(finding)),
        qualifiers=tuple(
            (_QUALIFIERS[kind], codes.qualifier(kind, value.value))
            for kind, value in qualifiers.items()
            if value is not None
        ),
        region=region,
        evidence=tuple(images.reference(image) for image in finding.images),
        priors=prior_references(finding) if compared else (),
        comment=comment(finding, seen_on=images.words(finding.images) if region is None else None),
    )


def box_region(finding: Finding, images: StudyImages) -> BoxRegion | None:
    """The finding's box; None without one, and for an absent finding, which has no place.

    Raises:
        ValueError: If the box's image is not among the headers, or the box leaves it.
    """
    box = finding.box
    if box is None:
        return None
    image = images.boxed(box)
    corners = (box.column_min, box.row_min, box.column_max, box.row_max)
    return None if finding.status is Status.ABSENT else BoxRegion(corners=corners, image=image)


def center_point(finding: Finding, images: StudyImages) -> PointRegion | None:
    """The centre of the finding's box in the patient; None without one, and for an absent finding.

    Raises:
        ValueError: If the box's image is not among the headers, or the box leaves it.
        StudyError: If that image has no frame of reference.
    """
    box = box_region(finding, images)
    if box is None or finding.box is None or finding.center_mm is None:
        return None
    uid = images.frame_of_reference(finding.box.image)
    return PointRegion(position=finding.center_mm, frame_of_reference_uid=uid)


def _evaluations(report: Report, statements: Sequence[Statement]) -> Dataset:
    """What has no place, how the reading ended, and what a reader must know (TID 1500 rows 12 to 14)."""
    items = [code_item(_CONTAINS, concepts.OUTCOME, outcome_code(report))]
    items += [item for statement in statements for item in evaluation(statement)]
    said = [DISCLAIMER, OUTCOME_WORDS[report.outcome], answer_words(report)]
    said += [diagnosis_words(rank, one) for rank, one in enumerate(report.differential, 1)]
    said += [*trust_words(report), *report.notes]
    items += [text_item(_CONTAINS, concepts.COMMENT, words) for words in said if has_words(words)]
    items.append(text_item(_CONTAINS, concepts.ALGORITHM_PARAMETERS, parameters(report)))
    return container(_CONTAINS, concepts.QUALITATIVE_EVALUATIONS, items)


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


def _numbers(finding: Finding) -> list[Number]:
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


def _measurement(key: str, value: float, unit: str) -> Number:
    known = codes.measurement(key)
    if unit != known.unit.value:
        raise ValueError(f"measurement {key} is in {unit!r}, expected {known.unit.value!r}")
    return known.code, value, known.unit
