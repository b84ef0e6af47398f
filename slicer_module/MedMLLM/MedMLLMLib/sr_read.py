"""An SR as a `Report`: those of MedMLLM whole, others as far as they are alike."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from . import codes, sr_items
from .model import Code, Finding, ImageRef, Number, Report, Sentence, Status
from .sr_items import children, clean, code_of, images_below, name_of, region_of, text_of, value_of, walk

FACTS = re.compile(r" \[(?P<facts>(?:present|absent|indeterminate)(?:; [^\[\]]*)?)\]$")
"""What stands in brackets after a sentence of ours."""

_DEVICE = (
    ("name", sr_items.DEVICE_NAME),
    ("model", sr_items.DEVICE_MODEL),
    ("manufacturer", sr_items.DEVICE_MANUFACTURER),
    ("serial number (weights)", sr_items.DEVICE_SERIAL),
    ("device UID", sr_items.DEVICE_UID),
)


class NoReportError(ValueError):
    """A file is no SR that can be read; the message says what was found."""


def read_bytes(content: bytes) -> Dataset:
    """The dataset of a DICOM file.

    Raises:
        NoReportError: If it is no whole SR.
    """
    return _read(io.BytesIO(content), "the object")


def read_file(path: str | Path) -> Dataset:
    """The dataset of a DICOM file.

    Raises:
        NoReportError: If it is no whole SR.
    """
    return _read(str(path), Path(path).name)


def _read(source: str | io.BytesIO, where: str) -> Dataset:
    try:
        dataset = pydicom.dcmread(source, stop_before_pixels=True)
        if any(_is_cut_off(one) for one in dataset.values()):  # pydicom passes over that in silence
            raise EOFError("the file is cut off")
        for _ in dataset.iterall():  # decodes all of it, texts too
            pass
    except Exception as error:  # a damaged file can raise anything
        raise NoReportError(
            f"{where} can't be read as DICOM ({type(error).__name__}); fetch it again"
        ) from error
    if dataset.get("ValueType") != "CONTAINER" or not dataset.get("ContentSequence"):
        raise NoReportError(f"{where} is no structured report with content; load one of modality SR")
    return dataset


def _is_cut_off(element: Any) -> bool:
    return isinstance(element, RawDataElement) and len(element.value or b"") < element.length < 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Documents:
    """The SRs of one reading, read."""

    contents: tuple[bytes, ...]
    """As they came, to be kept."""
    document: Dataset
    """The SR of the findings, or a narrative that is alone."""
    report: Report
    """What all of them say."""


def together(contents: Sequence[bytes]) -> Documents:
    """Read the SRs of one reading.

    Args:
        contents: DICOM files, in any order.

    Raises:
        NoReportError: If one can't be read, or they don't belong together.
    """
    if not contents:
        raise NoReportError("there is no SR; read the volume again")
    datasets = sorted(map(read_bytes, contents), key=is_narrative)
    return Documents(contents=tuple(contents), document=datasets[0], report=report_of(*datasets))


def report_of(findings: Dataset, *others: Dataset) -> Report:
    """What an SR says, and others of the same reading with it.

    Args:
        findings: The SR of the findings, or a narrative alone.
        others: SRs whose sentences belong to it, such as the draft report.

    Raises:
        NoReportError: If another is of another study or patient.
    """
    for other in others:
        for keyword, what in (("StudyInstanceUID", "study"), ("PatientID", "patient")):
            if str(other.get(keyword) or "") != str(findings.get(keyword) or ""):
                raise NoReportError(f"two reports are of different {what}s; load them one by one")
    evaluations = [one for part in children(findings, sr_items.EVALUATIONS) for one in children(part)]
    found = [*_groups(findings), *_evaluated(evaluations)]
    kinds = {str(value_of(one).value) for one in children(findings, sr_items.OBSERVER_TYPE) if value_of(one)}
    algorithms = any(
        value_of(one) == Code("123110", "DCM") for one in walk(findings) if one.get("ValueType") == "CODE"
    )
    outcome = next((value_of(one) for one in evaluations if name_of(one) == sr_items.OUTCOME), None)
    return Report(
        uid=str(findings.get("SOPInstanceUID") or ""),
        study_uid=str(findings.get("StudyInstanceUID") or ""),
        series_uid=str(findings.get("SeriesInstanceUID") or ""),
        patient_id=str(findings.get("PatientID") or ""),
        title=clean(findings.get("SeriesDescription")) or _meaning(name_of(findings)),
        content_time=_time(str(findings.get("ContentDate") or "") + str(findings.get("ContentTime") or "")),
        is_ai=sr_items.DEVICE.value in kinds or algorithms,
        is_verified=findings.get("VerificationFlag") == "VERIFIED",
        verifiers=tuple(
            f"{clean(one.get('VerifyingOrganization'))}, {_time(str(one.get('VerificationDateTime') or ''))}"
            for one in findings.get("VerifyingObserverSequence") or ()
        ),
        device=tuple((what, text_of(findings, name)) for what, name in _DEVICE if text_of(findings, name)),
        predecessors=tuple(_predecessors(findings)),
        outcome=_meaning(outcome),
        findings=_with_keys(found),
        sentences=tuple(
            sentence for document in (findings, *others) for sentence in _sentences(document, "")
        ),
        remarks=tuple(_remarks(evaluations)),
        parameters=next((text for one in walk(findings) if (text := text_of(one, sr_items.PARAMETERS))), ""),
        evidence=tuple(_evidence(findings)),
    )


def is_narrative(document: Dataset) -> bool:
    """Whether an SR is a text in sections without measurements, such as the draft report."""
    return name_of(document) != sr_items.TITLE and not children(document, sr_items.MEASUREMENTS)


def split(comment: str) -> tuple[str, tuple[str, ...]]:
    """A comment's sentence, and the facts in brackets after it."""
    found = FACTS.search(comment)
    if found is None:
        return comment, ()
    return comment[: found.start()], tuple(found["facts"].split("; "))


