"""Tests of `two_eyes`: what a second model makes of the findings of the first, and where that is recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydicom import dcmread

from medmllm_plugin import page, pipeline
from medmllm_plugin.console import report_lines
from medmllm_plugin.dicom_bridge.sr_reader import read_sr
from medmllm_plugin.dicom_bridge.sr_words import comment
from medmllm_plugin.errors import ModelError
from medmllm_plugin.findings import Agreement, Finding, SecondOpinion, Side, Status
from medmllm_plugin.models import Capabilities
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.report import Outcome, Report
from medmllm_plugin.schemas import report_schema
from medmllm_plugin.two_eyes import LOWERED, RULE, Eyes, compared, matched, opinion_words
from tests.builders import write_ct_series
from tests.values import a_said_finding, a_said_reply


def a_finding(**said: Any) -> Finding:
    usual: dict[str, Any] = {
        "finding": "nodule",
        "site": "lung",
        "side": Side.LEFT,
        "status": Status.PRESENT,
        "sentence": "A nodule.",
        "images": (),
        "tracking_uid": "2.25.1",
        "certainty": 0.8,
    }
    return Finding(**{**usual, **said})


def both(tmp_path: Path, first: dict[str, Any], second: dict[str, Any], **how: Any) -> pipeline.Reading:
    """A small CT read by two scripted models."""
    write_ct_series(tmp_path / "study", slices=4, rows=64, columns=64)
    return pipeline.read(
        tmp_path / "study",
        model=ScriptedModel([first] * 2, name="One"),
        second=how.pop("model", None) or ScriptedModel([second] * 2, name="Other"),
        **how,
    )


@pytest.mark.parametrize(
    ("other", "found"),
    [
        ({}, True),
        ({"side": Side.NONE}, True),
        ({"side": Side.RIGHT}, True),
        ({"side": Side.RIGHT, "status": Status.ABSENT}, False),
        ({"site": "upper_lobe_of_lung"}, True),
        ({"site": "chest"}, True),
        ({"site": "pleura"}, False),
        ({"finding": "mass"}, False),
        ({"status": Status.ABSENT}, True),
    ],
)
def test_findings_about_one_thing_are_matched(other: dict[str, Any], found: bool) -> None:
    assert matched([a_finding()], [a_finding(**other)]) == [0 if found else None]


def test_two_parts_of_one_organ_are_two_places() -> None:
    upper, lower = (a_finding(site=f"{part}_lobe_of_lung") for part in ("upper", "lower"))

    assert matched([upper], [lower]) == [None]


def test_the_surest_match_comes_first_and_each_finding_is_matched_once() -> None:
    ours = [a_finding(side=Side.RIGHT), a_finding(side=Side.LEFT)]
    theirs = [a_finding(side=Side.NONE), a_finding(side=Side.LEFT)]

    assert matched(ours, theirs) == [0, 1]
    assert matched(ours, theirs[1:]) == [None, 0]


@pytest.mark.parametrize(
    ("status", "other", "verdict", "left", "becomes"),
    [
        ("present", {}, "agrees", 0.8, "present"),
        ("present", {"status": Status.INDETERMINATE}, "unsure", 0.6, "present"),
        ("present", None, "silent", 0.6, "present"),
        ("present", {"status": Status.ABSENT}, "disagrees", 0.4, "indeterminate"),
        ("present", {"side": Side.RIGHT}, "disagrees", 0.4, "indeterminate"),
        ("absent", {}, "disagrees", 0.4, "indeterminate"),
        ("absent", {"status": Status.ABSENT}, "agrees", 0.8, "absent"),
        ("absent", None, None, 0.8, "absent"),
    ],
)
def test_each_agreement_has_its_certainty_and_status_by_the_rule(
    status: str,
    other: dict[str, Any] | None,
    verdict: str | None,
    left: float,
    becomes: str,
    a_reading: Any,
) -> None:
    one = a_finding(status=Status(status))
    second = () if other is None else (a_finding(**other),)

    (finding, *_) = compared(a_reading(one), a_reading(*second, name="Other"), whole=True).report.findings

    assert finding.certainty == pytest.approx(left)
    assert finding.status == becomes
    assert (None if finding.second is None else finding.second.verdict) == verdict
    if finding.second is not None:
        assert finding.second.first_certainty == 0.8


@pytest.fixture(scope="module")
def a_reading(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes what a model said, with these findings."""
    folder = tmp_path_factory.mktemp("two")
    write_ct_series(folder, slices=4, rows=64, columns=64)
    read = pipeline.read(folder, model=ScriptedModel([a_said_reply()]))

    def make(*findings: Finding, name: str = "One", **changed: Any) -> Eyes:
        outcome = Outcome.FINDINGS if findings else Outcome.NO_FINDINGS
        report = replace(
            read.report,
            findings=findings,
            provenance=replace(read.report.provenance, model=name),
            **{"outcome": outcome, **changed},
        )
        return Eyes(report=report, slices=read.slices)

    return make


