"""The statements of our own findings SR, read back exactly, so that a person can edit them.

Stricter than `sr_reader`, which understands any SR: what has another shape is refused here, never guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydicom.dataset import Dataset

from medmllm_plugin import codes
from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_statement import BoxRegion, Number, PointRegion, Statement
from medmllm_plugin.findings import Status


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
    finding = next(iter(_codes(group, concepts.FINDING)), None)
    if finding is None:
        raise ValueError(f"the finding {tracking_uid(group)} has no Finding (121071, DCM), so what is it?")
    comment = next(iter(below(group, concepts.COMMENT)), None)
    region = _region_of(group)
    evidence = [] if comment is None else _references(comment)
    if isinstance(region, BoxRegion):
        evidence.insert(0, region.image)
    stated = [code_of(one.ConceptCodeSequence) for one in group.ContentSequence if _states(one, finding)]
    plain = Statement(
        tracking_uid=tracking_uid(group),
        tracking_identifier=_text(group, concepts.TRACKING_IDENTIFIER),
        finding=finding,
        site=_site(group),
        laterality=_laterality(group),
        status=_status(stated),
        comment="" if comment is None else str(comment.TextValue),
        numbers=_numbers(group),
        qualifiers=_qualifiers(group),
    )
    algorithm = tuple(item for name in _ALGORITHM for item in below(group, name))
    priors = () if comment is None else tuple(_references(comment, prior=True))
    return replace(plain, algorithm=algorithm, region=region, evidence=tuple(evidence), priors=priors)


def statement_of_evaluation(item: Dataset, comment: str) -> Statement:
    """The statement that `evaluation` wrote.

    Raises:
        ValueError: If it lacks what each of ours has.
    """
    value = code_of(item.ConceptCodeSequence)
    plain = is_named(item, concepts.FINDING)
    return Statement(
        tracking_uid=tracking_uid(item),
        finding=value if plain else code_of(item.ConceptNameCodeSequence),
        site=_site(item),
        laterality=_laterality(item),
        status=Status.PRESENT if plain else _status([value]),
        comment=comment,
        numbers=_numbers(item),
        qualifiers=_qualifiers(item),
        evidence=tuple(_references(item)),
        priors=tuple(_references(item, prior=True)),
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


def _site(item: Dataset) -> Code:
    sites = _codes(item, concepts.FINDING_SITE)
    if not sites:
        raise ValueError(f"the finding {tracking_uid(item)} has no Finding Site (363698007, SCT)")
    return sites[0]


def _laterality(item: Dataset) -> Code | None:
    sites = below(item, concepts.FINDING_SITE)
    return next((side for site in sites for side in _codes(site, concepts.LATERALITY)), None)


def _numbers(item: Dataset) -> tuple[Number, ...]:
    return tuple(_number(one) for one in item.ContentSequence if one.ValueType == "NUM")


def _qualifiers(item: Dataset) -> tuple[tuple[Code, Code], ...]:
    return tuple((name, value) for name in _QUALIFIERS for value in _codes(item, name))


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
    known = {codes.qualifier("status", status.value).value: status for status in Status}
    return next((known[one.value] for one in stated if one.value in known), Status.PRESENT)


def _references(item: Dataset, *, prior: bool = False) -> list[Dataset]:
    """The images that an item cites: those that it is of, or those that it is compared with."""
    return [
        one.ReferencedSOPSequence[0]
        for one in item.get("ContentSequence", ())
        if one.ValueType == "IMAGE" and is_named(one, concepts.BASELINE) is prior
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