def statement(item: Dataset, comment: str, images: tuple[ImageRef, ...]) -> Finding | None:
    """A measurement group, or a CODE of qualitative evaluations, as a finding; None if it says none."""
    group = item.get("ValueType") == "CONTAINER"
    if group:
        finding = next((value_of(one) for one in children(item, sr_items.FINDING)), None)
        stated = [value_of(one) for one in children(item) if finding is not None and name_of(one) == finding]
    else:
        plain = name_of(item) == sr_items.FINDING
        finding = value_of(item) if plain else name_of(item)
        stated = [] if plain else [value_of(item)]
    if finding is None:
        if not group:
            return None
        finding = Code("", "", "Finding")
    site = next(iter(children(item, sr_items.SITE)), None)
    sides = [*children(site, sr_items.LATERALITY)] if site is not None else []
    sides += children(item, sr_items.LATERALITY)
    sentence, facts = split(comment)
    uid = text_of(item, sr_items.TRACKING_UID)
    regions = [region_of(one) for one in children(item) if one.get("ValueType") in ("SCOORD", "SCOORD3D")]
    if not any(regions):  # some writers have them below their measurements alone
        regions = [
            region_of(one)
            for number in children(item)
            for one in children(number)
            if one.get("ValueType") in ("SCOORD", "SCOORD3D")
        ]
    places = tuple(dict.fromkeys(one for one in regions if one is not None))
    return Finding(
        key=uid,
        tracked=bool(uid),
        label=text_of(item, sr_items.TRACKING_IDENTIFIER),
        finding=finding,
        site=value_of(site) if site is not None else None,
        side=codes.side_of(value_of(sides[0])) if sides else "none",
        status=_status(stated),
        sentence=sentence,
        facts=facts,
        numbers=tuple(_numbers(item)),
        regions=places,
        images=tuple(
            dict.fromkeys([*(one.image for one in places if one.image), *images_below(item), *images])
        ),
    )


def _groups(document: Dataset) -> Iterator[Finding]:
    for group in (one for one in walk(document) if name_of(one) == sr_items.GROUP):
        said = next(iter(children(group, sr_items.COMMENT)), None)
        comment = clean(said.get("TextValue")) if said is not None else ""
        made = statement(group, comment, images_below(said) if said is not None else ())
        if made is not None:
            yield made


