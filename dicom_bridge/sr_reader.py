"""Any DICOM Structured Report as plain values, for `medmllm sr show` and for comparing.

Understands TID 1500 (measurement groups, qualitative evaluations), narrative sections such as those of
TID 2000, and Key Object Selections; every other SR still gives its header and content tree. Gives no
patient's name. What a report of ours says comes back whole, but for what no SR of ours holds: the raw reply,
the seconds it took, the number of the picture a box was drawn in, and blanks at the end of a text, which are
padding in DICOM (PS3.5 6.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pydicom
from pydicom.config import IGNORE
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_items import clean
from medmllm_plugin.dicom_bridge.sr_places import ImagePlanes, place_tree
from medmllm_plugin.dicom_bridge.sr_tree import (
    UNREADABLE,
    SrImage,
    SrItem,
    SrNumber,
    SrRegion,
    read_tree,
    same,
    told,
)
from medmllm_plugin.dicom_bridge.sr_values import (
    SrDocument,
    SrFinding,
    SrMeasurement,
    SrSentence,
    SrVerifier,
    words,
)
from medmllm_plugin.errors import StudyError
from medmllm_plugin.findings import Status

_STATUS = {"52101004": Status.PRESENT, "272519000": Status.ABSENT, "373068000": Status.INDETERMINATE}
"""CID 240 in SNOMED CT."""

_HEADER = {
    "sop_class_uid": "SOPClassUID",
    "sop_instance_uid": "SOPInstanceUID",
    "series_instance_uid": "SeriesInstanceUID",
    "study_instance_uid": "StudyInstanceUID",
    "series_description": "SeriesDescription",
    "completion": "CompletionFlag",
    "verification": "VerificationFlag",
    "preliminary": "PreliminaryFlag",
    "content_date": "ContentDate",
    "content_time": "ContentTime",
}
"""Fields of `SrDocument` and the attributes they are read from."""


def read_sr(path: str | Path, *, images: ImagePlanes | None = None) -> SrDocument:
    """The Structured Report in a file.

    Args:
        path: The file.
        images: The images that it cites, to place its regions in the patient; see `ImagePlanes.of_folder`.

    Raises:
        StudyError: If the file is not there, is not DICOM, is cut off, or is not a Structured Report.
    """
    dataset, problems = load_sr(path)
    return document_of(dataset, images=images, problems=problems)


def load_sr(path: str | Path) -> tuple[Dataset, tuple[str, ...]]:
    """The dataset of a file that is a whole Structured Report, and what had to be mended to read it.

    Errors are those of `read_sr`.
    """
    path = Path(path)
    problems: list[str] = []
    try:
        with told("the file", problems):
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            value_type = dataset.get("ValueType")
            kind = UID(str(dataset.get("SOPClassUID") or ""), validation_mode=IGNORE).name
    except FileNotFoundError as error:
        raise _no_sr(path, "no such file") from error
    except (*UNREADABLE, InvalidDicomError, RecursionError) as error:
        raise _no_sr(path, "a file that is not whole DICOM") from error
    if _is_cut_off(dataset):
        raise _no_sr(path, "a file that is cut off")
    if value_type != "CONTAINER":
        found = clean(kind) or "DICOM without a SOP class"
        raise _no_sr(path, f"{found} without content" if "SR Storage" in kind else found)
    return dataset, tuple(problems)


def document_of(
    dataset: Dataset, *, images: ImagePlanes | None = None, problems: tuple[str, ...] = ()
) -> SrDocument:
    """The Structured Report in a dataset whose root is a CONTAINER.

    Args:
        dataset: The document.
        images: As of `read_sr`.
        problems: What is known to be wrong with it already, as of `load_sr`.
    """
    tree, unread_items = read_tree(dataset)
    problems += unread_items
    if images is not None:
        tree, unplaced = place_tree(tree, images)
        problems += unplaced
    groups = [item for item in tree.walk() if item.is_named(concepts.MEASUREMENT_GROUP)]
    evaluations = [item for item in tree.walk() if item.is_named(concepts.QUALITATIVE_EVALUATIONS)]
    study = [item for one in evaluations for item in one.children]
    outcome = next((item.value for item in study if item.is_named(concepts.OUTCOME)), None)
    findings = [_group(group) for group in groups]
    remarks: list[str] = []
    others: list[tuple[Code, Code]] = []
    for before, item, after in zip([None, *study], study, [*study[1:], None], strict=False):
        if _is_finding(item):
            findings.append(_evaluation(item, _comment_of(after)))
        elif item.value_type == "CODE" and not item.is_named(concepts.OUTCOME):
            others += _pair(item)
        elif item.is_named(concepts.COMMENT) and not (before is not None and _is_finding(before)):
            remarks.append(str(item.value))
    parameters = next(
        (str(item.value) for item in tree.walk() if item.is_named(concepts.ALGORITHM_PARAMETERS)), ""
    )
    if not tree.children:
        problems = (*problems, "the document has no content")
    unread: list[str] = []
    with told("the header", unread):
        header = {name: _header_text(dataset, keyword) for name, keyword in _HEADER.items()}
        verifiers, predecessors = _verifiers(dataset, unread), _predecessors(dataset, unread)
        template = _template(dataset)
    unread += [f"{_HEADER[name]}: not a legal value" for name, text in header.items() if text is None]
    return SrDocument(
        **{name: text or "" for name, text in header.items()},
        title=tree.name,
        template=template,
        verifiers=verifiers,
        predecessors=predecessors,
        observers=tuple(_observers(tree)),
        observer=_observer(tree),
        images=_images(tree.children),
        outcome=outcome if isinstance(outcome, Code) else None,
        findings=tuple(findings),
        evaluations=tuple(others),
        remarks=tuple(remarks),
        parameters=parameters,
        sentences=tuple(_sentences(tree, "")),
        tree=tree,
        problems=(*unread, *problems),
    )


def _no_sr(path: Path, found: str) -> StudyError:
    return StudyError(
        found=found,
        expected="a DICOM Structured Report",
        where=path.name,
        remedy="give an SR file, such as our findings",
    )


def _is_cut_off(dataset: Dataset) -> bool:
    """Whether an element holds fewer bytes than its length says; pydicom passes over that in silence."""
    elements: Iterable[Any] = dataset.values()
    raw = (one for one in elements if isinstance(one, RawDataElement))
    return any(len(one.value or b"") < one.length < 0xFFFFFFFF for one in raw)


def _header_text(dataset: Dataset, keyword: str) -> str | None:
    """An attribute's value as text, empty if it isn't there; None if it can't be read."""
    try:
        return str(dataset.get(keyword) or "")
    except UNREADABLE:
        return None


