"""Tests of `dicom_bridge/key_pictures.py`."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from medmllm_plugin.dicom_bridge.key_pictures import BANNER, PICTURE_SERIES, key_pictures
from medmllm_plugin.findings import Box, Status
from medmllm_plugin.pictures import BOX_COLOR
from medmllm_plugin.report import DISCLAIMER, Report
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.transforms.window import PRESETS
from medmllm_plugin.volume import Study
from tests.sr_reports import STUDY, a_header, a_nodule, a_report, an_effusion
from tests.values import a_volume

NOON = datetime(2026, 11, 21, 12, 0, 0)
SIDE = 224


def a_reading(**values: Any) -> tuple[Report, list[Dataset], SliceSet]:
    """A nodule in a box on picture 2 and an effusion without one on picture 3, in a window of one grey."""
    slices = SlicePlan(count=3, size=SIDE, window="ct-lung").apply(a_volume(3))
    headers = [a_header(number, series="1.2.3", Rows=56, Columns=56, **values) for number in (1, 2, 3)]
    for header in headers:
        header.StudyInstanceUID = STUDY
    nodule_image, effusion_image = slices.slices[1].source, slices.slices[2].source
    box = Box(picture=2, image=nodule_image, column_min=10, row_min=20, column_max=30, row_max=40)
    report = replace(
        a_report(a_nodule(nodule_image, box=box), an_effusion(effusion_image)),
        study=Study(modality="CT", study_instance_uid=STUDY, series_instance_uid="1.2.3"),
    )
    return report, headers, slices


def is_yellow(pixels: np.ndarray) -> np.ndarray:
    """Where the pixels are just the colour of boxes."""
    return (pixels == BOX_COLOR).all(axis=-1)


def test_each_picture_with_a_finding_is_one_secondary_capture_of_one_series() -> None:
    report, headers, slices = a_reading()

    made = key_pictures(report, headers, slices, written=NOON)

    assert [one.InstanceNumber for one in made] == [1, 2]
    assert {one.SOPClassUID for one in made} == {SecondaryCaptureImageStorage}
    assert {one.SeriesNumber for one in made} == {PICTURE_SERIES.number}
    assert len({one.SeriesInstanceUID for one in made}) == 1
    assert len({one.SOPInstanceUID for one in made}) == 2
    sources = [one.SourceImageSequence[0].ReferencedSOPInstanceUID for one in made]
    assert sources == ["1.2.3.2", "1.2.3.3"]
    assert {one.BurnedInAnnotation for one in made} == {"YES"}
    assert {tuple(one.PatientOrientation) for one in made} == {("L", "P")}


def test_the_box_lies_around_the_place_and_the_pixels_inside_are_untouched() -> None:
    report, headers, slices = a_reading()

    pixels = key_pictures(report, headers, slices)[0].pixel_array

    scale, top = SIDE / 56, 20
    left, right = int(10 * scale), int(30 * scale)
    upper, lower = top + int(20 * scale), top + int(40 * scale)
    frame = is_yellow(pixels)
    assert frame[upper - 1, left:right].all()
    assert frame[lower, left:right].all()
    assert frame[upper:lower, left - 1].all()
    assert frame[upper:lower, right].all()
    inside = slices.slices[1].pixels[upper - top : lower - top, left:right]
    assert (pixels[upper:lower, left:right] == inside).all()


def test_the_banner_stands_above_and_the_findings_below_the_picture() -> None:
    report, headers, slices = a_reading()

    first, second = (one.pixel_array for one in key_pictures(report, headers, slices))

    assert first.shape[0] > SIDE + 20
    assert is_yellow(first[:20]).sum() > 100
    assert is_yellow(first[20 + SIDE :]).sum() > 100
    assert (first[:20] == second[:20]).all()
    assert is_yellow(second[20 : 20 + SIDE]).sum() == 0


def test_the_sentences_of_any_script_and_the_disclaimer_are_in_the_comments() -> None:
    report, headers, slices = a_reading()
    buffer = io.BytesIO()
    key_pictures(report, headers, slices)[0].save_as(buffer, enforce_file_format=True)
    buffer.seek(0)

    comments = pydicom.dcmread(buffer).ImageComments

    assert comments.splitlines() == [DISCLAIMER, "Solid nodule ≤ 16 mm, 12 µm rim – 右肺下叶結節."]


def test_three_windows_in_colours_stand_side_by_side_in_grey() -> None:
    report, headers, _ = a_reading()
    slices = SlicePlan(count=3, size=SIDE, window="ct").apply(a_volume(3))

    pixels = key_pictures(report, headers, slices)[1].pixel_array

    assert slices.slices[0].window == PRESETS["ct"].words
    assert pixels.shape[1] == 3 * SIDE
    for channel in range(3):
        corner = pixels[20 + SIDE // 4, channel * SIDE + SIDE // 4]
        assert corner.tolist() == [int(slices.slices[2].pixels[SIDE // 4, SIDE // 4, channel])] * 3


def test_a_picture_without_a_place_in_the_patient_has_no_side_letters() -> None:
    report, headers, _ = a_reading()
    placed = SlicePlan(count=3, size=SIDE, window="ct-lung").apply(a_volume(3))
    nowhere = SlicePlan(count=3, size=SIDE, window="ct-lung").apply(a_volume(3, placed=False))

    with_letters, without = (key_pictures(report, headers, one)[1] for one in (placed, nowhere))

    assert without["PatientOrientation"].is_empty
    assert (with_letters.pixel_array == 255).all(axis=-1).sum() > 0
    assert (without.pixel_array == 255).all(axis=-1).sum() == 0


def test_absent_findings_and_normal_studies_have_no_pictures() -> None:
    report, headers, slices = a_reading()
    absent = tuple(replace(one, status=Status.ABSENT) for one in report.findings)

    made = key_pictures(replace(a_report(*absent), study=report.study), headers, slices)

    assert made == []


def test_two_findings_of_one_picture_share_a_capture() -> None:
    report, headers, slices = a_reading()
    nodule = report.findings[0]
    twin = replace(nodule, tracking_uid="2.25.77", box=replace(nodule.box or a_box(), column_max=40))

    made = key_pictures(replace(report, findings=(nodule, twin)), headers, slices)

    assert len(made) == 1
    assert made[0].ImageComments.count("Solid nodule") == 2


def a_box() -> Box:
    """The nodule's box of `a_reading`."""
    box = a_reading()[0].findings[0].box
    assert box is not None
    return box


