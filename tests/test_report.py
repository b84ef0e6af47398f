"""Tests of `medmllm_plugin.report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmllm_plugin import codes
from medmllm_plugin.errors import CodeError
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
from medmllm_plugin.report import (
    DISCLAIMER,
    SCHEMA,
    Answer,
    CheckResult,
    Coverage,
    Diagnosis,
    Heard,
    Likelihood,
    Outcome,
    Provenance,
    Report,
    Sentence,
    finding_from_json,
    finding_to_json,
)
from medmllm_plugin.source import DicomImage, FileImage
from medmllm_plugin.volume import Study
from tests.sr_reports import a_header, a_nodule, a_report, an_image

words = st.text(max_size=40)
"""Any Unicode but halves of surrogate pairs, which have a test of their own."""
uids = st.from_regex(r"[0-2](\.(0|[1-9][0-9]{0,5})){1,6}", fullmatch=True)
finite = st.floats(-1e6, 1e6)
images = st.one_of(
    st.builds(
        DicomImage,
        sop_class_uid=uids,
        sop_instance_uid=uids,
        series_instance_uid=uids,
        frame=st.none() | st.integers(1, 999),
    ),
    st.builds(FileImage, file=words, index=st.integers(0, 999)),
)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    left, top = draw(st.floats(0, 500)), draw(st.floats(0, 500))
    return Box(
        picture=draw(st.integers(1, 99)),
        image=draw(images),
        column_min=left,
        row_min=top,
        column_max=left + draw(st.floats(0.5, 500)),
        row_max=top + draw(st.floats(0.5, 500)),
    )


findings = st.builds(
    Finding,
    finding=st.sampled_from(sorted(codes.findings())),
    site=st.sampled_from(sorted(codes.sites())),
    side=st.sampled_from(Side),
    status=st.sampled_from(Status),
    sentence=words,
    images=st.lists(images, max_size=3).map(tuple),
    tracking_uid=uids,
    certainty=st.none() | st.floats(0, 1),
    box=st.none() | boxes(),
    center_mm=st.none() | st.tuples(finite, finite, finite),
    size_mm=st.none() | st.floats(0, 500),
    measurements=st.lists(
        st.builds(Measurement, code=st.just("long_axis"), value=finite, unit=st.just("mm")), max_size=2
    ).map(tuple),
    severity=st.none() | st.sampled_from(Severity),
    change=st.none() | st.sampled_from(Change),
    pictures=st.lists(st.integers(1, 99), max_size=3).map(tuple),
    image_supported=st.none() | st.booleans(),
    trials=st.lists(
        st.builds(
            TrialResult,
            trial=st.sampled_from(Trial),
            effect=st.sampled_from(Effect),
            certainty=st.none() | st.floats(0, 1),
        ),
        max_size=2,
    ).map(tuple),
    probabilities=st.none()
    | st.builds(
        StatusProbabilities, present=st.floats(0, 1), absent=st.floats(0, 1), indeterminate=st.floats(0, 1)
    ),
    agreement=st.none() | st.floats(0, 1),
    prior_images=st.lists(images, max_size=2).map(tuple),
    prior_pictures=st.lists(st.integers(1, 99), max_size=2).map(tuple),
    second=st.none()
    | st.builds(
        SecondOpinion,
        model=words,
        verdict=st.sampled_from(Agreement),
        status=st.none() | st.sampled_from(Status),
        side=st.none() | st.sampled_from(Side),
        certainty=st.none() | st.floats(0, 1),
        sentence=st.none() | words,
        first_certainty=st.none() | st.floats(0, 1),
    ),
)
provenances = st.builds(
    Provenance,
    **dict.fromkeys(
        ("model", "model_version", "weights_sha256", "prompt_sha256", "schema_sha256", "code_version"),
        words,
    ),
    task=words,
    slice_plan=words,
    seed=st.integers(0, 2**63),
    dtype=words,
    seconds=st.floats(0, 1e5),
)
reports = st.builds(
    Report,
    outcome=st.sampled_from(Outcome),
    study=st.builds(
        Study,
        modality=words,
        study_instance_uid=st.none() | uids,
        series_instance_uid=st.none() | uids,
        frame_of_reference_uid=st.none() | uids,
        phantom=st.none() | words,
    ),
    findings=st.lists(findings, max_size=3).map(tuple),
    narrative=st.lists(
        st.builds(Sentence, sentence=words, images=st.lists(images, max_size=2).map(tuple)), max_size=3
    ).map(tuple),
    impression=st.lists(words, max_size=3).map(tuple),
    provenance=provenances,
    second=st.none() | provenances,
    raw_reply=words,
    notes=st.lists(words, max_size=3).map(tuple),
    question=st.none() | words,
    answer=st.none()
    | st.builds(
        Answer,
        text=words,
        choice=st.none() | words,
        certainty=st.none() | st.floats(0, 1),
        why=st.none() | words,
        images=st.lists(images, max_size=2).map(tuple),
        pictures=st.lists(st.integers(1, 99), max_size=2).map(tuple),
    ),
    differential=st.lists(
        st.builds(
            Diagnosis,
            name=words,
            likelihood=st.sampled_from(Likelihood),
            why=words,
            images=st.lists(images, max_size=2).map(tuple),
            pictures=st.lists(st.integers(1, 99), max_size=2).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    coverage=st.none()
    | st.builds(
        Coverage,
        slices_shown=st.integers(0, 999),
        slices_total=st.integers(0, 999),
        share=st.none() | st.floats(0, 1),
        smallest_mm=st.none() | st.floats(0, 99),
        words=words,
    ),
    checks=st.lists(
        st.builds(
            CheckResult,
            name=words,
            passed=st.booleans(),
            message=words,
            about=st.none() | st.integers(0, 9),
        ),
        max_size=2,
    ).map(tuple),
    heard=st.lists(
        st.builds(Heard, purpose=words, prompt_sha256=words, text=words, seconds=st.floats(0, 99)), max_size=2
    ).map(tuple),
)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(report=reports)
def test_a_report_comes_back_from_its_file(report: Report) -> None:
    text = report.to_text().encode("utf-8").decode("utf-8")

    assert Report.from_json(json.loads(text)) == report


@settings(deadline=None, max_examples=40)
@given(finding=findings)
def test_a_finding_comes_back_from_its_json(finding: Finding) -> None:
    assert finding_from_json(json.loads(json.dumps(finding_to_json(finding)))) == finding


def test_half_a_surrogate_pair_in_a_reply_can_be_written_and_comes_back(tmp_path: Path) -> None:
    report = a_report(raw_reply="half \ud83e and \udcff, whole 🫁")
    path = tmp_path / "report.json"

    path.write_text(report.to_text(), encoding="utf-8")

    assert Report.from_json(json.loads(path.read_text(encoding="utf-8"))) == report


def test_the_json_has_the_settled_fields() -> None:
    image = an_image(a_header(1))

    data = a_report(a_nodule(image, center_mm=(1.5, -2.5, 3.0))).to_json()

    assert list(data) == [
        *("schema", "disclaimer", "outcome", "study", "findings", "narrative", "notes", "question"),
        *("answer", "differential", "coverage", "checks", "heard", "provenance", "second", "raw_reply"),
    ]
    assert (data["schema"], data["disclaimer"], data["outcome"]) == (SCHEMA, DISCLAIMER, "findings")
    (finding,) = data["findings"]
    assert set(finding) == {
        *("finding", "site", "side", "status", "certainty", "sentence", "images", "box", "center_mm"),
        *("size_mm", "measurements", "severity", "change", "tracking_uid", "image_supported"),
        *("pictures", "trials", "probabilities", "agreement", "prior_images", "prior_pictures", "second"),
    }
    assert finding["box"] == {
        "picture": 1,
        "image": image.to_json(),
        "column_min": 10,
        "row_min": 20.5,
        "column_max": 30,
        "row_max": 40,
        "in_picture": None,
    }
    assert finding["center_mm"] == [1.5, -2.5, 3.0]


@pytest.mark.parametrize("schema", [None, "medmllm-report/0", "medmllm-report/2", 1])
def test_another_schema_is_refused(schema: object) -> None:
    data = {**a_report().to_json(), "schema": schema}

    with pytest.raises(ValueError, match="not a report"):
        Report.from_json(data)


@pytest.mark.parametrize(
    "change",
    [
        {"findings": [{}]},
        {"study": {}},
        {"narrative": None},
        {"provenance": {"more": 1}},
        {"outcome": "fine"},
    ],
)
def test_a_report_that_is_not_whole_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Report.from_json({**a_report().to_json(), **change})


def test_a_report_of_an_unknown_finding_is_refused() -> None:
    data = a_report(a_nodule(an_image(a_header(1)))).to_json()
    data["findings"][0]["finding"] = "lump"

    with pytest.raises(CodeError, match="'lump'"):
        Report.from_json(data)
