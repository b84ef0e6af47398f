"""What must hold between an SR's header and its content (PS3.3 A.35, C.17.2)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
)

from medmllm_plugin.dicom_bridge.sr_items import CHARACTER_SET
from medmllm_plugin.dicom_bridge.sr_references import references_in
from medmllm_plugin.dicom_bridge.sr_rules import Issue, Level
from medmllm_plugin.dicom_bridge.sr_tree import SrImage, SrRegion
from medmllm_plugin.dicom_bridge.sr_values import SrDocument
from medmllm_plugin.transforms.attributes import items, text

_KEY_OBJECTS = {"CONTAINER", "TEXT", "CODE", "UIDREF", "PNAME", "IMAGE", "WAVEFORM", "COMPOSITE"}
_BASIC = {*_KEY_OBJECTS, "DATETIME", "DATE", "TIME"}
_ENHANCED = {*_BASIC, "NUM", "SCOORD", "TCOORD"}
_VALUE_TYPES: dict[str, set[str]] = {
    KeyObjectSelectionDocumentStorage: _KEY_OBJECTS,
    BasicTextSRStorage: _BASIC,
    EnhancedSRStorage: _ENHANCED,
    ComprehensiveSRStorage: _ENHANCED,
    Comprehensive3DSRStorage: {*_ENHANCED, "SCOORD3D"},
}
"""Value types that a SOP class may have (PS3.3 A.35)."""
_BY_REFERENCE = (ComprehensiveSRStorage, Comprehensive3DSRStorage)

_VERIFIER = ("VerifyingObserverName", "VerifyingOrganization", "VerificationDateTime")
_EVIDENCE = ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")


def check_header(dataset: Dataset, document: SrDocument) -> Iterator[Issue]:
    """What an SR's header lacks or contradicts: flags, verifier, character set, evidence, value types.

    Args:
        dataset: The document as it was read from the file.
        document: The same, understood.
    """
    if document.sop_class_uid != KeyObjectSelectionDocumentStorage:
        yield from _flags(dataset, document)
    yield from _character_set(dataset, document)
    yield from _evidence(dataset, document)
    yield from _value_types(document)


def _flags(dataset: Dataset, document: SrDocument) -> Iterator[Issue]:
    for keyword, allowed in (
        ("CompletionFlag", ("PARTIAL", "COMPLETE")),
        ("VerificationFlag", ("UNVERIFIED", "VERIFIED")),
    ):
        if (value := text(dataset, keyword)) not in allowed:
            yield _error(keyword, f"{value or 'nothing'!r}, expected {' or '.join(allowed)}", "PS3.3 C.17.2")
    verifiers = items(dataset, "VerifyingObserverSequence")
    if document.verification == "VERIFIED" and not verifiers:
        yield _error("VerifyingObserverSequence", "no verifier of a verified document", "PS3.3 C.17.2")
    if document.verification == "UNVERIFIED" and verifiers:
        yield _error("VerifyingObserverSequence", "a verifier of an unverified document", "PS3.3 C.17.2")
    for verifier in verifiers:
        for keyword in _VERIFIER:
            if not text(verifier, keyword):
                yield _error(keyword, "missing for a verifier", "PS3.3 C.17.2")
    if document.verification == "VERIFIED" and document.preliminary == "PRELIMINARY":
        yield _warning("PreliminaryFlag", "a verified document that is preliminary", "PS3.3 C.17.2")
    if document.verification == "VERIFIED" and document.completion == "PARTIAL":
        yield _warning("CompletionFlag", "a verified document that is partial", "PS3.3 C.17.2")


def _character_set(dataset: Dataset, document: SrDocument) -> Iterator[Issue]:
    named = text(dataset, "SpecificCharacterSet")
    beyond = [
        item
        for item in document.tree.walk()
        if isinstance(item.value, str) and not item.value.isascii() and not item.character_set
    ]
    if beyond and not named:
        yield _error(
            "SpecificCharacterSet", f"none, but item {beyond[0].place} is not ASCII", "PS3.3 C.12.1.1.2"
        )
    elif beyond and named != CHARACTER_SET:
        yield _warning(
            "SpecificCharacterSet",
            f"{named}, expected {CHARACTER_SET}: other letters than these become question marks",
            "DCMTK, OHIF",
        )


def _evidence(dataset: Dataset, document: SrDocument) -> Iterator[Issue]:
    """All that the tree refers to must be evidence; Slicer looks for it in the first series only."""
    series = [
        _instances(one)
        for keyword in _EVIDENCE
        for study in items(dataset, keyword)
        for one in items(study, "ReferencedSeriesSequence")
    ]
    known = {uid for uids in series for uid in uids}
    cited = {
        item.value.sop_instance_uid: item.place
        for item in document.tree.walk()
        if isinstance(item.value, SrImage)
    }
    missing = [place for uid, place in cited.items() if uid and uid not in known]
    if missing:
        yield _error(
            _EVIDENCE[0],
            f"{len(missing)} instances that the content refers to are missing, as of item {missing[0]}",
            "PS3.3 C.17.2",
        )
    boxed = {
        item.value.image.sop_instance_uid
        for item in document.tree.walk()
        if isinstance(item.value, SrRegion) and item.value.image is not None
    }
    if series and boxed & known and not boxed & set(series[0]):
        yield _warning(
            _EVIDENCE[0], "the images with regions are not in its first series", "3D Slicer looks only there"
        )


def _instances(series: Dataset) -> list[str]:
    """SOP Instance UIDs of an item of Referenced Series Sequence (0008,1115)."""
    plain = references_in(series)
    if plain is not None:
        return [instance for _, instance in plain]
    return [text(one, "ReferencedSOPInstanceUID") for one in items(series, "ReferencedSOPSequence")]


def _value_types(document: SrDocument) -> Iterator[Issue]:
    allowed = _VALUE_TYPES.get(document.sop_class_uid)
    if allowed is None:
        return
    for item in document.tree.walk():
        if item.value_type and item.value_type not in allowed:
            yield _error(item.place, f"a {item.value_type}, which this SOP class may not have", "PS3.3 A.35")
        elif not item.value_type and document.sop_class_uid not in _BY_REFERENCE:
            yield _error(item.place, "a reference to another item in a SOP class without them", "PS3.3 A.35")


def _error(where: str, text: str, rule: str) -> Issue:
    return Issue(level=Level.ERROR, where=where, text=text, rule=rule)


def _warning(where: str, text: str, rule: str) -> Issue:
    return Issue(level=Level.WARNING, where=where, text=text, rule=rule)
