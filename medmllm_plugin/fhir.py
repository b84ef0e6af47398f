"""A report as FHIR R4: a Bundle of a DiagnosticReport, an Observation for each finding, and the models.

It says what `report.json` says, in codes that a hospital system reads. What FHIR R4 has no place for, the
boxes and the images that a sentence rests on, is in the Structured Reports under the same tracking UID.
Nothing in it names a patient, and no extension is used.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medmllm_plugin import codes
from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_document import device_uid
from medmllm_plugin.dicom_bridge.sr_words import (
    OUTCOME_WORDS,
    answer_words,
    diagnosis_words,
    outcome_code,
    trust_words,
)
from medmllm_plugin.findings import Agreement, Finding, SecondOpinion, Side
from medmllm_plugin.outputs import printable
from medmllm_plugin.report import DISCLAIMER, Provenance, Report, conclusions
from medmllm_plugin.two_eyes import opinion_words

SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "RADLEX": "http://radlex.org",
    "UCUM": "http://unitsofmeasure.org",
}
"""The URI of each Coding Scheme Designator (0008,0102) that `codes.toml` uses (PS3.16 8)."""

DICOM_UID = "urn:dicom:uid"
"""Identifier system of DICOM UIDs, whose values are `urn:oid:` and the UID."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "MedMLLM FHIR")
_AI_ASSERTED = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
_TEST_DATA = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason",
    "code": "HTEST",
    "display": "test health data",
}

_SECOND = "A second model, which read the study too; each Observation says what it makes of the finding."

Json = dict[str, Any]


def bundle(report: Report, *, patient_id: str | None = None) -> Json:
    """The report as the JSON of a FHIR R4 Bundle of type `collection`.

    The same reading gives the same ids, so a second run replaces its resources and never doubles them.

    Args:
        report: Any report; one without findings has no Observation, and its conclusion says how it ended.
        patient_id: What the receiver knows the patient by; without it no resource has a subject.

    Returns:
        A Bundle: the DiagnosticReport (status `preliminary`) first, then the Observations in the order of the
        findings, then the Device of the model, and that of a second one. Absent findings are Observations
        too, with the value "Absent".

    Raises:
        ValueError: If `patient_id` is blank.
    """
    if patient_id is not None and not _line(patient_id):
        raise ValueError("a patient's identifier can't be blank; leave it out")
    subject = {} if patient_id is None else {"subject": _subject(patient_id)}
    reading = _reading(report)
    devices = [_device(report.provenance)]
    if report.second is not None:
        devices.append(_device(report.second, _SECOND))
    observations = [
        {
            **_named("Observation", reading, finding.tracking_uid, str(number)),
            **_observation(
                finding, study=_study(report), device=_link(devices[-1 if _is_alone(finding) else 0])
            ),
            **subject,
        }
        for number, finding in enumerate(report.findings)
    ]
    whole = {
        **_named("DiagnosticReport", reading),
        **_diagnostic_report(report, results=[_link(one) for one in observations]),
        **subject,
    }
    meta = _meta(report)
    return {
        **_named("Bundle", reading),
        "meta": meta,
        "type": "collection",
        "entry": [
            {"fullUrl": f"urn:uuid:{one['id']}", "resource": {**one, "meta": meta}}
            for one in (whole, *observations, *devices)
        ],
    }