def is_evaluation(item: Dataset) -> bool:
    """Whether a CODE among the qualitative evaluations is a finding: "Finding = X", or "X = Absent"."""
    return item.get("ValueType") == "CODE" and (
        name_of(item) == sr_items.FINDING or value_of(item) in codes.STATUS_CODES.values()
    )


def _evaluated(items: list[Dataset]) -> Iterator[Finding]:
    for item, after in zip(items, [*items[1:], None], strict=False):
        if is_evaluation(item):
            said = after is not None and name_of(after) == sr_items.COMMENT
            made = statement(item, clean(after.get("TextValue")) if said else "", ())
            if made is not None:
                yield made


def _with_keys(found: list[Finding]) -> tuple[Finding, ...]:
    """Each with a key of its own: its tracking UID, or its number where it has none or shares it."""
    seen: set[str] = set()
    keyed = []
    for number, one in enumerate(found, 1):
        own = one.tracked and one.key not in seen
        keyed.append(one if own else replace(one, key=f"finding {number}", tracked=False))
        seen.add(one.key)
    return tuple(keyed)


def _remarks(items: list[Dataset]) -> Iterator[str]:
    for before, item in zip([None, *items], items, strict=False):
        of_finding = before is not None and is_evaluation(before)
        if name_of(item) == sr_items.COMMENT and not of_finding and item.get("TextValue"):
            yield clean(item.TextValue)


def _sentences(item: Dataset, section: str) -> Iterator[Sentence]:
    elsewhere = (sr_items.IMAGE_LIBRARY, sr_items.MEASUREMENTS, sr_items.EVALUATIONS)
    for child in children(item):
        if child.get("ValueType") == "CONTAINER" and name_of(child) not in elsewhere:
            yield from _sentences(child, _meaning(name_of(child)))
        elif child.get("ValueType") == "TEXT" and section and child.get("TextValue"):
            yield Sentence(section=section, text=clean(child.TextValue), images=images_below(child))


def _numbers(item: Dataset) -> Iterator[Number]:
    for child in children(item):
        measured = child.get("MeasuredValueSequence")
        name = name_of(child)
        if child.get("ValueType") != "NUM" or not measured or name is None:
            continue
        try:
            value = float(measured[0].NumericValue)
        except (AttributeError, TypeError, ValueError):
            continue
        unit = code_of(measured[0].get("MeasurementUnitsCodeSequence")) or Code("1", "UCUM", "")
        yield Number(name=name, value=value, unit=unit)


def _status(stated: list[Code | None]) -> Status:
    return next((status for status, one in codes.STATUS_CODES.items() if one in stated), Status.PRESENT)


def _predecessors(document: Dataset) -> Iterator[str]:
    for study in document.get("PredecessorDocumentsSequence") or ():
        for series in study.get("ReferencedSeriesSequence") or ():
            for one in series.get("ReferencedSOPSequence") or ():
                yield str(one.get("ReferencedSOPInstanceUID") or "")


def _evidence(document: Dataset) -> Iterator[tuple[str, str, str]]:
    """The images of its own study; those of others, such as an earlier one, are other evidence."""
    own = str(document.get("StudyInstanceUID") or "")
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in document.get(keyword) or ():
            for series in study.get("ReferencedSeriesSequence") or ():
                for one in series.get("ReferencedSOPSequence") or ():
                    if str(study.get("StudyInstanceUID") or "") == own:
                        yield (
                            str(series.get("SeriesInstanceUID") or ""),
                            str(one.get("ReferencedSOPClassUID") or ""),
                            str(one.get("ReferencedSOPInstanceUID") or ""),
                        )


def _meaning(code: Code | None) -> str:
    return "" if code is None else code.meaning


def _time(text: str) -> str:
    """A date and time of DICOM in the form that people read; empty if it is none."""
    found = re.match(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d))?", text)
    if found is None:
        return ""
    date = "-".join(found.groups()[:3])
    return date if found[4] is None else f"{date} {found[4]}:{found[5]}"
