"""What SRs and FHIR say of answers, evidence, coverage and checks."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from medmllm_plugin import fhir
from medmllm_plugin.dicom_bridge.sr_reader import read_sr
from medmllm_plugin.dicom_bridge.sr_validators import verdicts
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, text_sr
from medmllm_plugin.findings import Change, Effect, Status, Trial, TrialResult
from medmllm_plugin.report import Answer, CheckResult, Coverage, Diagnosis, Likelihood, Outcome, Report
from tests.sr_items import items, texts
from tests.sr_reports import a_nodule, a_report, a_series, an_image

HEADERS = a_series()
IMAGES = [an_image(header) for header in HEADERS]


def an_answered_report() -> Report:
    nodule = a_nodule(
        IMAGES[2],
        image_supported=False,
        agreement=0.6,
        trials=(
            TrialResult(trial=Trial.MASKED, effect=Effect.KEPT, certainty=0.9),
            TrialResult(trial=Trial.MIRRORED, effect=Effect.FLIPPED),
        ),
    )
    resolved = a_nodule(
        IMAGES[1], status=Status.ABSENT, change=Change.RESOLVED, box=None, tracking_uid="2.25.77"
    )
    return a_report(
        nodule,
        resolved,
        question="Is there a nodule?",
        answer=Answer(
            text="A nodule of the left lung.",
            choice="yes",
            certainty=0.83,
            images=(IMAGES[2],),
            pictures=(3,),
        ),
        differential=(
            Diagnosis(
                name="Granuloma", likelihood=Likelihood.MODERATE, why="Calcified.", images=(IMAGES[2],)
            ),
        ),
        coverage=Coverage(
            slices_shown=3, slices_total=5, share=0.6, smallest_mm=4.0, words="3 of 5 slices were seen."
        ),
        checks=(
            CheckResult(name="side", passed=False, message="The sentence says right.", about=0),
            CheckResult(name="words", passed=True, message="Not told."),
        ),
    )


SAID = (
    "Question: Is there a nodule? Answer: yes (certainty 83 %). A nodule of the left lung.",
    "Differential diagnosis 1: Granuloma (likelihood moderate). Calcified.",
    "3 of 5 slices were seen.",
    "Check side of finding 1 failed: The sentence says right.",
)


@pytest.mark.parametrize("write", [findings_sr, text_sr])
def test_both_srs_say_it_in_words(write: object) -> None:
    sr: Dataset = write(an_answered_report(), HEADERS)  # type: ignore[operator]

    said = texts(sr)
    assert [words for words in SAID if words not in said] == []
    assert not any("Not told." in words for words in said)


@pytest.mark.parametrize(
    ("answer", "code"),
    [(None, "111245"), (Answer(text="There is none.", choice="no"), "111243")],
    ids=["not assessed", "answered"],
)
def test_an_answer_without_findings_is_not_said_to_have_failed(answer: Answer | None, code: str) -> None:
    report = a_report(outcome=Outcome.NOT_ASSESSED, answer=answer)

    (outcome,) = items(findings_sr(report, HEADERS), "111017")

    assert outcome.ConceptCodeSequence[0].CodeValue == code


def test_a_finding_says_what_became_of_it(tmp_path: Path) -> None:
    findings_sr(an_answered_report(), HEADERS).save_as(tmp_path / "f.dcm", enforce_file_format=True)

    nodule, resolved = read_sr(tmp_path / "f.dcm").findings

    facts = "not image-supported; kept when masked; side flipped when mirrored; in 60 % of the samples"
    assert facts in nodule.comment
    assert nodule.sentence == an_answered_report().findings[0].sentence
    assert resolved.status is Status.ABSENT
    assert "Problem resolved" in [value.meaning for _, value in resolved.evaluations]


@pytest.mark.parametrize(("write", "template"), [(findings_sr, "1500"), (text_sr, "2000")])
def test_validators_accept_them(write: object, template: str, tmp_path: Path) -> None:
    path = tmp_path / "sr.dcm"
    write(an_answered_report(), HEADERS).save_as(path, enforce_file_format=True)  # type: ignore[operator]

    said = verdicts(path, template=template)

    assert any(one.ran for one in said)
    assert [(one.tool, one.errors) for one in said if one.errors] == []


def test_fhir_says_it_too() -> None:
    bundle = fhir.bundle(an_answered_report())

    report = next(
        one["resource"] for one in bundle["entry"] if one["resource"]["resourceType"] == "DiagnosticReport"
    )
    form = base64.b64decode(report["presentedForm"][0]["data"]).decode()
    assert [words for words in SAID if words not in form] == []
    assert SAID[0] in report["conclusion"]
