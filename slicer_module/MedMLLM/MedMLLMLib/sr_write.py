"""A reader's decisions on an AI SR as a verified SR, its successor (PS3.3 C.17.2).

The AI's document stays as it is. The new one names it as its predecessor, keeps the tracking UIDs, holds only
what was accepted or edited, and lies in a series of its own.
"""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from . import codes, sr_header, sr_items, sr_read
from .model import Code, Finding, ImageRef, Number, Status
from .review import Decision, Point, Review, Verdict
from .sr_items import children, clean, code_item, container, name_of, text_item

REMARK = (
    "Research use only. Found by AI, then accepted or edited by the verifying observer; not a medical device."
)
_AI_REMARK = "Research use only. AI-generated and unverified; not a medical device, not for diagnosis."
_SOP_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.22",
)  # fmt: skip


class NotVerifiableError(ValueError):
    """The report can't be verified as it is; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who verifies."""

    name: str
    """Family^Given, as VR PN has it."""
    organization: str

    def __post_init__(self) -> None:
        name, organization = self.name.strip(), self.organization.strip()
        if not name or clean(name) != name or set("\\=\n") & set(name) or len(name) > 64:
            raise NotVerifiableError("enter the reader's name as Family^Given, at most 64 characters")
        if not organization or clean(organization) != organization or set("\\\n") & set(organization):
            raise NotVerifiableError("enter the reader's organization, one line without a backslash")
        if len(organization) > 64:
            raise NotVerifiableError("the organization is longer than 64 characters; shorten it")


def verified(
    document: Dataset, review: Review, person: Person, *, written: datetime | None = None
) -> Dataset:
    """The verified successor of an AI findings SR.

    Args:
        document: The SR that `review.report` was read from.
        review: A decision on each of its findings.
        person: Who verifies.
        written: Verification and Content Date and Time, local time; now by default.

    Returns:
        A dataset; the same document, decisions and person always give the same SOP Instance UID.

    Raises:
        NotVerifiableError: If the document is no findings SR, its reading failed, a finding has no decision
        or no
            tracking UID, or its shape is none that can be carried over.
    """
    written = written or datetime.now()
    _check(document, review)
    document = deepcopy(document)
    groups: list[Dataset] = []
    evaluations: list[Dataset] = []
    there, remarks = False, [REMARK]
    for items, found in _findings(document):
        made = review.decision(found.key)
        if made.verdict is Verdict.REJECTED:
            remarks.append(f"Rejected by the verifying observer, so left out: {_named(found)}.")
            continue
        if made.verdict is Verdict.EDITED:
            remarks.append(f"Edited by the verifying observer ({', '.join(_names(made))}): {_named(found)}.")
            items = _edited(items, found, made, document)
        there = there or (made.status or found.status) is not Status.ABSENT
        (groups if name_of(items[0]) == sr_items.GROUP else evaluations).extend(items)
    outcome = code_item("CONTAINS", sr_items.OUTCOME, _outcome(document, there=there))
    root = _root(document, person, groups, [outcome, *evaluations], remarks)
    said = json.dumps(json.loads(review.to_json()), sort_keys=True)
    identity = chr(31).join((str(document.SOPInstanceUID), person.name, person.organization, said))
    new = sr_header.new_document(document, identity, written)
    new.CompletionFlag, new.VerificationFlag, new.PreliminaryFlag = "COMPLETE", "VERIFIED", "FINAL"
    new.VerifyingObserverSequence = Sequence([sr_header.verifying(person.name, person.organization, written)])
    new.PredecessorDocumentsSequence = Sequence([sr_header.predecessor(document)])
    for element in root:
        new.add(element)
    return new


def save(dataset: Dataset, path: str) -> None:
    """Write a dataset as a DICOM file, with pydicom 3 and with the pydicom 2 of Slicer 5.10."""
    try:
        dataset.save_as(path, enforce_file_format=True)
    except TypeError:
        dataset.is_little_endian, dataset.is_implicit_VR = True, False
        dataset.save_as(path, write_like_original=False)


