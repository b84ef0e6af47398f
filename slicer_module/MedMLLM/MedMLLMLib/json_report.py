"""`report.json` of a volume without DICOM origin as a `Report`; it names no patient, so there is no SR."""

from __future__ import annotations

from typing import Any

from . import codes
from .model import Code, Finding, Number, Region, Report, Sentence, Status


def report_of_json(said: dict[str, Any], *, uid: str) -> Report:
    """What the engine said of a file.

    Args:
        said: `report.json`.
        uid: What the report is called in the scene: the engine's job.
    """
    narrative, provenance = said.get("narrative") or {}, said.get("provenance") or {}
    answer = said.get("answer")
    sentences = [_sentence("Findings", one.get("sentence")) for one in narrative.get("findings") or ()]
    impressions = list(narrative.get("impression") or ())
    if isinstance(answer, dict) and answer_of(said) not in impressions:
        impressions.append(answer_of(said))
    sentences += [_sentence("Impressions", one) for one in impressions]
    device = ("model", "model_version", "weights_sha256", "prompt_sha256", "code_version")
    return Report(
        uid=uid,
        study_uid="",
        series_uid="",
        patient_id="",
        title="AI findings (unverified), no DICOM",
        content_time="",
        is_ai=True,
        is_verified=False,
        device=tuple((one.replace("_", " "), str(provenance[one])) for one in device if provenance.get(one)),
        outcome=str(said.get("outcome") or ""),
        findings=tuple(_finding(number, one) for number, one in enumerate(said.get("findings") or (), 1)),
        sentences=tuple(one for one in sentences if one.text),
        remarks=(str(said.get("disclaimer") or ""), *map(str, said.get("notes") or ())),
    )


def answer_of(said: dict[str, Any]) -> str:
    """The answer to a question, empty if there is none."""
    answer = said.get("answer")
    return str(answer.get("text") or "") if isinstance(answer, dict) else ""


def _sentence(section: str, text: Any) -> Sentence:
    return Sentence(section=section, text=str(text or ""))


def _finding(number: int, said: dict[str, Any]) -> Finding:
    center, certainty, size = said.get("center_mm"), said.get("certainty"), said.get("size_mm")
    numbers = []
    if size is not None:
        numbers.append(Number(Code("103339001", "SCT", "Long axis"), float(size), Code("mm", "UCUM", "mm")))
    if certainty is not None:
        name = Code("111012", "DCM", "Certainty of Finding")
        numbers.append(Number(name, 100 * float(certainty), Code("%", "UCUM", "Percent")))
    site = str(said.get("site") or "")
    place = () if center is None else (Region("POINT", (tuple(float(one) for one in center),)),)
    return Finding(
        key=str(said.get("tracking_uid") or f"finding {number}"),
        tracked=False,
        label=f"AI-{number}",
        finding=codes.code("findings", str(said.get("finding"))),
        site=codes.code("sites", site) if site else None,
        side=str(said.get("side") or "none"),
        status=Status(str(said.get("status"))),
        sentence=str(said.get("sentence") or ""),
        facts=("not image-supported",) if said.get("image_supported") is False else (),
        numbers=tuple(numbers),
        regions=place,
    )
