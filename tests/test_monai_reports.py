"""What MONAI's transforms report: models, reports, SRs, series of studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.data import Dataset
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    Flipd,
    Orientationd,
    Spacingd,
)
from pydicom import dcmread

from medmllm_plugin.errors import SettingsError, StudyError
from medmllm_plugin.geometry import apply
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.pipeline import NO_SR
from medmllm_plugin.report import Outcome, Report
from medmllm_plugin.transforms.monai import (
    LazyModel,
    LoadStudy,
    LoadStudyd,
    ReadFindings,
    ReadFindingsd,
    ReportEvaluator,
    SaveReport,
    SaveReportd,
    ToSliceSet,
    ToSliceSetd,
    studies_in,
)
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.volume import Volume
from tests.builders import write_cr, write_nifti
from tests.monai_images import a_study
from tests.values import a_said_finding, a_said_reply

BOXED = a_said_finding(box={"picture": 1, "bbox_2d": [28, 28, 56, 56]})


def a_model(*findings: dict[str, Any]) -> ScriptedModel:
    return ScriptedModel([a_said_reply(*findings)] * 4)


def test_a_model_given_open_is_shared_and_its_plan_is_used(tmp_path: Path) -> None:
    model = LazyModel.of(a_model(a_said_finding()))

    shown = ToSliceSet(model=model, size=56)(LoadStudy(as_volume=True)(a_study(tmp_path)))
    report = ReadFindings(model=model)(shown)

    assert len(shown) == 12
    assert max(shown.picture(1).pixels.shape[:2]) == 56
    assert report.outcome is Outcome.FINDINGS
    with pytest.raises(SettingsError, match="no task is named 'guess'"):
        ReadFindings(model=model, task="guess")


@pytest.mark.parametrize(
    "between",
    [
        [],
        [Orientationd("image", axcodes="PIR", labels=None), Flipd("image", 0)],
        [Spacingd("image", pixdim=(1.0, 1.0, 3.0)), CenterSpatialCropd("image", (30, 30, 6))],
    ],
    ids=["as read", "turned", "resampled and cropped"],
)
def test_a_report_and_its_srs_cite_images_of_the_study_at_the_true_place(
    tmp_path: Path, between: list[Any]
) -> None:
    study = a_study(tmp_path / "study")
    transforms = Compose(
        [
            LoadStudyd("image", ensure_channel_first=True),
            *between,
            ToSliceSetd("image", output_keys="slices", count=4, size=112),
            ReadFindingsd("slices", model=a_model(BOXED)),
            SaveReportd("report", output_dir=tmp_path / "out"),
        ],
        lazy=True,
    )

    item = transforms({"image": str(study)})

    folder = Path(item["report_folder"])
    planes = {one.source: one.to_patient for one in read_volume([study]).planes}
    assert {path.name for path in folder.iterdir()} >= {
        "report.json",
        "report.html",
        "findings.dcm",
        "report.dcm",
    }
    report = Report.from_json(json.loads((folder / "report.json").read_text("utf-8")))
    assert report == item["report"]
    (finding,) = report.findings
    assert finding.center_mm is not None
    middle = item["slices"].to_patient(1, [41.5, 41.5])
    np.testing.assert_allclose(finding.center_mm, middle, atol=0.006)
    matrix = planes[finding.images[0]]
    assert matrix is not None
    assert abs(apply(np.linalg.inv(matrix), finding.center_mm)[2]) <= 1.01
    assert folder.name == report.study.series_instance_uid
    assert dcmread(folder / "findings.dcm").PatientID == "T1"


def test_a_file_has_a_report_without_sr(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "ct.nii.gz", np.zeros((40, 40, 4), np.int16), np.diag([1.0, 1, 2, 1]))
    transforms = Compose(
        [
            LoadStudyd("image", modality="CT"),
            ToSliceSetd("image", output_keys="slices", size=112),
            ReadFindingsd("slices", model=a_model(BOXED)),
            SaveReportd(output_dir=tmp_path / "out"),
        ]
    )

    item = transforms({"image": str(path)})

    folder = Path(item["report_folder"])
    assert folder.name.startswith("ct-")
    assert not list(folder.rglob("*.dcm"))
    assert item["report"].notes[-1] == NO_SR


def test_an_sr_is_refused_for_headers_of_other_images(tmp_path: Path) -> None:
    shown = ToSliceSet(count=3, size=56)(LoadStudy(as_volume=True)(a_study(tmp_path / "a")))
    report = ReadFindings(model=a_model(BOXED))(shown)
    other = a_study(tmp_path / "b")

    with pytest.raises(StudyError, match="without 3 of the images"):
        SaveReport(tmp_path / "out")(report, shown, other)

    assert not (tmp_path / "out").exists()


def test_each_folder_zip_and_file_is_a_study(tmp_path: Path) -> None:
    a_study(tmp_path / "b")
    write_nifti(tmp_path / "a.nii.gz", np.zeros((3, 3, 3), np.int16), np.eye(4))
    write_cr(tmp_path / "film")
    (tmp_path / "notes.txt").write_text("no study", "utf-8")

    found = studies_in(tmp_path)

    assert [one["image"] for one in found] == [
        str(tmp_path / "a.nii.gz"),
        str(tmp_path / "b"),
        [str(tmp_path / "film")],
    ]
    with pytest.raises(StudyError, match="found no study"):
        studies_in(tmp_path / "nowhere")


def test_a_study_that_is_refused_stops_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a_study(tmp_path / "1", tilt=0.3)
    a_study(tmp_path / "2", seed="second")
    dataset = Dataset(studies_in(tmp_path), LoadStudyd("image"))
    done: list[Any] = []
    evaluator = ReportEvaluator(dataset, lambda item: done.append(item) or item)

    with pytest.raises(StudyError, match="found 1 of 2 studies that were refused"):
        evaluator.run()

    assert len(done) == 1
    assert "study 1 of 2: the stack is sheared" in caplog.text
    assert isinstance(LoadStudy(as_volume=True)(tmp_path / "1"), Volume)