def test_lossy_compression_of_the_source_is_said_of_the_capture() -> None:
    report, headers, slices = a_reading(LossyImageCompression="01", LossyImageCompressionRatio="9.5")

    capture = key_pictures(report, headers, slices)[0]

    assert (capture.LossyImageCompression, capture.LossyImageCompressionRatio) == ("01", 9.5)


def test_a_picture_of_another_image_than_the_boxs_is_refused() -> None:
    report, headers, slices = a_reading()
    nodule = replace(report.findings[0], box=replace(a_box(), picture=1))

    with pytest.raises(ValueError, match="which is of another image than the box"):
        key_pictures(replace(report, findings=(nodule,)), headers, slices)
    with pytest.raises(ValueError, match="not among"):
        key_pictures(report, [headers[0]], slices)
    with pytest.raises(ValueError, match="the report is of study"):
        key_pictures(replace(report, study=Study(modality="CT")), headers, slices)


def test_dciodvfy_finds_no_error(tmp_path: Path) -> None:
    beside = Path(sys.executable).parent / "dciodvfy"
    dciodvfy = str(beside) if beside.exists() else shutil.which("dciodvfy")
    if dciodvfy is None:
        pytest.skip("dciodvfy is not installed")
    made = key_pictures(*a_reading(), written=NOON)

    for number, one in enumerate(made):
        path = tmp_path / f"{number}.dcm"
        one.save_as(path, enforce_file_format=True)
        done = subprocess.run([dciodvfy, "-new", str(path)], capture_output=True, text=True, check=False)
        assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == []
        assert done.stderr.startswith("SCImage")


def test_the_banner_says_what_it_is() -> None:
    assert BANNER == "AI, unverified, research use only"
