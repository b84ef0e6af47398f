"""A finding as content items: a Measurement Group where it has a place, else a Qualitative Evaluation.

`Statement` stands between a `Finding` of ours and the items of TID 1500; `sr_statement_reader` reads it back
from them, so that what a person changes is written by the same few lines as the first draft.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from medmllm_plugin import codes
from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_items import (
    Relationship,
    box_item,
    code_item,
    container,
    image_item,
    num_item,
    point_item,
    text_item,
    uidref_item,
)
from medmllm_plugin.findings import Status

_CONTAINS, _MODIFIER, _OBSERVED, _PROPERTY = (
    Relationship.CONTAINS,
    Relationship.HAS_CONCEPT_MOD,
    Relationship.HAS_OBS_CONTEXT,
    Relationship.HAS_PROPERTIES,
)

Number = tuple[Code, float, Code]
"""(name, value, unit)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BoxRegion:
    """A rectangle on one image."""

    corners: tuple[float, float, float, float]
    """(column_min, row_min, column_max, row_max); (0, 0) is the outer corner of the first pixel."""
    image: Dataset
    """An item of Referenced SOP Sequence (0008,1199)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PointRegion:
    """A point in the patient."""

    position: tuple[float, float, float]
    """LPS mm."""
    frame_of_reference_uid: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Statement:
    """What is said of one finding, in codes."""

    tracking_uid: str
    finding: Code
    site: Code
    laterality: Code | None
    status: Status
    comment: str
    """Its sentence, and after it the facts that `sr_words.comment` puts in brackets."""
    tracking_identifier: str = ""
    """What a person calls it; a group needs one."""
    algorithm: tuple[Dataset, ...] = ()
    """Items of TID 4019."""
    numbers: tuple[Number, ...] = ()
    qualifiers: tuple[tuple[Code, Code], ...] = ()
    """(name, value), such as severity."""
    region: BoxRegion | PointRegion | None = None
    evidence: tuple[Dataset, ...] = ()
    """The images it cites, as items of Referenced SOP Sequence (0008,1199)."""
    priors: tuple[Dataset, ...] = ()
    """Those of an earlier study that it is compared with."""


def measurement_group(statement: Statement) -> Dataset:
    """A finding with its place, as a Measurement Group of one planar region (TID 1410).

    The first NUM carries the region too: without it OHIF draws it and then can't make it its own.

    Raises:
        ValueError: If it has no place, or is absent, which no viewer would show beside a box.
    """
    region = statement.region
    if region is None or statement.status is Status.ABSENT:
        raise ValueError(
            f"{statement.finding.meaning} is {statement.status.value} and has "
            f"{'no ' if region is None else 'a '}place; a measurement group is of what is there"
        )
    items = [
        text_item(_OBSERVED, concepts.TRACKING_IDENTIFIER, statement.tracking_identifier),
        uidref_item(_OBSERVED, concepts.TRACKING_UID, statement.tracking_uid),
        code_item(_CONTAINS, concepts.FINDING_CATEGORY, concepts.ABNORMAL_STRUCTURE),
        code_item(_CONTAINS, concepts.FINDING, statement.finding),
        _site(statement),
        *statement.algorithm,
    ]
    for index, (name, value, unit) in enumerate(statement.numbers):
        own = [_region(Relationship.INFERRED_FROM, region)] if index == 0 else []
        items.append(num_item(_CONTAINS, name, value, unit, *own))
    items += [code_item(_CONTAINS, name, value) for name, value in statement.qualifiers]
    if statement.status is Status.INDETERMINATE:
        items.append(code_item(_CONTAINS, statement.finding, _stated(statement.status)))
    purpose = concepts.BOUNDED_BY if isinstance(region, BoxRegion) else concepts.CENTER
    items.append(code_item(_CONTAINS, concepts.GEOMETRIC_PURPOSE, purpose))
    items.append(_region(_CONTAINS, region))
    others = [one for one in statement.evidence if not isinstance(region, BoxRegion) or one != region.image]
    cited = [*map(_inferred_from, others), *map(_compared_with, statement.priors)]
    items.append(text_item(_CONTAINS, concepts.COMMENT, statement.comment, *cited))
    return container(_CONTAINS, concepts.MEASUREMENT_GROUP, items, template="1410")


def evaluation(statement: Statement) -> list[Dataset]:
    """A finding without a place as two items of Qualitative Evaluations: its code and its sentence.

    One that is not plainly present is "X = Absent" or "X = Undetermined", never "Finding = X" with a modifier
    that a viewer may drop. Below a CODE an Enhanced SR allows no observation context (PS3.3 A.35.2.3.1.2),
    so the tracking UID is a property.
    """
    name, value = concepts.FINDING, statement.finding
    if statement.status is not Status.PRESENT:
        name, value = value, _stated(statement.status)
    said = code_item(
        _CONTAINS,
        name,
        value,
        uidref_item(_PROPERTY, concepts.TRACKING_UID, statement.tracking_uid),
        _site(statement),
        *(code_item(_MODIFIER, *qualifier) for qualifier in statement.qualifiers),
        *(num_item(_PROPERTY, *number) for number in statement.numbers),
        *map(_inferred_from, statement.evidence),
        *map(_compared_with, statement.priors),
    )
    return [said, text_item(_CONTAINS, concepts.COMMENT, statement.comment)]


def _stated(status: Status) -> Code:
    return codes.qualifier("status", status.value)


def _site(statement: Statement) -> Dataset:
    side = statement.laterality
    sides = [] if side is None else [code_item(_MODIFIER, concepts.LATERALITY, side)]
    return code_item(_MODIFIER, concepts.FINDING_SITE, statement.site, *sides)


def _region(relationship: Relationship, region: BoxRegion | PointRegion) -> Dataset:
    if isinstance(region, PointRegion):
        return point_item(relationship, concepts.IMAGE_REGION, region.position, region.frame_of_reference_uid)
    source = image_item(Relationship.SELECTED_FROM, concepts.SOURCE, region.image)
    return box_item(relationship, concepts.IMAGE_REGION, region.corners, source)


def _inferred_from(reference: Dataset) -> Dataset:
    return image_item(Relationship.INFERRED_FROM, concepts.BEST_ILLUSTRATION, reference)


def _compared_with(reference: Dataset) -> Dataset:
    return image_item(Relationship.INFERRED_FROM, concepts.BASELINE, reference)
