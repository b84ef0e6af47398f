"""Tests of `medmllm_plugin.pipeline`: from paths to a reading and its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from medmllm_plugin import pipeline
from medmllm_plugin.errors import (
    SettingsError,
)
from medmllm_plugin.findings import Status
from medmllm_plugin.geometry import apply
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.report import Outcome, Report
from medmllm_plugin.source import DicomImage
from medmllm_plugin.transforms.slices import SlicePlan
from tests.builders import write_cr, write_ct_series, write_nifti
from tests.pipeline_models import BOXED, a_model, an_answer
from tests.values import a_said_answer, a_said_finding, a_volume


def test_a_series_is_read_and_its_finding_is_in_its_place(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=5, rows=6, columns=8)

    reading = pipeline.read(tmp_path, model=a_model(BOXED))

    assert reading.report.outcome is Outcome.FINDINGS
    assert len(reading.volume) == len(reading.slices) == 5
    (finding,) = reading.report.findings
    image = finding.images[0]
    assert isinstance(image, DicomImage)
    header = next(one for one in reading.volume.headers if one.SOPInstanceUID == image.sop_instance_uid)
    assert header.ImagePositionPatient[2] == 100
    # 8 columns of 0.5 mm and 6 rows of 0.75 mm become 392 x 448 px; the box's middle is (200, 100) corner px.
    plane = reading.volume.planes[0].to_patient
    assert plane is not None
    assert reading.slices.picture(1).pixels.shape == (448, 392, 3)
    expected = apply(plane, [200 * 8 / 392 - 0.5, 100 * 6 / 448 - 0.5, 0])
    assert finding.center_mm == pytest.approx(expected, abs=0.006)


def test_the_files_of_a_dicom_study_are_all_there_and_agree(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "in", slices=3)
    reading = pipeline.read([tmp_path / "in"], model=a_model(BOXED))
    out = tmp_path / "out"
    out.mkdir()

    files = pipeline.write(reading, out)

    assert {name: path.name for name, path in files.items()} == {
        "report": "report.json",
        "page": "report.html",
        "slices": "slices.json",
        "pictures": "pictures",
        "findings_sr": "findings.dcm",
        "report_sr": "report.dcm",
        "key_images": "key_images.dcm",
    }
    assert all(path.exists() for path in files.values())
    assert Report.from_json(json.loads(files["report"].read_text("utf-8"))) == reading.report
    listed = json.loads(files["slices"].read_text("utf-8"))
    assert listed == reading.slices.to_json(folder="pictures/")
    assert all((out / one["picture"]).is_file() for one in listed["slices"])
    assert sorted(path.name for path in files["pictures"].iterdir()) == ["001.png", "002.png", "003.png"]
    for name in ("findings_sr", "report_sr"):
        assert dcmread(files[name]).StudyInstanceUID == reading.report.study.study_instance_uid


def test_the_pictures_written_are_those_the_model_was_shown(tmp_path: Path) -> None:
    from PIL import Image

    write_ct_series(tmp_path / "in", slices=3)
    model = a_model(BOXED)
    reading = pipeline.read(tmp_path / "in", model=model)
    out = tmp_path / "out"
    out.mkdir()

    files = pipeline.write_slices(reading.slices, out)

    listed = json.loads(files["slices"].read_text("utf-8"))["slices"]
    for shown, said in zip(model.asked[0].prompt.pictures, listed, strict=True):
        with Image.open(out / said["picture"]) as picture:
            assert np.array_equal(np.asarray(picture), shown.pixels)


def test_a_nifti_has_no_structured_reports(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "ct.nii.gz", np.zeros((9, 8, 4), np.int16), np.diag([1.0, 1, 2, 1]))
    reading = pipeline.read(path, modality="CT", model=a_model(BOXED))
    out = tmp_path / "out"
    out.mkdir()

    files = pipeline.write(reading, out)

    assert set(files) == {"report", "page", "slices", "pictures"}
    assert not list(out.rglob("*.dcm"))
    assert reading.report.notes[-1] == pipeline.NO_SR


def test_a_nifti_whose_name_is_no_utf8_is_written(tmp_path: Path) -> None:
    name = b"scan-\xff.nii".decode("utf-8", "surrogateescape")
    source = write_nifti(tmp_path / "scan.nii", np.zeros((9, 8, 4), np.int16), np.diag([1.0, 1, 2, 1]))
    try:
        source.rename(tmp_path / name)
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    reading = pipeline.read(tmp_path / name, modality="CT", model=a_model(BOXED))
    out = tmp_path / "out"
    out.mkdir()

    files = pipeline.write(reading, out)

    assert Report.from_json(json.loads(files["report"].read_text("utf-8"))) == reading.report


def test_a_film_is_one_picture_with_boxes_but_without_millimetres(tmp_path: Path) -> None:
    path = write_cr(tmp_path / "film.dcm")

    reading = pipeline.read(path, model=a_model(BOXED))

    assert len(reading.slices) == 1
    (finding,) = reading.report.findings
    assert finding.box is not None
    assert (finding.center_mm, finding.size_mm) == (None, None)


def test_the_series_named_is_the_one_read(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", slices=3, SeriesInstanceUID="1.2.3.1", SeriesNumber=1)
    write_ct_series(tmp_path / "b", slices=7, SeriesInstanceUID="1.2.3.2", SeriesNumber=2)

    reading = pipeline.read(tmp_path, series="1.2.3.1", model=a_model(a_said_finding()))

    assert reading.report.study.series_instance_uid == "1.2.3.1"
    assert len(reading.volume) == 3


def test_stages_are_told_in_order(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=3)
    told: list[tuple[str, int, int]] = []

    pipeline.read(tmp_path, model=a_model(BOXED), progress=lambda *stage: told.append(stage))

    assert list(dict.fromkeys(stage for stage, _, _ in told)) == ["reading", "model", "pictures", "thinking"]
    assert ("pictures", 3, 3) in told


def test_a_task_that_is_not_there_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no task is named 'guess'; there are: report, question"):
        pipeline.read(tmp_path / "nowhere", task="guess", model=a_model())


def test_a_question_is_answered(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=3)
    model = ScriptedModel([an_answer("Yes, on the left.")])

    reading = pipeline.read(tmp_path, question="A nodule?", model=model)

    assert reading.report.provenance.task == "question"
    assert "A nodule?" in model.asked[0].prompt.text
    assert reading.report.question == "A nodule?"
    assert reading.report.answer is not None
    assert reading.report.answer.text == "Yes, on the left."


def test_an_answer_that_denies_a_finding_is_written_in_all_its_forms(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "study", slices=3)
    denied = a_said_finding(status="absent", sentence="No nodule is seen.")
    model = ScriptedModel([a_said_answer(denied, choice="no", text="No.")])
    reading = pipeline.read(tmp_path / "study", question="A nodule?", model=model)
    (tmp_path / "out").mkdir()

    written = pipeline.write(reading, tmp_path / "out")

    assert reading.report.outcome is Outcome.NOT_ASSESSED
    assert [one.status for one in reading.report.findings] == [Status.ABSENT]
    assert {"findings_sr", "report_sr"} <= set(written)


def test_each_question_is_asked_with_those_before_on_the_same_pictures(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=3)
    model = ScriptedModel([an_answer("Yes."), an_answer("On the left."), an_answer("Small.")])

    readings = pipeline.read_each(tmp_path, questions=["A nodule?", "Where?", "How large?"], model=model)

    assert [one.report.answer.text for one in readings if one.report.answer is not None] == [
        "Yes.",
        "On the left.",
        "Small.",
    ]
    assert [len(one.prompt.turns) for one in model.asked] == [0, 2, 4]
    assert [turn.text for turn in model.asked[2].prompt.turns[::2]] == ["Yes.", "On the left."]
    first, second, third = (one.prompt for one in model.asked)
    assert first.parts[-1] == second.parts[-1] == third.parts[-1]
    for one, other in zip(first.pictures, third.pictures, strict=True):
        assert one.pixels is other.pixels


@pytest.mark.parametrize(
    ("capabilities", "count", "plan"),
    [
        ({"pictures": 64}, None, SlicePlan(count=24)),
        ({"pictures": 9}, None, SlicePlan(count=9)),
        ({"pictures": 9}, 5, SlicePlan(count=5)),
        (
            {"plan": {"count": 16, "size": 112, "window": "ct"}},
            None,
            SlicePlan(count=16, size=112, window="ct"),
        ),
        ({"plan": {"count": 16, "size": 112, "window": "ct"}}, 4, SlicePlan(count=4, size=112, window="ct")),
    ],
)
def test_the_plan_suits_the_model(capabilities: dict[str, Any], count: int | None, plan: SlicePlan) -> None:
    assert pipeline.plan_for(a_model(**capabilities), a_volume(3), count=count) == plan