def _check(document: Dataset, review: Review) -> None:
    if str(document.get("SOPClassUID")) not in _SOP_CLASSES or name_of(document) != sr_items.TITLE:
        raise NotVerifiableError(
            "the report is no findings SR (TID 1500), so it can't be verified here; save the findings SR's "
            "review"
        )
    if str(document.get("SOPInstanceUID")) != review.report.uid:
        raise NotVerifiableError("the decisions are on another report; choose the report again")
    evaluations = [one for part in children(document, sr_items.EVALUATIONS) for one in children(part)]
    ended = next((one for one in evaluations if name_of(one) == sr_items.OUTCOME), None)
    if ended is not None and sr_items.value_of(ended) == Code("111245", "DCM"):
        raise NotVerifiableError("the reading failed, so there is nothing to verify; read the study again")
    if review.undecided:
        raise NotVerifiableError(
            f"{len(review.undecided)} findings aren't decided on; accept, edit or reject each first"
        )
    if not all(one.tracked for one in review.report.findings):
        raise NotVerifiableError("findings without a tracking UID of their own can't be verified")
    points = any(region.image is None for one in review.report.findings for region in one.regions)
    if points and any(review.decision(one.key).box for one in review.report.findings):
        raise NotVerifiableError(
            "a box can't be drawn in an SR of points, for viewers drop findings of an SR that mixes them; "
            "undo the move, or load the SR of boxes"
        )


def _findings(document: Dataset) -> list[tuple[list[Dataset], Finding]]:
    """Each finding with its content items: a group, or a code and its sentence."""
    found: list[tuple[list[Dataset], Finding | None]] = []
    for measured in children(document, sr_items.MEASUREMENTS):
        for group in children(measured, sr_items.GROUP):
            said = next(iter(children(group, sr_items.COMMENT)), None)
            comment = clean(said.get("TextValue")) if said is not None else ""
            images = sr_items.images_below(said) if said is not None else ()
            found.append(([group], sr_read.statement(group, comment, images)))
    for part in children(document, sr_items.EVALUATIONS):
        items = children(part)
        for item, after in zip(items, [*items[1:], None], strict=False):
            if sr_read.is_evaluation(item):
                said = after if after is not None and name_of(after) == sr_items.COMMENT else None
                comment = clean(said.get("TextValue")) if said is not None else ""
                both = [item] if said is None else [item, said]
                found.append((both, sr_read.statement(item, comment, ())))
    return [(items, one) for items, one in found if one is not None]


def _names(made: Decision) -> list[str]:
    changes = list(made.changes)
    if made.point is not None:
        return [*changes, "measurements"]
    return [*changes, "size_mm"] if made.box is not None else changes


def _named(found: Finding) -> str:
    side = codes.SIDE_CODES.get(found.side)
    meanings = [one.meaning for one in (found.finding, found.site, side) if one is not None]
    label = f" ({found.label.split()[0]})" if found.label.startswith("AI-") else ""
    return ", ".join(meanings) + label


def _edited(items: list[Dataset], found: Finding, made: Decision, document: Dataset) -> list[Dataset]:
    """The content items of a finding as a reader changed it."""
    old = items[0]
    meant = bool({"finding", "site", "side", "status"} & set(made.changes))
    status = made.status or found.status
    regions = [one for one in children(old) if one.get("ValueType") in ("SCOORD", "SCOORD3D")]
    region: Dataset | None = regions[0] if regions else None
    place = made.box or made.point
    if place is not None:
        reference = _reference(place.image, document)
    if made.box is not None:
        region = sr_items.box_item("CONTAINS", sr_items.REGION, made.box.box, reference)
    elif made.point is not None:
        _check_point(found, made.point)
        region = sr_items.point_item("CONTAINS", sr_items.REGION, made.point.region, reference)
    if status is Status.ABSENT:
        region = None
    changed = replace(
        found,
        finding=codes.code("findings", made.finding) if made.finding else found.finding,
        site=codes.code("sites", made.site) if made.site else found.site,
        side=made.side or found.side,
        status=status,
        numbers=_numbers(found, made, status, meant=meant),
    )
    moved = (region is None) != (not regions)
    comment = clean(items[-1].get("TextValue")) if name_of(items[-1]) == sr_items.COMMENT else found.sentence
    if name_of(old) == sr_items.GROUP:
        comment = sr_items.text_of(old, sr_items.COMMENT)
    if meant or moved or made.sentence is not None:
        comment = _restated(
            comment,
            clean(made.sentence or found.sentence),
            status,
            placed=region is not None,
            holds=not (meant or moved),
        )
    if meant or not changed.label:
        number = re.match(r"AI-\d+\b", changed.label)
        changed = replace(
            changed, label=f"{number[0] if number else 'AI'} {_named(replace(changed, label=''))}"
        )
    references = _cited(old)
    if place is not None and status is not Status.ABSENT:
        references = [reference, *(one for one in references if one != reference)]
    if region is None:
        return _evaluation(old, changed, comment, references)
    return [_group(old, changed, comment, references, region)]


def _check_point(found: Finding, point: Point) -> None:
    """Refuse a point of another kind, or in other millimetres, than the finding's."""
    new = point.region
    kinds = [(one.image is None, one.frame_of_reference_uid) for one in found.regions]
    if kinds != [(new.image is None, new.frame_of_reference_uid)]:
        raise NotVerifiableError("a point was moved to where the finding can't be; undo the move")


