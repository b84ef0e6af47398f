"""What was read: findings, narrative, outcome, provenance, and the raw reply beside them."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from medmllm_plugin.findings import (
    Agreement,
    Box,
    Change,
    Effect,
    Finding,
    Measurement,
    SecondOpinion,
    Severity,
    Side,
    Status,
    StatusProbabilities,
    Trial,
    TrialResult,
)
from medmllm_plugin.source import ImageRef, image_from_json
from medmllm_plugin.volume import Study

SCHEMA = "medmllm-report/1"

DISCLAIMER = "Research use only. AI-generated and unverified; not a medical device, not for diagnosis."
"""Stands in every report, SR and page."""


class Outcome(StrEnum):
    """How the reading ended."""

    FINDINGS = "findings"
    NO_FINDINGS = "no-findings"
    OUTSIDE_DOMAIN = "outside-domain"
    """The model was never made for such images; what it said is kept in `raw_reply` and not as findings."""
    NOT_ASSESSED = "not-assessed"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentence:
    """A sentence of the narrative and the images it rests on."""

    sentence: str
    images: tuple[ImageRef, ...] = ()
    pictures: tuple[int, ...] = ()
    """The pictures that it rests on, rising from 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Enough to run the same reading again."""

    model: str
    model_version: str
    weights_sha256: str
    prompt_sha256: str
    schema_sha256: str
    code_version: str
    task: str
    slice_plan: str
    seed: int
    dtype: str
    seconds: float
    """Wall-clock seconds that the model took, all asks together."""
    task_version: str = ""
    """Version of the task's words, with a hash of their file."""
    language: str = "en"
    """ISO 639-1 code of the language that the model was asked in."""
    strategy: str = "single"
    """How the study was read, see `medmllm_plugin.strategies`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The answer to a question."""

    text: str
    """In the model's own words, one or more sentences."""
    choice: str | None = None
    """Of a closed question: `yes`, `no`, `unclear`, or one of the choices given, as it was given."""
    certainty: float | None = None
    """Of the choice, 0 to 1; None if the model gave none."""
    why: str | None = None
    """What it rests on, where that was asked for."""
    images: tuple[ImageRef, ...] = ()
    pictures: tuple[int, ...] = ()
    boxes: tuple[Box, ...] = ()
    """Where it is, where that was asked for."""