def test_the_rule_is_told_with_its_numbers(a_reading: Any) -> None:
    report = compared(a_reading(a_finding()), a_reading(name="Other"), whole=True).report

    assert RULE in " ".join(report.notes)
    for agreement, factor in LOWERED.items():
        assert factor == 1 or f"{factor:g}" in RULE, agreement
    assert "of 1 findings, by Other: 1 not mentioned" in " ".join(report.notes)


def test_silence_says_nothing_where_not_all_was_asked_for(a_reading: Any) -> None:
    (finding,) = compared(a_reading(a_finding()), a_reading(name="Other"), whole=False).report.findings

    assert finding.second is None
    assert finding.certainty == 0.8


def test_what_the_second_alone_saw_is_added_as_indeterminate(a_reading: Any) -> None:
    seen = a_finding(finding="mass", certainty=0.9)
    absent = a_finding(finding="pneumothorax", site="pleura", status=Status.ABSENT)

    made = compared(a_reading(), a_reading(seen, absent, name="Other"), whole=True)

    (finding,) = made.report.findings
    assert made.report.outcome is Outcome.FINDINGS
    assert finding.status is Status.INDETERMINATE
    assert finding.certainty == pytest.approx(0.45)
    assert finding.second is not None
    assert (finding.second.verdict, finding.second.status) == (Agreement.ALONE, Status.PRESENT)
    assert len(made.slices) == 4


def test_certainties_that_nobody_gave_stay_none(a_reading: Any) -> None:
    one, other = a_finding(certainty=None), a_finding(certainty=None, status=Status.ABSENT)

    (finding,) = compared(a_reading(one), a_reading(other, name="Other"), whole=True).report.findings

    assert finding.certainty is None
    assert finding.status is Status.INDETERMINATE


def test_a_second_model_that_did_not_assess_the_study_changes_nothing(a_reading: Any) -> None:
    outside = a_reading(name="Other", outcome=Outcome.OUTSIDE_DOMAIN, impression=("Not assessed.",))

    report = compared(a_reading(a_finding()), outside, whole=True).report

    assert report.findings == (a_finding(),)
    assert "Other did not assess the study, so nothing is compared: Not assessed." in report.notes[-1]
    assert report.second is not None


@pytest.mark.parametrize(
    ("agreement", "says"),
    [
        (Agreement.AGREES, "Other agrees"),
        (Agreement.UNSURE, "Other is unsure: absent, left"),
        (Agreement.SILENT, "not mentioned by Other"),
        (Agreement.DISAGREES, "Other disagrees: absent, left"),
        (Agreement.ALONE, "seen by Other alone"),
    ],
)
def test_an_opinion_is_told_in_words(agreement: Agreement, says: str) -> None:
    one = SecondOpinion(model="Other", verdict=agreement, status=Status.ABSENT, side=Side.LEFT)

    assert opinion_words(one) == says


def test_the_name_of_a_model_can_not_end_the_brackets_of_an_sr(a_reading: Any) -> None:
    other = a_finding(status=Status.ABSENT)
    made = compared(a_reading(a_finding()), a_reading(other, name="x]; present"), whole=True)

    said = comment(made.report.findings[0])

    assert said.count("]") == 1
    assert said.endswith("]")