def _reference(wanted: ImageRef, document: Dataset) -> Dataset:
    """The image of a new place, as the document's evidence names it."""
    classes = {uid: sop_class for _, sop_class, uid in sr_read.report_of(document).evidence}
    if wanted.sop_instance_uid not in classes:
        raise NotVerifiableError(
            "a finding was moved onto an image that the report isn't about; move it back or undo"
        )
    reference = Dataset()
    reference.ReferencedSOPClassUID = classes[wanted.sop_instance_uid]
    reference.ReferencedSOPInstanceUID = wanted.sop_instance_uid
    if wanted.frame > 1 or _is_multi_frame(classes[wanted.sop_instance_uid]):
        reference.ReferencedFrameNumber = wanted.frame
    return reference


def _is_multi_frame(sop_class: str) -> bool:
    return any(word in UID(sop_class).name for word in ("Enhanced", "Multi-frame"))


def _numbers(found: Finding, made: Decision, status: Status, *, meant: bool) -> tuple[Number, ...]:
    """What still holds: sizes were of the old place, certainty was of the old meaning."""
    if made.status is Status.ABSENT:
        return ()
    kept = () if (made.box or made.point) is not None else found.numbers
    if meant:
        kept = tuple(one for one in kept if one.name != sr_items.CERTAINTY)
    if made.box is None:
        return kept
    size = Number(name=sr_items.LONG_AXIS, value=made.box.size_mm, unit=sr_items.MILLIMETER)
    return (size, *kept)


def _restated(comment: str, sentence: str, status: Status, *, placed: bool, holds: bool) -> str:
    """The comment with another sentence and status, and of its facts those that still hold."""
    _, facts = sr_read.split(comment)
    kept = [one for one in facts[1:] if holds or (one.startswith(("image ", "series ")) and not placed)]
    said = [status.value, *kept]
    if said == [Status.PRESENT.value] and sr_read.FACTS.search(sentence) is None:
        return sentence
    return f"{sentence} [{'; '.join(said)}]"


def _cited(old: Dataset, *, baseline: bool = False) -> list[Dataset]:
    """References to the images that a finding cites, its region's first; or to those it is compared with."""
    holders = [one for one in sr_items.walk(old) if one.get("ValueType") in ("SCOORD", "TEXT")]
    found: list[Dataset] = []
    for image in (one for holder in (*holders, old) for one in children(holder)):
        reference = image.get("ReferencedSOPSequence") if image.get("ValueType") == "IMAGE" else None
        if reference and (name_of(image) == sr_items.BASELINE) is baseline and reference[0] not in found:
            found.append(reference[0])
    return found


def _site(changed: Finding) -> Dataset:
    side = codes.SIDE_CODES.get(changed.side)
    below = [] if side is None else [code_item("HAS CONCEPT MOD", sr_items.LATERALITY, side)]
    assert changed.site is not None
    return code_item("HAS CONCEPT MOD", sr_items.SITE, changed.site, *below)


def _qualifiers(old: Dataset) -> list[tuple[Code, Code]]:
    named = [
        (name_of(one), sr_items.value_of(one)) for one in children(old, sr_items.SEVERITY, sr_items.CHANGE)
    ]
    return [(name, value) for name, value in named if name is not None and value is not None]


def _group(
    old: Dataset, changed: Finding, comment: str, references: list[Dataset], region: Dataset
) -> Dataset:
    """A measurement group (TID 1410); its first NUM carries the region, which OHIF needs."""
    region = deepcopy(region)
    region.RelationshipType = "CONTAINS"
    items = [
        text_item("HAS OBS CONTEXT", sr_items.TRACKING_IDENTIFIER, changed.label),
        sr_items.uid_item("HAS OBS CONTEXT", sr_items.TRACKING_UID, changed.key),
        code_item("CONTAINS", sr_items.CATEGORY, sr_items.ABNORMAL),
        code_item("CONTAINS", sr_items.FINDING, changed.finding),
        _site(changed),
        *(one for name in sr_items.ALGORITHM for one in children(old, name)),
    ]
    for number, one in enumerate(changed.numbers):
        own = deepcopy(region)
        own.RelationshipType = "INFERRED FROM"
        items.append(
            sr_items.number_item("CONTAINS", one.name, one.value, one.unit, *([own] if number == 0 else []))
        )
    items += [code_item("CONTAINS", *one) for one in _qualifiers(old)]
    point = region.GraphicType == "POINT"
    # TID 1410 wants a measurement or an evaluation, and a moved point has lost its measurements
    if changed.status is Status.INDETERMINATE or (point and not changed.numbers):
        items.append(code_item("CONTAINS", changed.finding, codes.STATUS_CODES[changed.status]))
    flat = region.ValueType == "SCOORD"
    items.append(code_item("CONTAINS", sr_items.PURPOSE, sr_items.CENTER if point else sr_items.BOUNDED_BY))
    items.append(region)
    own_image = children(region)[0].ReferencedSOPSequence[0] if flat else None
    cited = [one for one in references if one != own_image]
    items.append(text_item("CONTAINS", sr_items.COMMENT, comment, *_inferred(cited, old)))
    return container("CONTAINS", sr_items.GROUP, items, template="1410")


