"""Studies of several series, priors, and what was seen of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from medmllm_plugin import pipeline
from medmllm_plugin.errors import (
    SettingsError,
    StudyError,
)
from medmllm_plugin.findings import Change, Status
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.report import Outcome, Report
from medmllm_plugin.source import DicomImage
from tests.builders import write_ct_series, write_mr_series
from tests.pipeline_models import BOXED, a_model
from tests.values import a_said_finding, a_said_reply


def test_the_report_says_how_much_was_seen(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=20)

    reading = pipeline.read(tmp_path, model=a_model(BOXED), count=5)

    assert reading.report.coverage is not None
    assert (reading.report.coverage.slices_shown, reading.report.coverage.share) == (5, 0.25)


def test_what_no_model_was_shown_is_not_said_to_be_seen(tmp_path: Path) -> None:
    def blank(_: int, dataset: Dataset) -> None:
        dataset.PixelData = bytes(len(dataset.PixelData))

    write_mr_series(tmp_path, slices=5, change=blank)
    model = a_model(BOXED)

    reading = pipeline.read(tmp_path, model=model)

    assert (reading.report.outcome, model.asked) == (Outcome.NOT_ASSESSED, [])
    assert reading.report.coverage is None


def test_what_a_strategy_showed_counts_as_seen(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=40)
    replies = [a_said_reply(a_said_finding(pictures=[9])), a_said_reply(a_said_finding(pictures=[2]))]

    reading = pipeline.read(tmp_path, model=ScriptedModel(replies), strategy="zoom")

    assert reading.report.provenance.strategy == "zoom"
    assert len(reading.slices) == 40 + 3
    assert reading.report.findings[0].pictures == (42,)
    assert reading.report.coverage is not None
    assert reading.report.coverage.share == 1.0


def test_a_user_s_plan_is_the_overview(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=40)
    replies = [a_said_reply(a_said_finding(pictures=[9])), a_said_reply(a_said_finding(pictures=[2]))]

    reading = pipeline.read(tmp_path, model=ScriptedModel(replies), strategy="zoom", count=10)

    assert len(reading.slices) == 10 + 3


def write_two_series(folder: Path) -> Path:
    """A FLAIR and a T2 of one MR study."""
    times = {"1": (90, 9000, 2500, 6), "2": (90, 4000, None, 5)}
    for number, (echo, repetition, inversion, slices) in times.items():
        given: dict[str, Any] = {
            "EchoTime": echo,
            "RepetitionTime": repetition,
            "InversionTime": inversion,
        }
        uids: dict[str, Any] = {
            "StudyInstanceUID": "1.2.5",
            "SeriesInstanceUID": f"1.2.5.{number}",
            "SeriesNumber": number,
        }
        write_mr_series(folder / number, slices=slices, seed="s", **uids, **given)
    return folder


def test_a_study_of_several_series_is_shown_at_once_and_its_findings_cite_their_own(tmp_path: Path) -> None:
    write_two_series(tmp_path / "in")
    lesion = a_said_finding(finding="lesion", site="brain", pictures=[8])
    model = a_model({**lesion, "box": {"picture": 8, "bbox_2d": [100, 50, 300, 150]}})
    out = tmp_path / "out"
    out.mkdir()

    reading = pipeline.read(tmp_path / "in", model=model, study=True)
    files = pipeline.write(reading, out)

    assert len(reading.slices) == 11
    assert "FLAIR" in model.asked[0].prompt.text
    (finding,) = reading.report.findings
    image = finding.images[0]
    assert isinstance(image, DicomImage)
    assert image.series_instance_uid == "1.2.5.2"
    made = dcmread(files["findings_sr"])
    evidence = made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert {one.SeriesInstanceUID for one in evidence} == {"1.2.5.1", "1.2.5.2"}
    assert sum(len(one.ReferencedSOPSequence) for one in evidence) == 11
    assert reading.report.coverage is not None
    assert (reading.report.coverage.slices_shown, reading.report.coverage.slices_total) == (11, 11)


def write_now_and_then(folder: Path) -> tuple[Path, Path]:
    """A CT of today and one of 40 days before."""
    usual: dict[str, Any] = {"slices": 6, "rows": 16, "columns": 16}
    now: dict[str, Any] = {
        "StudyInstanceUID": "1.2.7",
        "SeriesInstanceUID": "1.2.7.1",
        "StudyDate": "20240131",
    }
    then: dict[str, Any] = {
        "StudyInstanceUID": "1.2.6",
        "SeriesInstanceUID": "1.2.6.1",
        "StudyDate": "20231222",
    }
    write_ct_series(folder / "now", seed="now", **usual, **now)
    write_ct_series(folder / "then", seed="then", **usual, **then)
    return folder / "now", folder / "then"


def test_a_prior_study_rides_along_and_what_is_found_again_keeps_its_tracking_uid(tmp_path: Path) -> None:
    now, then = write_now_and_then(tmp_path)
    before = pipeline.read(then, model=a_model(BOXED, a_said_finding(side="right")))
    folder = tmp_path / "before"
    folder.mkdir()
    report = pipeline.write(before, folder)["report"]
    said = [
        {**BOXED, "change": "increased", "prior_pictures": [7]},
        a_said_finding(
            side="right", status="absent", change="resolved", prior_pictures=[8], sentence="No nodule."
        ),
        a_said_finding(finding="mass", change="new", prior_pictures=[]),
    ]
    model = a_model(*said)
    out = tmp_path / "out"
    out.mkdir()

    reading = pipeline.read(now, model=model, prior=then, prior_report=report)
    files = pipeline.write(reading, out)

    assert reading.report.provenance.task == "compare"
    assert [len(reading.slices), *map(len, reading.priors)] == [6, 6]
    assert reading.priors[0].days_before == 40
    assert len(model.asked[0].prompt.pictures) == 12
    larger, resolved, new = reading.report.findings
    assert [larger.tracking_uid, resolved.tracking_uid] == [
        one.tracking_uid for one in before.report.findings
    ]
    assert new.tracking_uid not in {larger.tracking_uid, resolved.tracking_uid}
    assert (resolved.status, resolved.change) == (Status.ABSENT, Change.RESOLVED)
    assert {one.series_instance_uid for one in larger.prior_images if isinstance(one, DicomImage)} == {
        "1.2.6.1"
    }
    assert {one.series_instance_uid for one in larger.images if isinstance(one, DicomImage)} == {"1.2.7.1"}
    written = Report.from_json(json.loads(files["report"].read_text("utf-8")))
    assert written == reading.report
    assert sorted(path.name for path in files["prior_pictures"].iterdir())[0] == "007.png"
    sr = dcmread(files["findings_sr"])
    assert sr.StudyInstanceUID == "1.2.7"
    assert [one.StudyInstanceUID for one in sr.PertinentOtherEvidenceSequence] == ["1.2.6"]


def test_a_comparison_without_dates_says_so(tmp_path: Path) -> None:
    for name, uid in (("now", "1.2.7"), ("then", "1.2.6")):
        values = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "StudyDate": ""}
        write_ct_series(tmp_path / name, seed=name, slices=6, rows=16, columns=16, **values)

    reading = pipeline.read(tmp_path / "now", model=a_model(), prior=tmp_path / "then")

    assert pipeline.NO_DATE in reading.report.notes


def test_the_report_of_another_study_is_not_taken_for_the_prior_s(tmp_path: Path) -> None:
    now, then = write_now_and_then(tmp_path)
    other = pipeline.read(now, model=a_model(BOXED))
    path = tmp_path / "report.json"
    path.write_text(other.report.to_text(), "utf-8")

    with pytest.raises(StudyError, match=r"expected one on the prior study 1\.2\.6"):
        pipeline.read(now, model=a_model(), prior=then, prior_report=path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"study": True, "series": "2"}, "none can be named"),
        ({"prior": "then", "volume": 1}, "a volume of a series can't be named"),
        ({"prior_report": Path("report.json")}, "give --prior too"),
        ({"strategy": "guess"}, "no strategy is named"),
    ],
)
def test_what_can_not_be_asked_together_is_refused(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    write_ct_series(tmp_path, slices=2)

    with pytest.raises(SettingsError, match=words):
        pipeline.read(tmp_path, model=a_model(), **given)


def test_the_embedded_model_can_not_compare(tmp_path: Path) -> None:
    now, then = write_now_and_then(tmp_path)

    with pytest.raises(SettingsError, match="was trained on one series"):
        pipeline.read(now, model="embedded", prior=then)


def test_passes_are_stages_of_their_own(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=20)
    told: list[str] = []
    replies = [a_said_reply(a_said_finding(pictures=[9])), a_said_reply()]

    pipeline.read(
        tmp_path, model=ScriptedModel(replies), strategy="zoom", progress=lambda stage, *_: told.append(stage)
    )

    assert [one for one in told if one.startswith("thinking")] == ["thinking 1/2", "thinking 2/2"]