def test_both_are_asked_and_all_is_in_report_sr_and_page(tmp_path: Path) -> None:
    ours = a_said_finding(side="left", sentence="A nodule in the left lung.")
    theirs = a_said_finding(side="left", status="absent", box=None, sentence="No nodule.")
    more = a_said_finding(
        finding="mass", site="liver", side="none", box=None, sentence="A mass in the liver."
    )
    (tmp_path / "out").mkdir()

    reading = both(tmp_path, a_said_reply(ours), a_said_reply(theirs, more))
    files = pipeline.write(reading, tmp_path / "out")

    text = json.loads(files["report"].read_text("utf-8"))
    jsonschema.validate(text, report_schema())
    assert Report.from_json(text) == reading.report
    assert reading.missed is None
    assert [one["second"]["verdict"] for one in text["findings"]] == ["disagrees", "alone"]
    assert text["findings"][0]["second"]["sentence"] == "No nodule."
    assert text["second"]["model"] == "Other"
    assert [one["purpose"] for one in text["heard"]] == ["second model: report", "report"]
    sr = read_sr(files["findings_sr"])
    said = json.dumps(sr.to_json())
    assert "Other disagrees: absent" in said
    assert "seen by Other alone" in said
    assert sr.parameters.endswith('"second":{"model":"Other","model_version":"","weights_sha256":""}}')
    header = dcmread(files["findings_sr"])
    assert [one.ManufacturerModelName for one in header.ContributingEquipmentSequence] == ["One", "Other"]
    html = page.render(reading.report, reading.slices)
    assert "Second model" in html
    assert "it wrote: No nodule." in html
    assert html.count("it wrote: ") == 1, "what it alone saw is quoted already"
    versions = replace(reading.report, second=replace(reading.report.second, model_version="2.1"))
    assert "second model Other 2.1<" in page.render(versions, reading.slices)
    assert text["narrative"]["impression"][-2:] == [
        "A second model disagrees about: nodule (lung, left).",
        "Seen by a second model alone: mass (liver).",
    ]
    lines = "\n".join(report_lines(reading.report, reading.slices, files={}))
    assert "Other disagrees: absent" in lines


def test_pictures_of_the_second_alone_follow_those_of_the_first(tmp_path: Path) -> None:
    seen = a_said_finding(finding="mass", site="liver", side="none", sentence="A mass.", pictures=[2])
    able = replace(ANYTHING, plan={"count": 2, "size": 56})
    other = ScriptedModel([a_said_reply(seen)], name="Other", capabilities=able)

    reading = both(tmp_path, a_said_reply(), {}, model=other)

    (finding,) = reading.report.findings
    assert len(reading.slices) == 6
    assert finding.pictures == (6,)
    assert reading.slices.picture(6).images == finding.images
    if finding.box is not None:
        assert finding.box.picture == 6 or finding.box.picture == 5


def test_a_second_model_that_fails_leaves_the_first_s_report(tmp_path: Path) -> None:
    reading = both(tmp_path, a_said_reply(a_said_finding()), {"no": "report"})

    assert len(reading.report.findings) == 1
    assert reading.report.second is None
    assert isinstance(reading.missed, ModelError)
    assert any("the second model failed, so nothing is compared" in one for one in reading.report.notes)


def test_a_first_model_that_fails_fails_the_reading(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="One: its reply can't be used"):
        both(tmp_path, {"no": "report"}, a_said_reply())


def test_a_model_that_sees_volumes_is_the_second_of_one_that_sees_pictures(tmp_path: Path) -> None:
    able = Capabilities(
        pictures=512,
        volumes=8,
        boxes=False,
        schema_bound=True,
        free_text=True,
        context_tokens=2048,
        text_only=True,
    )
    coded = {
        "abnormal_pictures": [],
        "findings": [
            {
                **{key: value for key, value in a_said_finding(side="left").items() if key != "box"},
                "pictures": [],
                "sentence": "There is a nodule in the left lung.",
            }
        ],
        "impression": ["Nodule."],
    }
    prose = "Finding: There is a nodule in the left lung. Impression: Nodule."
    volumes = ScriptedModel([prose, coded], name="RadFM", capabilities=able)

    reading = both(tmp_path, a_said_reply(a_said_finding(side="left")), {}, model=volumes)

    (finding,) = reading.report.findings
    assert finding.second is not None
    assert finding.second.verdict is Agreement.AGREES
    assert len(volumes.asked[0].prompt.images) == 1
    assert [one.purpose for one in reading.report.heard] == [
        "second model: report, in prose",
        "second model: report, coded",
        "report",
    ]


def test_the_command_takes_a_second_model(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "study", slices=4, rows=64, columns=64)
    for name, status, words in (("one", "present", "A nodule."), ("other", "absent", "No nodule.")):
        said = a_said_reply(a_said_finding(side="left", status=status, box=None, sentence=words))
        (tmp_path / f"{name}.json").write_text(json.dumps([said]), "utf-8")
    asked = ["read", "study", "--model", "scripted:one.json", "--second", "scripted:other.json"]

    done = subprocess.run(
        [sys.executable, "-m", "medmllm_plugin", *asked],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert "scripted disagrees: absent" in done.stdout
    assert "A second model disagrees about: " in done.stdout