def write(report: Report, path: Path) -> Path:
    """Write the report's Bundle as `fhir.json`.

    Returns:
        The path.
    """
    text = json.dumps(bundle(report), indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _diagnostic_report(report: Report, *, results: list[Json]) -> Json:
    said = [OUTCOME_WORDS[report.outcome], *_answers(report), *conclusions(report), DISCLAIMER]
    form = base64.b64encode(_as_text(report).encode("utf-8")).decode("ascii")
    study = _study(report)
    return {
        "status": "preliminary",
        "category": [_concept("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", "Radiology")],
        "code": {**_coded(concepts.DIAGNOSTIC_IMAGING_REPORT), "text": "AI draft report (unverified)"},
        **({"imagingStudy": [study]} if study else {}),
        **({"result": results} if results else {}),
        "conclusion": "\n".join(_lines(said)),
        "conclusionCode": [_coded(outcome_code(report))],
        "presentedForm": [
            {
                "contentType": "text/plain; charset=utf-8",
                "data": form,
                "title": "AI draft report (unverified)",
            }
        ],
    }


def _observation(finding: Finding, *, study: Json, device: Json) -> Json:
    kind = codes.finding(finding.finding)
    notes = [finding.sentence]
    if finding.image_supported is False:
        notes.append("Not image-supported: the finding stayed when its pictures were masked.")
    if finding.second is not None:
        notes.append(opinion_words(finding.second))
        if finding.second.sentence and not _is_alone(finding):
            notes.append(f"{finding.second.model} wrote: {finding.second.sentence}")
    remarks = [{"text": one} for one in _lines(notes)]
    components = list(_components(finding))
    return {
        "identifier": [_dicom_uid(finding.tracking_uid)],
        "status": "preliminary",
        "category": [
            _concept("http://terminology.hl7.org/CodeSystem/observation-category", "imaging", "Imaging")
        ],
        "code": {**_coded(kind.code), "text": kind.words},
        "valueCodeableConcept": _coded(codes.qualifier("status", finding.status.value)),
        "bodySite": {**_coded(codes.site(finding.site).code), "text": _place(finding)},
        **({"derivedFrom": [study]} if study else {}),
        "device": device,
        **({"component": components} if components else {}),
        **({"note": remarks} if remarks else {}),
    }


def _components(finding: Finding) -> Iterator[Json]:
    """What qualifies a finding: side, severity and change as codes, sizes and certainty as numbers."""
    coded = (
        (concepts.LATERALITY, "laterality", None if finding.side is Side.NONE else finding.side),
        (concepts.SEVERITY, "severity", finding.severity),
        (concepts.CHANGE, "change", finding.change),
    )
    for name, kind, value in coded:
        if value is not None:
            answer = _coded(codes.qualifier(kind, value.value))
            yield {"code": _coded(name), "valueCodeableConcept": answer}
    numbers = [(one.code, one.value, one.unit) for one in finding.measurements]
    if finding.size_mm is not None and "long_axis" not in {code for code, _, _ in numbers}:
        numbers.insert(0, ("long_axis", finding.size_mm, "mm"))
    if finding.certainty is not None:
        numbers.append(("certainty", 100 * finding.certainty, "%"))
    for code, number, unit in numbers:
        yield {"code": _coded(codes.measurement(code).code), "valueQuantity": _quantity(number, unit)}
    if finding.second is not None:
        yield from _opinion(finding.second)


def _opinion(second: SecondOpinion) -> Iterator[Json]:
    """What the second model says of a finding; no terminology has codes for these questions."""
    yield {"code": {"text": "Second model"}, "valueCodeableConcept": {"text": second.verdict.value}}
    if second.status is not None:
        status = _coded(codes.qualifier("status", second.status.value))
        yield {"code": {"text": "Status by the second model"}, "valueCodeableConcept": status}
    if second.side not in (None, Side.NONE):
        side = _coded(codes.qualifier("laterality", second.side.value))
        yield {"code": {"text": "Side by the second model"}, "valueCodeableConcept": side}
    for words, share in (
        ("Certainty by the second model", second.certainty),
        ("Certainty before the second model was heard", second.first_certainty),
    ):
        if share is not None:
            yield {"code": {"text": words}, "valueQuantity": _quantity(100 * share, "%")}


def _quantity(number: float, unit: str) -> Json:
    return {"value": round(number, 6), "unit": unit, "system": SYSTEMS["UCUM"], "code": unit}


def _is_alone(finding: Finding) -> bool:
    """Whether a finding is the second model's alone."""
    return finding.second is not None and finding.second.verdict is Agreement.ALONE


def _device(provenance: Provenance, *notes: str) -> Json:
    """A model: another Device for other weights."""
    uid = device_uid(provenance)
    version, weights = map(_line, (provenance.model_version, provenance.weights_sha256))
    return {
        **_named("Device", uid),
        "identifier": [_dicom_uid(uid)],
        "deviceName": [{"name": _line(provenance.model) or "unknown", "type": "model-name"}],
        "type": _coded(concepts.ARTIFICIAL_INTELLIGENCE),
        **({"version": [{"value": version}]} if version else {}),
        **(
            {"property": [{"type": {"text": "SHA-256 of the weights"}, "valueCode": [{"text": weights}]}]}
            if weights
            else {}
        ),
        "note": [{"text": one} for one in (*notes, DISCLAIMER)],
    }


def _answers(report: Report) -> list[str]:
    answer = [answer_words(report)] if report.answer is not None else []
    return answer + [diagnosis_words(rank, one) for rank, one in enumerate(report.differential, 1)]


def _as_text(report: Report) -> str:
    """The report for a person, in plain text, with what it was made with."""
    sections = [
        ("Answer", _answers(report)),
        ("Findings", [one.sentence for one in report.narrative]),
        ("Impression", conclusions(report)),
        ("Notes", [*trust_words(report), *report.notes]),
        ("Made with", _made_with(report.provenance)),
    ]
    if report.second is not None:
        sections.append(("Second model", _made_with(report.second)))
    lines = ["AI draft report (unverified)", DISCLAIMER, *_lines([OUTCOME_WORDS[report.outcome]])]
    for title, texts in sections:
        if title != "Answer" or texts:
            lines += ["", title, *_lines(texts)]
    return "\n".join(lines) + "\n"


def _made_with(provenance: Provenance) -> list[str]:
    """A line for each fact, but how long it took, which differs each time."""
    known = {name: value for name, value in asdict(provenance).items() if value != ""}
    del known["seconds"]
    return [f"{name}: {value}" for name, value in known.items()]


def _named(kind: str, *parts: str) -> Json:
    """The type and id of a resource: the id that always belongs to these parts."""
    return {"resourceType": kind, "id": str(uuid.uuid5(_NAMESPACE, "\x1f".join((kind, *parts))))}


def _reading(report: Report) -> str:
    """What tells this reading from every other; for a file without UIDs also the reply, its only trait."""
    made = report.provenance
    study = report.study
    known = study.series_instance_uid is not None
    return json.dumps(
        [
            *(study.study_instance_uid, study.series_instance_uid, None if known else report.raw_reply),
            *(made.task, made.model, made.model_version, made.weights_sha256, made.prompt_sha256),
            *(made.schema_sha256, made.slice_plan, made.seed),
            *([] if report.second is None else [device_uid(report.second)]),
        ]
    )


def _meta(report: Report) -> Json:
    tag = {} if report.study.phantom is None else {"tag": [_TEST_DATA]}
    return {"security": [_AI_ASSERTED], **tag}


def _study(report: Report) -> Json:
    """The study by its UID, as a server knows it; empty for a file that has none."""
    uid = report.study.study_instance_uid
    return {} if uid is None else {"type": "ImagingStudy", "identifier": _dicom_uid(uid)}


def _subject(patient_id: str) -> Json:
    return {"type": "Patient", "identifier": {"value": _line(patient_id)}}


def _link(resource: Json) -> Json:
    return {"type": resource["resourceType"], "reference": f"urn:uuid:{resource['id']}"}


def _dicom_uid(uid: str) -> Json:
    return {"system": DICOM_UID, "value": f"urn:oid:{uid}"}


def _coded(code: Code) -> Json:
    return _concept(SYSTEMS[code.scheme], code.value, code.meaning)


def _concept(system: str, code: str, display: str) -> Json:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _place(finding: Finding) -> str:
    words = codes.site(finding.site).words
    return words if finding.side is Side.NONE else f"{words}, {finding.side.value}"


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """Each text on one line, without those that have no words, for FHIR has no empty strings."""
    return filter(None, map(_line, texts))


def _line(text: str) -> str:
    return printable(" ".join(text.split()))
