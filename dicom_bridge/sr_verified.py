"""An AI findings SR and a person's decisions as a verified SR, its successor.

The AI's document stays as it is. The new one names it as its predecessor, keeps the tracking UIDs, holds only
what was accepted or edited, and lies in a series of its own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DatasetSequence

from medmllm_plugin import codes
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_decisions import Decision, Person, Verdict, called, edited
from medmllm_plugin.dicom_bridge.sr_document import language_item
from medmllm_plugin.dicom_bridge.sr_evidence import EvidenceImages
from medmllm_plugin.dicom_bridge.sr_header import new_instance, predecessor_items
from medmllm_plugin.dicom_bridge.sr_items import (
    Relationship,
    code_item,
    container,
    pname_item,
    text_item,
)
from medmllm_plugin.dicom_bridge.sr_statement import Statement, evaluation, measurement_group
from medmllm_plugin.dicom_bridge.sr_statement_reader import (
    below,
    code_of,
    is_named,
    statement_of_evaluation,
    statement_of_group,
    tracking_uid,
)
from medmllm_plugin.dicom_bridge.sr_writer import FINDINGS_SERIES, FINDINGS_SOP_CLASSES
from medmllm_plugin.errors import StudyError
from medmllm_plugin.findings import Status
from medmllm_plugin.report import DISCLAIMER

VERIFIED_SERIES = replace(FINDINGS_SERIES, name="verified", number=9011, description="AI findings (verified)")

VERIFIED_DISCLAIMER = (
    "Research use only. Found by AI, then accepted or edited by the verifying observer; not a medical device."
)
"""Stands where the AI's own document calls itself unverified."""