class Likelihood(StrEnum):
    """How likely a diagnosis is held."""

    HIGH = "high"
    MODERATE = "moderate"
    LOW = "low"


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """One line of a differential diagnosis, the likeliest first."""

    name: str
    likelihood: Likelihood
    why: str
    images: tuple[ImageRef, ...] = ()
    pictures: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """How much of what was read the model really saw."""

    slices_shown: int
    """Images of the study that are part of a picture."""
    slices_total: int
    """Images of the series read."""
    share: float | None
    """Share of the volume that lies in a picture, 0 to 1; None where images have no place in the patient."""
    smallest_mm: float | None
    """The larger of a picture's pixel and the distance of the pictures: what is smaller may not be visible.
    None where spacing is unknown."""
    words: str
    """The same as a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """What a guard rail said, see `medmllm_plugin.checks`."""

    name: str
    passed: bool
    message: str
    """What was looked at and found, a sentence."""
    about: int | None = None
    """The finding it is about, from 0 in the order of the report; None for the report as a whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """One reply of the model, as it came."""

    purpose: str
    """Why it was asked, such as `report`, `report, asked again` or `zoom`."""
    prompt_sha256: str
    text: str
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A reading of one study."""

    outcome: Outcome
    study: Study
    findings: tuple[Finding, ...]
    narrative: tuple[Sentence, ...]
    impression: tuple[str, ...]
    provenance: Provenance
    raw_reply: str
    """The model's reply, whole, as it came; the last one if it was asked again."""
    notes: tuple[str, ...] = ()
    """What a reader must know: how the input was chosen, what was left out, the model's domain."""
    question: str | None = None
    """The user's own question."""
    answer: Answer | None = None
    differential: tuple[Diagnosis, ...] = ()
    """The likeliest first."""
    coverage: Coverage | None = None
    checks: tuple[CheckResult, ...] = ()
    heard: tuple[Heard, ...] = ()
    """Every reply of the model in the order it came; `raw_reply` is the one that the report was made from."""
    second: Provenance | None = None
    """Of a second model that read the study too, see `two_eyes`."""

    def to_json(self) -> dict[str, Any]:
        """The content of `report.json`."""
        return {
            "schema": SCHEMA,
            "disclaimer": DISCLAIMER,
            "outcome": self.outcome.value,
            "study": asdict(self.study),
            "findings": [finding_to_json(finding) for finding in self.findings],
            "narrative": {
                "findings": [
                    {
                        "sentence": one.sentence,
                        "images": [image.to_json() for image in one.images],
                        "pictures": list(one.pictures),
                    }
                    for one in self.narrative
                ],
                "impression": list(self.impression),
            },
            "notes": list(self.notes),
            "question": self.question,
            "answer": None if self.answer is None else _answer_to_json(self.answer),
            "differential": [_with_images(one) for one in self.differential],
            "coverage": None if self.coverage is None else asdict(self.coverage),
            "checks": [asdict(one) for one in self.checks],
            "heard": [asdict(one) for one in self.heard],
            "provenance": asdict(self.provenance),
            "second": None if self.second is None else asdict(self.second),
            "raw_reply": self.raw_reply,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Report:
        """The report that `to_json` wrote.

        Raises:
            ValueError: If `data` is not a report of this schema.
            CodeError: If it has a finding or site that `codes.toml` doesn't have.
        """
        if data.get("schema") != SCHEMA:
            raise ValueError(f"not a report: schema is {data.get('schema')!r}, expected {SCHEMA!r}")
        try:
            return cls._from_json(data)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a whole report: {type(error).__name__} {error}") from error

    @classmethod
    def _from_json(cls, data: dict[str, Any]) -> Report:
        return cls(
            outcome=Outcome(data["outcome"]),
            study=Study(**data["study"]),
            findings=tuple(finding_from_json(finding) for finding in data["findings"]),
            narrative=tuple(
                Sentence(
                    sentence=one["sentence"],
                    images=tuple(map(image_from_json, one["images"])),
                    pictures=tuple(one.get("pictures", ())),
                )
                for one in data["narrative"]["findings"]
            ),
            impression=tuple(data["narrative"]["impression"]),
            provenance=Provenance(**data["provenance"]),
            raw_reply=data["raw_reply"],
            notes=tuple(data["notes"]),
            question=data.get("question"),
            answer=None if data.get("answer") is None else _answer_from_json(data["answer"]),
            differential=tuple(
                Diagnosis(**{**_images_read(one), "likelihood": Likelihood(one["likelihood"])})
                for one in data.get("differential", ())
            ),
            coverage=None if data.get("coverage") is None else Coverage(**data["coverage"]),
            checks=tuple(CheckResult(**one) for one in data.get("checks", ())),
            heard=tuple(Heard(**one) for one in data.get("heard", ())),
            second=None if data.get("second") is None else Provenance(**data["second"]),
        )

    def to_text(self) -> str:
        """The report as `report.json` holds it; half a surrogate pair, which UTF-8 can't hold, is escaped."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False)
        return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text) + "\n"


def conclusions(report: Report) -> tuple[str, ...]:
    """The impression without what the answer or the differential diagnosis say already.

    For a reply without an impression these are the impression too, so whoever shows both would say it twice.
    """
    said = None if report.answer is None else report.answer.text
    return tuple(
        sentence
        for sentence in report.impression
        if sentence != said
        and not any(one.name in sentence and one.why in sentence for one in report.differential)
    )


def percent(share: float) -> str:
    """A share of 1 as people read it.

    >>> percent(0.25), percent(1)
    ('25 %', '100 %')
    """
    return f"{100 * share:.0f} %"


def _answer_to_json(answer: Answer) -> dict[str, Any]:
    return {**_with_images(answer), "boxes": [_box_to_json(box) for box in answer.boxes]}


def _answer_from_json(data: dict[str, Any]) -> Answer:
    return Answer(**{**_images_read(data), "boxes": tuple(map(_box_from_json, data["boxes"]))})


def _with_images(one: Answer | Diagnosis) -> dict[str, Any]:
    images = [image.to_json() for image in one.images]
    return {**asdict(one), "images": images, "pictures": list(one.pictures)}


def _images_read(data: dict[str, Any]) -> dict[str, Any]:
    images = tuple(map(image_from_json, data["images"]))
    return {**data, "images": images, "pictures": tuple(data["pictures"])}


def finding_to_json(finding: Finding) -> dict[str, Any]:
    """A finding as `report.json` and `truth.json` hold it."""
    box = finding.box
    return {
        "finding": finding.finding,
        "site": finding.site,
        "side": finding.side.value,
        "status": finding.status.value,
        "certainty": finding.certainty,
        "sentence": finding.sentence,
        "images": [image.to_json() for image in finding.images],
        "box": None if box is None else _box_to_json(box),
        "center_mm": None if finding.center_mm is None else list(finding.center_mm),
        "size_mm": finding.size_mm,
        "measurements": [asdict(one) for one in finding.measurements],
        "severity": finding.severity,
        "change": finding.change,
        "tracking_uid": finding.tracking_uid,
        "pictures": list(finding.pictures),
        "image_supported": finding.image_supported,
        "trials": [asdict(one) for one in finding.trials],
        "probabilities": None if finding.probabilities is None else asdict(finding.probabilities),
        "agreement": finding.agreement,
        "prior_images": [image.to_json() for image in finding.prior_images],
        "prior_pictures": list(finding.prior_pictures),
        "second": None if finding.second is None else asdict(finding.second),
    }


def finding_from_json(data: dict[str, Any]) -> Finding:
    """The finding that `finding_to_json` wrote."""
    box, center, odds = data["box"], data["center_mm"], data.get("probabilities")
    return Finding(
        **{
            **data,
            "side": Side(data["side"]),
            "status": Status(data["status"]),
            "images": tuple(map(image_from_json, data["images"])),
            "pictures": tuple(data.get("pictures", ())),
            "box": None if box is None else _box_from_json(box),
            "center_mm": None if center is None else tuple(center),
            "measurements": tuple(Measurement(**one) for one in data["measurements"]),
            "severity": None if data["severity"] is None else Severity(data["severity"]),
            "change": None if data["change"] is None else Change(data["change"]),
            "trials": tuple(_trial_from_json(one) for one in data.get("trials", ())),
            "probabilities": None if odds is None else StatusProbabilities(**odds),
            "prior_images": tuple(map(image_from_json, data.get("prior_images", ()))),
            "prior_pictures": tuple(data.get("prior_pictures", ())),
            "second": None if data.get("second") is None else _opinion_from_json(data["second"]),
        }
    )


def _opinion_from_json(data: dict[str, Any]) -> SecondOpinion:
    status, side = data["status"], data["side"]
    return SecondOpinion(
        **{
            **data,
            "verdict": Agreement(data["verdict"]),
            "status": None if status is None else Status(status),
            "side": None if side is None else Side(side),
        }
    )


def _trial_from_json(data: dict[str, Any]) -> TrialResult:
    return TrialResult(trial=Trial(data["trial"]), effect=Effect(data["effect"]), certainty=data["certainty"])


def _box_to_json(box: Box) -> dict[str, Any]:
    return {
        "picture": box.picture,
        "image": box.image.to_json(),
        "column_min": box.column_min,
        "row_min": box.row_min,
        "column_max": box.column_max,
        "row_max": box.row_max,
        "in_picture": None if box.in_picture is None else list(box.in_picture),
    }


def _box_from_json(data: dict[str, Any]) -> Box:
    drawn = data.get("in_picture")
    return Box(
        **{
            **data,
            "image": image_from_json(data["image"]),
            "in_picture": None if drawn is None else tuple(drawn),
        }
    )
