"""Tests of `medmllm_plugin.transforms.study`: whole studies planned and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from medmllm_plugin.cli import medmllm
from medmllm_plugin.errors import SettingsError, StudyError
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.transforms.study import plan_of, read_study, study_slices
from tests.builders import write_ct_series, write_mr_series, write_nifti

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def write_study(folder: Path) -> None:
    """A scout, a thin and a thick stack, and one with a bone kernel of the same scan, in one CT study."""

    def write(name: str, number: int, **attributes: Any) -> None:
        usual = {"StudyInstanceUID": "1.2.3", "AcquisitionTime": "100000", "SeriesNumber": number}
        write_ct_series(folder / name, SeriesInstanceUID=f"1.{number}", **usual, **attributes)

    write("scout", 1, slices=1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], orientation=CORONAL)
    write("thin", 2, slices=20, thickness=1.0, ConvolutionKernel="Br40d")
    write("bone", 3, slices=20, thickness=1.0, ConvolutionKernel="BONEPLUS")
    write("thick", 4, slices=4, thickness=5.0)


def test_a_ct_study_shows_its_thin_smooth_stack(tmp_path: Path) -> None:
    write_study(tmp_path)

    plan = plan_of([tmp_path], pictures=12)

    assert plan.lines() == [
        "series 2 (CT, 20 images): 12 of 20 images: the only axial CT",
        "series 1 (CT, 1 image): left out: a localizer",
        "series 3 (CT, 20 images): left out: the same scan as series 2 (CT, 20 images) with a sharp kernel",
        "series 4 (CT, 4 images): left out: the same scan as series 2 (CT, 20 images) in thicker slices",
    ]


def test_the_series_taken_are_read_as_volumes(tmp_path: Path) -> None:
    write_study(tmp_path)

    volumes = read_study([tmp_path], take=["4"])

    assert [(one.facts.number, len(volume)) for one, volume in volumes] == [(2, 20), (4, 4)]
    assert all(volume.unit == "HU" for _, volume in volumes)
    assert volumes[1][1].notes[0] == "series 4 (CT, 4 images) was taken: it was asked for"


def test_a_prior_study_rides_along(tmp_path: Path) -> None:
    write_study(tmp_path / "now")
    write_ct_series(tmp_path / "then", slices=9, StudyInstanceUID="1.0", SeriesInstanceUID="1.0.1")

    volumes = read_study([tmp_path / "now"], prior=[tmp_path / "then"], pictures=12)

    assert [(one.facts.uid, one.prior, one.pictures) for one, _ in volumes] == [
        ("1.2", False, 8),
        ("1.0.1", True, 4),
    ]
    assert "of the prior study was taken" in volumes[1][1].notes[0]


def test_a_prior_of_another_patient_is_refused(tmp_path: Path) -> None:
    write_study(tmp_path / "now")
    write_ct_series(tmp_path / "then", slices=2, PatientID="T2", StudyInstanceUID="1.0")

    with pytest.raises(StudyError, match="2 patients"):
        plan_of([tmp_path / "now"], prior=[tmp_path / "then"])


def test_two_studies_at_once_are_refused(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", slices=2, seed="a")
    write_ct_series(tmp_path / "b", slices=2, seed="b")

    with pytest.raises(StudyError, match="found 2 studies"):
        plan_of([tmp_path])


def test_a_volume_alone_has_no_series(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), np.eye(4))

    with pytest.raises(StudyError, match="no DICOM images"):
        plan_of([path])


def test_an_mr_is_told_by_its_times_where_no_word_says_its_weighting(tmp_path: Path) -> None:
    times = {"1.1": (90, 4000, None), "1.2": (10, 500, None), "1.3": (90, 9000, 2500)}
    for uid, (echo, repetition, inversion) in times.items():
        given = {"EchoTime": echo, "RepetitionTime": repetition, "InversionTime": inversion}
        write_mr_series(tmp_path / uid, slices=5, seed="s", SeriesInstanceUID=uid, **given)

    plan = plan_of([tmp_path])

    assert [one.facts.weighting for one in plan.taken] == ["flair", "t2", "t1"]


def test_a_diffusion_series_is_read_at_its_highest_b_value(tmp_path: Path) -> None:
    for b in (0, 800):
        write_mr_series(tmp_path / str(b), slices=5, DiffusionBValue=b)

    ((planned, volume),) = read_study([tmp_path])

    assert planned.facts.stacks == ("b-value 0", "b-value 800")
    assert {header.DiffusionBValue for header in volume.headers} == {800}


def test_the_command_lists_verdicts_for_people_and_for_programs(tmp_path: Path) -> None:
    write_study(tmp_path)

    told = CliRunner().invoke(medmllm, ["series", str(tmp_path), "--leave", "2", "--pictures", "6"])
    listed = CliRunner().invoke(medmllm, ["series", str(tmp_path), "--json"])

    assert told.exit_code == 0
    assert "series 2 (CT, 20 images): left out: it was left out by the user" in told.stdout
    data = json.loads(listed.stdout)
    assert data["schema"] == "medmllm-series/1"
    assert [(one["number"], one["taken"]) for one in data["series"]] == [
        (2, True),
        (1, False),
        (3, False),
        (4, False),
    ]
    assert data["series"][0]["pictures"] == 20


def test_a_series_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    write_study(tmp_path)

    with pytest.raises(SettingsError, match="'9' names 0 series of the study"):
        plan_of([tmp_path], take=["9"])


def test_the_pictures_of_a_study_share_one_budget_with_the_prior(tmp_path: Path) -> None:
    write_study(tmp_path / "now")
    write_ct_series(tmp_path / "then", slices=9, StudyInstanceUID="1.0", SeriesInstanceUID="1.0.1")

    sets = study_slices(
        [tmp_path / "now"], plan=SlicePlan(count=12, size=448, tokens=1200), prior=[tmp_path / "then"]
    )

    assert [(one.prior, len(slices)) for one, slices in sets] == [(False, 8), (True, 4)]
    sides = [slices.slices[0].pixels.shape[0] * slices.slices[0].pixels.shape[1] for _, slices in sets]
    assert 8 * sides[0] + 4 * sides[1] <= 1200 * 28 * 28


def test_a_ct_window_is_for_the_ct_of_a_study_only(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "ct", StudyInstanceUID="1.2.3")
    write_mr_series(tmp_path / "mr", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.9", SeriesNumber=2)

    sets = study_slices([tmp_path], plan=SlicePlan(count=8, window="ct-lung"))

    windows = {slices.study.modality: slices.slices[0].window for _, slices in sets}
    assert windows["CT"] == "CT lung window -600/1500 HU"
    assert "percentile" in windows["MR"]


def test_the_command_writes_a_folder_of_pictures_for_each_series(tmp_path: Path) -> None:
    write_study(tmp_path / "now")
    write_ct_series(tmp_path / "then", slices=9, StudyInstanceUID="1.0", SeriesInstanceUID="1.0.1")
    arguments = ["series", str(tmp_path / "now"), "--prior", str(tmp_path / "then"), "--pictures", "6"]

    ran = CliRunner().invoke(medmllm, [*arguments, "-o", str(tmp_path / "out"), "--json"])

    assert ran.exit_code == 0, ran.output
    folders = [Path(one["folder"]).name for one in json.loads(ran.stdout)["series"]]
    assert folders == ["1-ct", "2-prior-ct"]
    assert len(list((tmp_path / "out" / "2-prior-ct").glob("*.png"))) == 2
    assert (tmp_path / "out" / "1-ct" / "slices.json").exists()


def test_the_command_writes_as_many_pictures_as_it_lists(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "ct", slices=30, StudyInstanceUID="1.2.3")
    run = CliRunner().invoke

    listed = json.loads(run(medmllm, ["series", str(tmp_path / "ct"), "--json"]).stdout)
    written = json.loads(
        run(medmllm, ["series", str(tmp_path / "ct"), "-o", str(tmp_path / "out"), "--json"]).stdout
    )

    assert [one["pictures"] for one in listed["series"]] == [30]
    assert [len(one["slices"]) for one in written["series"]] == [30]


def test_a_study_is_not_its_own_prior(tmp_path: Path) -> None:
    write_study(tmp_path / "now")

    with pytest.raises(StudyError, match="the study itself as its prior study"):
        plan_of([tmp_path / "now"], prior=[tmp_path / "now"])


def test_the_command_refuses_to_write_no_pictures(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "ct", slices=6, SeriesNumber=2)
    arguments = ["series", str(tmp_path / "ct"), "--leave", "2", "-o", str(tmp_path / "out")]

    ran = CliRunner().invoke(medmllm, arguments)

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "no series of this study is shown" in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_series_of_several_stacks_says_that_one_is_shown(tmp_path: Path) -> None:
    for n, echo in enumerate((10, 80)):
        write_mr_series(tmp_path / str(echo), origin=(-20, -30, 100), EchoTime=echo, AcquisitionNumber=n)

    plan = plan_of([tmp_path])

    assert "5 of 5 images, the largest of 2 stacks" in plan.lines()[0]


def test_nothing_to_plan_says_what_was_there_instead(tmp_path: Path) -> None:
    (tmp_path / "study.tar.gz").write_bytes(b"\x1f\x8b" + bytes(40))

    with pytest.raises(StudyError, match=r"1 packed file.*unpack"):
        plan_of([tmp_path])


def test_a_prior_of_a_later_date_is_refused(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "now", StudyDate="20260101")
    write_ct_series(
        tmp_path / "then", StudyDate="20260301", StudyInstanceUID="1.0", SeriesInstanceUID="1.0.1"
    )

    with pytest.raises(StudyError, match="a prior study of a later date"):
        plan_of([tmp_path / "now"], prior=[tmp_path / "then"])