def _evaluation(old: Dataset, changed: Finding, comment: str, references: list[Dataset]) -> list[Dataset]:
    """A finding without a place: its code, and its sentence after it."""
    name, value = sr_items.FINDING, changed.finding
    if changed.status is not Status.PRESENT:
        name, value = changed.finding, codes.STATUS_CODES[changed.status]
    said = code_item(
        "CONTAINS",
        name,
        value,
        sr_items.uid_item("HAS PROPERTIES", sr_items.TRACKING_UID, changed.key),
        _site(changed),
        *(code_item("HAS CONCEPT MOD", *one) for one in _qualifiers(old)),
        *(sr_items.number_item("HAS PROPERTIES", one.name, one.value, one.unit) for one in changed.numbers),
        *_inferred(references, old),
    )
    return [said, text_item("CONTAINS", sr_items.COMMENT, comment)]


def _inferred(references: list[Dataset], old: Dataset) -> list[Dataset]:
    """The images that a finding cites, and those of an earlier study that it was compared with before."""
    cited = [sr_items.image_item("INFERRED FROM", sr_items.ILLUSTRATION, one) for one in references]
    compared = _cited(old, baseline=True)
    return [*cited, *(sr_items.image_item("INFERRED FROM", sr_items.BASELINE, one) for one in compared)]


def _outcome(document: Dataset, *, there: bool) -> Code:
    """How the reading stands now (CID 6047)."""
    evaluations = [one for part in children(document, sr_items.EVALUATIONS) for one in children(part)]
    before = [sr_items.value_of(one) for one in evaluations if name_of(one) == sr_items.OUTCOME]
    partly = any(one in (Code("111243", "DCM"), Code("111244", "DCM")) for one in before)
    value, meaning = {
        (False, True): ("111242", "All algorithms succeeded; with findings"),
        (False, False): ("111241", "All algorithms succeeded; without findings"),
        (True, True): ("111244", "Not all algorithms succeeded; with findings"),
        (True, False): ("111243", "Not all algorithms succeeded; without findings"),
    }[partly, there]
    return Code(value, "DCM", meaning)


def _root(
    document: Dataset,
    person: Person,
    groups: list[Dataset],
    evaluations: list[Dataset],
    remarks: list[str],
) -> Dataset:
    """The root CONTAINER: the person before the device, then what the document said, as decided."""
    decided = {id(item) for items, _ in _findings(document) for item in items}
    others = [
        one
        for part in children(document, sr_items.EVALUATIONS)
        for one in children(part)
        if id(one) not in decided
        and name_of(one) != sr_items.OUTCOME
        and not (name_of(one) == sr_items.COMMENT and one.get("TextValue") in (_AI_REMARK, REMARK))
    ]
    kept = [
        one
        for one in children(document)
        if name_of(one)
        not in (
            sr_items.MEASUREMENTS,
            sr_items.EVALUATIONS,
            sr_items.PERSON_NAME,
            sr_items.PERSON_ORGANIZATION,
        )
        and not (name_of(one) == sr_items.OBSERVER_TYPE and sr_items.value_of(one) == sr_items.PERSON)
    ]
    first = next((n for n, one in enumerate(kept) if name_of(one) != sr_items.LANGUAGE), len(kept))
    kept[first:first] = [
        code_item("HAS OBS CONTEXT", sr_items.OBSERVER_TYPE, sr_items.PERSON),
        sr_items.person_item("HAS OBS CONTEXT", sr_items.PERSON_NAME, person.name),
        text_item("HAS OBS CONTEXT", sr_items.PERSON_ORGANIZATION, person.organization),
    ]
    if groups:
        kept.append(container("CONTAINS", sr_items.MEASUREMENTS, groups))
    said = [text_item("CONTAINS", sr_items.COMMENT, words) for words in remarks]
    kept.append(container("CONTAINS", sr_items.EVALUATIONS, [*evaluations, *said, *others]))
    return container(None, sr_items.TITLE, kept, template="1500")