_COPIED = (
    "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions",
    "ContributingEquipmentSequence", "ReferencedRequestSequence",
    "CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Found:
    """A finding as it stands in the document: its content items, and what they say."""

    items: tuple[Dataset, ...]
    statement: Statement


def verified_sr(
    document: Dataset, decisions: Sequence[Decision], person: Person, *, written: datetime | None = None
) -> Dataset:
    """The verified successor of an AI findings SR (PS3.3 C.17.2; Verification Flag VERIFIED).

    Args:
        document: Tree A as `findings_sr` or `points_sr` wrote it, or a verified one to correct.
        decisions: One for each of its findings, the absent ones too.
        person: Who verifies.
        written: Verification and Content Date and Time, local time; now by default.

    Returns:
        A dataset ready for `save_as(path, enforce_file_format=True)`. The same document, decisions and
        person always give the same SOP Instance UID, others another.

    Raises:
        StudyError: If the document is no such SR, its findings have another shape than ours or share a
            tracking UID, or its reading did not succeed.
        ValueError: If a finding has no decision or two, a decision is of no finding of the document, an edit
            contradicts itself, or its box is on no image of the document or leaves it.
    """
    written = written or datetime.now()
    document = _checked(document)
    found = _by_tracking_uid(document)
    asked = _by_finding(decisions, found)
    images = EvidenceImages(document)
    groups: list[Dataset] = []
    evaluations: list[Dataset] = []
    stated: list[Statement] = []
    remarks = [VERIFIED_DISCLAIMER]
    for uid, one in found.items():
        decision = asked[uid]
        if decision.verdict is Verdict.REJECT:
            remarks.append(f"Rejected by the verifying observer, so left out: {_named(one.statement)}.")
            continue
        statement, items = one.statement, list(one.items)
        if decision.verdict is Verdict.EDIT:
            image = None if decision.box is None else images.boxed(decision.box)
            statement = edited(one.statement, decision, image=image)
            _require_one_kind(statement, decision, found)
            placed = statement.region is not None
            items = [measurement_group(statement)] if placed else evaluation(statement)
            changes = ", ".join(decision.changed)
            remarks.append(f"Edited by the verifying observer ({changes}): {_named(one.statement)}.")
        stated.append(statement)
        (groups if is_named(items[0], concepts.MEASUREMENT_GROUP) else evaluations).extend(items)
    root = _root(document, person, groups, [*_outcome(document, stated), *evaluations], remarks, stated)
    series = replace(VERIFIED_SERIES, sop_class_uid=str(document.SOPClassUID))
    said = json.dumps([asked[uid].to_json() for uid in found], sort_keys=True)
    identity = ("verified", str(document.SOPInstanceUID), person.name, person.organization, said)
    sr = new_instance(document, series=series, identity=identity, written=written)
    for keyword in _COPIED:
        if keyword in document:
            setattr(sr, keyword, document[keyword].value)
    sr.ReferencedPerformedProcedureStepSequence = DatasetSequence()
    sr.PerformedProcedureCodeSequence = DatasetSequence()
    sr.CompletionFlag, sr.VerificationFlag, sr.PreliminaryFlag = "COMPLETE", "VERIFIED", "FINAL"
    sr.VerifyingObserverSequence = DatasetSequence([_verifying(person, written)])
    sr.PredecessorDocumentsSequence = DatasetSequence(predecessor_items([document], header=document))
    for element in root:
        sr.add(element)
    return sr


def _refused(document: Dataset, found: str) -> StudyError:
    return StudyError(
        found=found,
        expected="findings of TID 1500 as ours are",
        where=f"SR {document.get('SOPInstanceUID', 'without UID')}",
        remedy="give the findings SR that is to be verified",
    )


def _checked(document: Dataset) -> Dataset:
    """A copy of the document, if it can be verified; its text is decoded, for ours is UTF-8."""
    is_report = is_named(document, concepts.IMAGING_MEASUREMENT_REPORT)
    if document.get("SOPClassUID") not in FINDINGS_SOP_CLASSES or not is_report:
        raise _refused(document, "another kind of document")
    copy = deepcopy(document)
    for _ in copy.iterall():
        pass
    if _outcome_of(copy) == codes.qualifier("outcome", "none_succeeded").value:
        raise _refused(document, "a reading that did not succeed")
    return copy


def _by_tracking_uid(document: Dataset) -> dict[str, _Found]:
    try:
        findings = list(_findings(document))
    except (ValueError, AttributeError, IndexError, KeyError) as error:
        raise _refused(document, f"a finding of another shape ({error})") from error
    found = {one.statement.tracking_uid: one for one in findings}
    if "" in found or len(found) < len(findings):
        raise _refused(document, "a finding without a tracking UID of its own")
    return found


def _findings(document: Dataset) -> Iterator[_Found]:
    """All findings, in order: the measurement groups, then the evaluations with their sentences."""
    for measured in below(document, concepts.IMAGING_MEASUREMENTS):
        for group in below(measured, concepts.MEASUREMENT_GROUP):
            yield _Found(items=(group,), statement=statement_of_group(group))
    for evaluations in below(document, concepts.QUALITATIVE_EVALUATIONS):
        items = list(evaluations.ContentSequence)
        for item, after in zip(items, [*items[1:], None], strict=True):
            if _is_finding(item):
                said = after if after is not None and is_named(after, concepts.COMMENT) else None
                comment = str(said.TextValue) if said is not None else ""
                both = (item,) if said is None else (item, said)
                yield _Found(items=both, statement=statement_of_evaluation(item, comment))


def _is_finding(item: Dataset) -> bool:
    return item.ValueType == "CODE" and (bool(tracking_uid(item)) or is_named(item, concepts.FINDING))


def _by_finding(decisions: Sequence[Decision], found: dict[str, _Found]) -> dict[str, Decision]:
    """The decisions by tracking UID, once each finding is seen to have one."""
    for uid, count in Counter(one.tracking_uid for one in decisions).items():
        if uid not in found:
            raise ValueError(f"a decision is on {uid}, which is none of the document's findings")
        if count > 1:
            raise ValueError(f"there are {count} decisions on {uid}; each finding needs one")
    asked = {one.tracking_uid: one for one in decisions}
    missing = [uid for uid in found if uid not in asked]
    if missing:
        raise ValueError(f"{len(missing)} findings have no decision: {', '.join(missing)}; each needs one")
    return asked


def _require_one_kind(statement: Statement, decision: Decision, found: dict[str, _Found]) -> None:
    """Refuse a box among points: viewers drop findings of an SR that mixes regions."""
    kinds = {type(one.statement.region) for one in found.values() if one.statement.region is not None}
    if decision.box is not None and statement.region is not None and kinds - {type(statement.region)}:
        raise ValueError(
            f"{decision.tracking_uid}: a box can't be drawn in an SR of points; verify the SR of boxes"
        )


def _named(statement: Statement) -> str:
    label = statement.tracking_identifier
    return f"{called(statement)} ({label.split()[0]})" if label.startswith("AI-") else called(statement)


def _outcome_of(document: Dataset) -> str:
    containers = below(document, concepts.QUALITATIVE_EVALUATIONS)
    items = [one for container in containers for one in below(container, concepts.OUTCOME)]
    return code_of(items[0].ConceptCodeSequence).value if items else ""


def _outcome(document: Dataset, stated: Sequence[Statement]) -> list[Dataset]:
    """How the reading stands now (CID 6047): with findings if one of them may be there."""
    partly = {codes.qualifier("outcome", f"not_all_succeeded_{one}_findings").value for one in _WITH.values()}
    there = any(one.status is not Status.ABSENT for one in stated)
    key = f"{'not_' if _outcome_of(document) in partly else ''}all_succeeded_{_WITH[there]}_findings"
    return [code_item(Relationship.CONTAINS, concepts.OUTCOME, codes.qualifier("outcome", key))]


_WITH = {True: "with", False: "without"}


def _root(
    document: Dataset,
    person: Person,
    groups: Sequence[Dataset],
    evaluations: Sequence[Dataset],
    remarks: Sequence[str],
    stated: Sequence[Statement],
) -> Dataset:
    """The root CONTAINER: the person before the device, then what the document said, as decided."""
    contains = Relationship.CONTAINS
    findings = {id(item) for one in _findings(document) for item in one.items}
    others = [
        item
        for one in below(document, concepts.QUALITATIVE_EVALUATIONS)
        for item in one.ContentSequence
        if id(item) not in findings and not is_named(item, concepts.OUTCOME) and not _is_stale(item)
    ]
    said = [text_item(contains, concepts.COMMENT, words) for words in remarks]
    children: list[Dataset] = []
    for item in document.ContentSequence:
        if is_named(item, concepts.LANGUAGE):
            children.append(_language(item, stated))
        elif is_named(item, concepts.IMAGING_MEASUREMENTS) or is_named(
            item, concepts.QUALITATIVE_EVALUATIONS
        ):
            continue
        elif not _is_person(item):
            children.append(item)
    first = next(n for n, item in enumerate(children) if not is_named(item, concepts.LANGUAGE))
    children[first:first] = _person_items(person)
    if groups:
        children.append(container(contains, concepts.IMAGING_MEASUREMENTS, groups))
    children.append(container(contains, concepts.QUALITATIVE_EVALUATIONS, [*evaluations, *said, *others]))
    return container(None, concepts.IMAGING_MEASUREMENT_REPORT, children, template="1500")


def _language(item: Dataset, stated: Sequence[Statement]) -> Dataset:
    """The document's language, unless an edited sentence is in a script that can't be it."""
    now = language_item(*(one.comment for one in stated))
    und = code_of(now.ConceptCodeSequence).value == concepts.UNDETERMINED_LANGUAGE.value
    english = code_of(item.ConceptCodeSequence).value == concepts.ENGLISH.value
    return now if und and english else item


def _is_stale(item: Dataset) -> bool:
    """Whether a comment says what no longer holds, or is said again."""
    return is_named(item, concepts.COMMENT) and item.get("TextValue") in (DISCLAIMER, VERIFIED_DISCLAIMER)


def _is_person(item: Dataset) -> bool:
    """Whether an item is of a person who observed: of an earlier verification."""
    if is_named(item, concepts.OBSERVER_TYPE):
        return code_of(item.ConceptCodeSequence).value == concepts.PERSON.value
    return is_named(item, concepts.PERSON_NAME) or is_named(item, concepts.PERSON_ORGANIZATION)


def _person_items(person: Person) -> list[Dataset]:
    """The person who observed (TID 1002, 1003)."""
    context = Relationship.HAS_OBS_CONTEXT
    return [
        code_item(context, concepts.OBSERVER_TYPE, concepts.PERSON),
        pname_item(context, concepts.PERSON_NAME, person.name),
        text_item(context, concepts.PERSON_ORGANIZATION, person.organization),
    ]


def _verifying(person: Person, written: datetime) -> Dataset:
    """An item of Verifying Observer Sequence (0040,A073)."""
    item = Dataset()
    item.VerifyingObserverName = person.name
    item.VerifyingObserverIdentificationCodeSequence = DatasetSequence()
    item.VerifyingOrganization = person.organization
    item.VerificationDateTime = written.strftime("%Y%m%d%H%M%S")
    return item