def _template(dataset: Dataset) -> str:
    try:
        sequence = dataset.get("ContentTemplateSequence")
        return str(sequence[0].get("TemplateIdentifier") or "") if sequence else ""
    except UNREADABLE:
        return ""


def _verifiers(dataset: Dataset, unread: list[str]) -> tuple[SrVerifier, ...]:
    try:
        return tuple(
            SrVerifier(
                name=str(item.get("VerifyingObserverName") or ""),
                organization=str(item.get("VerifyingOrganization") or ""),
                verified_at=str(item.get("VerificationDateTime") or ""),
            )
            for item in dataset.get("VerifyingObserverSequence") or ()
        )
    except UNREADABLE:
        unread.append("VerifyingObserverSequence: can't be read")
        return ()


def _predecessors(dataset: Dataset, unread: list[str]) -> tuple[SrImage, ...]:
    try:
        return tuple(
            SrImage(
                sop_class_uid=str(document.get("ReferencedSOPClassUID") or ""),
                sop_instance_uid=str(document.get("ReferencedSOPInstanceUID") or ""),
            )
            for study in dataset.get("PredecessorDocumentsSequence") or ()
            for series in study.get("ReferencedSeriesSequence") or ()
            for document in series.get("ReferencedSOPSequence") or ()
        )
    except UNREADABLE:
        unread.append("PredecessorDocumentsSequence: can't be read")
        return ()


def _observers(tree: SrItem) -> Iterator[str]:
    """Who observed, in order; where no type is said it is a person (TID 1002)."""
    kinds = {"121006": "person", "121007": "device"}
    said = [item.value.value for item in tree.find(concepts.OBSERVER_TYPE) if isinstance(item.value, Code)]
    yield from dict.fromkeys(kinds[value] for value in said if value in kinds)
    if not said and any(item.value_type == "PNAME" for item in tree.children):
        yield "person"


def _observer(tree: SrItem) -> dict[str, str]:
    names = {
        "uid": concepts.DEVICE_UID,
        "name": concepts.DEVICE_NAME,
        "manufacturer": concepts.DEVICE_MANUFACTURER,
        "model": concepts.DEVICE_MODEL,
        "serial": concepts.DEVICE_SERIAL,
    }
    found = {key: _text(tree, name) for key, name in names.items()}
    return {key: value for key, value in found.items() if value}


def _group(group: SrItem) -> SrFinding:
    finding = _code(group, concepts.FINDING)
    known = (concepts.FINDING, concepts.FINDING_SITE, concepts.FINDING_CATEGORY, concepts.GEOMETRIC_PURPOSE)
    others = [
        pair
        for item in group.children
        if item.value_type == "CODE" and not item.is_named(*known, concepts.ALGORITHM_FAMILY)
        for pair in _pair(item)
    ]
    stated = [value for name, value in others if finding is not None and same(name, finding)]
    comment = next(group.find(concepts.COMMENT), None)
    cited = [item for item in group.children if item.value_type == "IMAGE"]
    regions = _regions(group) or [
        one for item in group.children if item.value_type == "NUM" for one in _regions(item)
    ]
    return _finding(
        group,
        finding=finding,
        status=_status(stated),
        regions=tuple(dict.fromkeys(regions)),
        images=_images([*cited, *(comment.children if comment is not None else ())]),
        priors=_priors([*cited, *(comment.children if comment is not None else ())]),
        evaluations=tuple(pair for pair in others if pair[1] not in stated),
        comment=_comment_of(comment),
    )


