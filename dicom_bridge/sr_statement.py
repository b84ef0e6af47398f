"""A finding as content items: a Measurement Group where it has a place, else a Qualitative Evaluation.

`Statement` stands between a `Finding` of ours and the items of TID 1500, and is read back from them, so that
what a reader of the SR changes is written by the same few lines as the first draft.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def measurement_group(statement: Statement) -> Dataset:
    """A finding with its place, as a Measurement Group of one planar region (TID 1410).

    The first NUM carries a box too: without it OHIF draws the box and then can't make it its own.

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
        carries = index == 0 and isinstance(region, BoxRegion)
        own = [_region(Relationship.INFERRED_FROM, region)] if carries else []
        items.append(num_item(_CONTAINS, name, value, unit, *own))
    items += [code_item(_CONTAINS, name, value) for name, value in statement.qualifiers]
    if statement.status is Status.INDETERMINATE:
        items.append(code_item(_CONTAINS, statement.finding, _stated(statement.status)))
    purpose = concepts.BOUNDED_BY if isinstance(region, BoxRegion) else concepts.CENTER
    items.append(code_item(_CONTAINS, concepts.GEOMETRIC_PURPOSE, purpose))
    items.append(_region(_CONTAINS, region))
    others = [one for one in statement.evidence if not isinstance(region, BoxRegion) or one != region.image]
    items.append(text_item(_CONTAINS, concepts.COMMENT, statement.comment, *map(_inferred_from, others)))
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


def is_named(item: Dataset, name: Code) -> bool:
    """Whether a content item's concept name has that value and scheme."""
    found = item.get("ConceptNameCodeSequence")
    return bool(found) and (found[0].get("CodeValue"), found[0].get("CodingSchemeDesignator")) == (
        name.value,
        name.scheme,
    )


def below(item: Dataset, name: Code) -> list[Dataset]:
    """The content items right below one that have that concept name."""
    return [one for one in item.get("ContentSequence", ()) if is_named(one, name)]


def statement_of_group(group: Dataset) -> Statement:
    """The statement that `measurement_group` wrote.

    Raises:
        ValueError: If the group lacks what each of ours has, or its region is no box or point.
    """
    (finding,) = _codes(group, concepts.FINDING)[:1] or [None]
    if finding is None:
        raise ValueError("a measurement group has no Finding, so it can't be edited")
    comment = next(iter(below(group, concepts.COMMENT)), None)
    region = _region_of(group)
    evidence = [] if comment is None else _references(comment)
    if isinstance(region, BoxRegion):
        evidence.insert(0, region.image)
    stated = [code_of(one.ConceptCodeSequence) for one in group.ContentSequence if _states(one, finding)]
    return Statement(
        tracking_identifier=_text(group, concepts.TRACKING_IDENTIFIER),
        algorithm=tuple(item for name in _ALGORITHM for item in below(group, name)),
        region=region,
        evidence=tuple(evidence),
        status=_status(stated),
        finding=finding,
        comment="" if comment is None else str(comment.TextValue),
        **_common(group),
    )


def statement_of_evaluation(item: Dataset, comment: str) -> Statement:
    """The statement that `evaluation` wrote.

    Raises:
        ValueError: If it lacks what each of ours has.
    """
    value = code_of(item.ConceptCodeSequence)
    plain = is_named(item, concepts.FINDING)
    return Statement(
        evidence=tuple(_references(item)),
        status=Status.PRESENT if plain else _status([value]),
        finding=value if plain else code_of(item.ConceptNameCodeSequence),
        comment=comment,
        **_common(item),
    )


_ALGORITHM = (
    concepts.ALGORITHM_NAME,
    concepts.ALGORITHM_VERSION,
    concepts.ALGORITHM_MANUFACTURER,
    concepts.ALGORITHM_PARAMETERS,
    concepts.ALGORITHM_FAMILY,
)
_QUALIFIERS = (concepts.SEVERITY, concepts.CHANGE)


def tracking_uid(item: Dataset) -> str:
    """The Tracking Unique Identifier of a group or evaluation; empty if it has none."""
    return next((str(one.UID) for one in below(item, concepts.TRACKING_UID)), "")


def code_of(sequence: Sequence[Dataset]) -> Code:
    """The first code of a code sequence (PS3.3 8.8)."""
    item = sequence[0]
    return Code(
        value=str(item.CodeValue), scheme=str(item.CodingSchemeDesignator), meaning=str(item.CodeMeaning)
    )


def _common(item: Dataset) -> dict[str, object]:
    sites = below(item, concepts.FINDING_SITE)
    if not sites:
        raise ValueError(f"the finding {tracking_uid(item)} has no Finding Site, so it can't be edited")
    sides = _codes(sites[0], concepts.LATERALITY)
    return {
        "tracking_uid": tracking_uid(item),
        "site": code_of(sites[0].ConceptCodeSequence),
        "laterality": sides[0] if sides else None,
        "numbers": tuple(_number(one) for one in item.ContentSequence if one.ValueType == "NUM"),
        "qualifiers": tuple((name, value) for name in _QUALIFIERS for value in _codes(item, name)),
    }


def _codes(item: Dataset, name: Code) -> list[Code]:
    return [code_of(one.ConceptCodeSequence) for one in below(item, name) if one.ValueType == "CODE"]


def _text(item: Dataset, name: Code) -> str:
    return next((str(one.TextValue) for one in below(item, name)), "")


def _number(item: Dataset) -> Number:
    measured = item.MeasuredValueSequence[0]
    return (
        code_of(item.ConceptNameCodeSequence),
        float(measured.NumericValue),
        code_of(measured.MeasurementUnitsCodeSequence),
    )


def _states(item: Dataset, finding: Code) -> bool:
    return item.ValueType == "CODE" and is_named(item, finding)


def _status(stated: Sequence[Code]) -> Status:
    known = {_stated(status).value: status for status in Status}
    return next((known[one.value] for one in stated if one.value in known), Status.PRESENT)


def _references(item: Dataset) -> list[Dataset]:
    return [
        one.ReferencedSOPSequence[0] for one in item.get("ContentSequence", ()) if one.ValueType == "IMAGE"
    ]


def _region_of(group: Dataset) -> BoxRegion | PointRegion:
    regions = [one for one in group.ContentSequence if one.ValueType in ("SCOORD", "SCOORD3D")]
    if len(regions) != 1:
        raise ValueError(f"a measurement group has {len(regions)} regions, expected one")
    (region,) = regions
    data = [float(value) for value in region.GraphicData]
    if region.ValueType == "SCOORD3D" and region.GraphicType == "POINT":
        return PointRegion(
            position=(data[0], data[1], data[2]),
            frame_of_reference_uid=str(region.ReferencedFrameOfReferenceUID),
        )
    points = list(zip(data[::2], data[1::2], strict=True))
    columns, rows = [point[0] for point in points], [point[1] for point in points]
    corners = (min(columns), min(rows), max(columns), max(rows))
    edges = len(points) == 5 and all(x in corners[::2] and y in corners[1::2] for x, y in points)
    if region.ValueType != "SCOORD" or not edges:
        raise ValueError(f"a region is a {region.ValueType} {region.GraphicType}, expected a box or a point")
    return BoxRegion(corners=corners, image=_references(region)[0])