def _regions(item: SrItem) -> list[SrRegion]:
    return [child.value for child in item.children if isinstance(child.value, SrRegion)]


def _evaluation(item: SrItem, comment: str) -> SrFinding:
    plain = item.is_named(concepts.FINDING)
    value = item.value if isinstance(item.value, Code) else None
    modifiers = [
        pair
        for child in item.children
        if child.value_type == "CODE" and not child.is_named(concepts.FINDING_SITE)
        for pair in _pair(child)
    ]
    return _finding(
        item,
        finding=value if plain else item.name,
        status=Status.PRESENT if plain or value is None else _status([value]),
        regions=(),
        images=_images(item.children),
        priors=_priors(item.children),
        evaluations=tuple(modifiers),
        comment=comment,
    )


def _finding(
    item: SrItem,
    *,
    finding: Code | None,
    status: Status,
    regions: tuple[SrRegion, ...],
    images: tuple[SrImage, ...],
    priors: tuple[SrImage, ...],
    evaluations: tuple[tuple[Code, Code], ...],
    comment: str,
) -> SrFinding:
    site = next(item.find(concepts.FINDING_SITE), None)
    algorithm = (_text(item, concepts.ALGORITHM_NAME), _text(item, concepts.ALGORITHM_VERSION))
    return SrFinding(
        finding=finding,
        status=status,
        site=_code(item, concepts.FINDING_SITE),
        laterality=(_code(site, concepts.LATERALITY) if site is not None else None)
        or _code(item, concepts.LATERALITY),
        tracking_identifier=_text(item, concepts.TRACKING_IDENTIFIER),
        tracking_uid=_text(item, concepts.TRACKING_UID),
        regions=regions,
        images=images,
        prior_images=priors,
        measurements=tuple(_measurements(item)),
        evaluations=evaluations,
        comment=comment,
        algorithm=" ".join(part for part in algorithm if part),
    )


def _measurements(item: SrItem) -> Iterator[SrMeasurement]:
    for child in item.children:
        if isinstance(child.value, SrNumber):
            modifiers = tuple(one.value for one in child.children if isinstance(one.value, Code))
            yield SrMeasurement(name=child.name, number=child.value, modifiers=modifiers)


def _sentences(item: SrItem, section: str) -> Iterator[SrSentence]:
    """The texts of the narrative containers, in order."""
    elsewhere = (concepts.IMAGE_LIBRARY, concepts.IMAGING_MEASUREMENTS, concepts.QUALITATIVE_EVALUATIONS)
    for child in item.children:
        if child.value_type == "CONTAINER" and not child.is_named(*elsewhere):
            yield from _sentences(child, words(child.name))
        elif child.value_type == "TEXT" and child.relationship == "CONTAINS":
            yield SrSentence(
                section=section, name=child.name, text=str(child.value), images=_images(child.children)
            )


def _is_finding(item: SrItem) -> bool:
    """Whether a CODE among the qualitative evaluations is "Finding = X" or "X = Absent" and the like."""
    stated = isinstance(item.value, Code) and item.value.scheme == "SCT" and item.value.value in _STATUS
    return item.value_type == "CODE" and (item.is_named(concepts.FINDING) or stated)


def _status(stated: Iterable[Code]) -> Status:
    return next((_STATUS[value.value] for value in stated if value.value in _STATUS), Status.PRESENT)


def _comment_of(item: SrItem | None) -> str:
    return str(item.value or "") if item is not None and item.is_named(concepts.COMMENT) else ""


def _images(items: Iterable[SrItem]) -> tuple[SrImage, ...]:
    return _cited(item for item in items if not item.is_named(concepts.BASELINE))


def _priors(items: Iterable[SrItem]) -> tuple[SrImage, ...]:
    """Images of an earlier study that a finding is compared with."""
    return _cited(item for item in items if item.is_named(concepts.BASELINE))


def _cited(items: Iterable[SrItem]) -> tuple[SrImage, ...]:
    return tuple(
        item.value for item in items if isinstance(item.value, SrImage) and item.value_type == "IMAGE"
    )


def _pair(item: SrItem) -> list[tuple[Code, Code]]:
    return [(item.name, item.value)] if item.name is not None and isinstance(item.value, Code) else []


def _code(item: SrItem, name: Code) -> Code | None:
    return next((child.value for child in item.find(name) if isinstance(child.value, Code)), None)


def _text(item: SrItem, name: Code) -> str:
    return next((child.value for child in item.find(name) if isinstance(child.value, str)), "")
