"""`medmllm slices` and `medmllm phantom`: real files in, real files out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from medmllm_plugin.transforms.recipes import RECIPES
from tests.cli_called import run


def a_series(folder: Path, *, slices: int = 6) -> Path:
    """A CT series whose values rise along its columns."""
    import pydicom
    from pydicom.dataset import FileMetaDataset

    folder.mkdir()
    for k in range(slices):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{k + 1}"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = (
            "1.2.826.1",
            "1.2.826.2",
            "1.2.826.3",
        )
        data.Modality, data.PatientName, data.PatientID = "CT", "DOE^JANE", "ID-4711"
        data.ImagePositionPatient, data.ImageOrientationPatient = [-20, -30, 5 * k], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.InstanceNumber = [1, 1], k + 1
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = (
            56,
            56,
            1,
            "MONOCHROME2",
        )
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.PixelData = np.tile(np.arange(56, dtype=np.uint16) * 30, (56, 1)).tobytes()
        data.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


def test_slices_writes_each_picture_and_where_it_comes_from(tmp_path: Path) -> None:
    study, out = a_series(tmp_path / "study"), tmp_path / "out"

    result = run("slices", study, "-o", out, "--count", 3, "--size", 56, "--window", "ct-lung")

    written = json.loads((out / "slices.json").read_text())
    assert result.exit_code == 0
    assert [one["picture"] for one in written["slices"]] == ["001.png", "002.png", "003.png"]
    assert [(out / one["picture"]).read_bytes()[:4] for one in written["slices"]] == [b"\x89PNG"] * 3
    assert np.allclose(np.array(written["slices"][0]["to_patient"]) @ [0, 0, 0, 1], [-20, -30, 0, 1])
    assert "3 pictures, and slices.json" in result.stdout
    assert not re.search("doe|jane|id-4711", (result.output + json.dumps(written)).lower())


def test_slices_follows_a_plan(tmp_path: Path) -> None:
    study, out = a_series(tmp_path / "study"), tmp_path / "pictures"

    result = run(
        *("slices", study, "-o", out, "--window", "ct-lung"),
        *("--plan", "count=3,size=112,select=body,labels=yes,window=ct-bone"),
    )

    assert result.exit_code == 0, result.stderr
    assert "evenly over slices" in result.stdout
    assert "CT lung window" in result.stdout
    assert len(list(out.glob("*.png"))) == 3


def test_the_recipes_are_listed_without_a_study() -> None:
    result = run("slices", "--plan", "list")

    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(RECIPES)


def test_the_list_of_recipes_is_json_if_asked() -> None:
    listed = json.loads(run("slices", "--plan", "list", "--json").stdout)

    assert [one["name"] for one in listed] == list(RECIPES)


def test_an_unknown_recipe_is_one_line_that_says_where_to_look(tmp_path: Path) -> None:
    result = run("slices", tmp_path / "study", "-o", tmp_path / "pictures", "--plan", "medgemma")

    assert result.exit_code == 2
    assert "medgemma-ct" in result.stderr
    assert "medmllm slices --plan list" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_slices_as_json_is_what_the_file_holds(tmp_path: Path) -> None:
    study, out = a_series(tmp_path / "study"), tmp_path / "out"

    result = run("slices", study, "-o", out, "--json")

    printed = json.loads(result.stdout)
    assert printed.pop("files") == {"slices": f"{out}/slices.json", "pictures": str(out)}
    assert printed == json.loads((out / "slices.json").read_text())
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [["--window", "nonsense"], ["--size", "3"], ["--series", "1.2.3"]])
def test_slices_with_settings_that_do_not_fit_leaves_nothing(tmp_path: Path, arguments: list[str]) -> None:
    study, out = a_series(tmp_path / "study"), tmp_path / "out"

    result = run("slices", study, "-o", out, *arguments)

    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("medmllm: error: ")
    assert {one.name for one in tmp_path.iterdir()} == {"study"}


@pytest.mark.parametrize("command", [["read"], ["slices"], ["sr", "show"]])
def test_input_that_is_not_there_is_one_line_and_exit_code_2(tmp_path: Path, command: list[str]) -> None:
    options = [] if command == ["sr", "show"] else ["-o", tmp_path / "out", "--json"]

    result = run(*command, tmp_path / "nowhere", *options)

    assert result.exit_code == 2
    assert re.fullmatch(r"medmllm: error: .*\n", result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_phantom_is_a_study_with_its_truth(tmp_path: Path) -> None:
    out = tmp_path / "phantom"

    result = run("phantom", out, "--seed", 3, "--findings", "nodule", "--slices", 16)

    truth = json.loads((out / "truth.json").read_text())
    assert result.exit_code == 0
    assert [one["finding"] for one in truth["findings"]] == ["nodule"]
    assert "16 images and truth.json" in result.stdout
    assert "Findings: nodule" in result.stdout


def test_a_phantom_without_findings_says_none(tmp_path: Path) -> None:
    result = run("phantom", tmp_path / "phantom", "--findings", "none", "--slices", 16, "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["findings"] == []


@pytest.mark.parametrize("arguments", [["--kind", "nonsense"], ["--findings", "nonsense"], ["--slices", "3"]])
def test_a_phantom_that_can_not_be_made_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    result = run("phantom", tmp_path / "phantom", *arguments)

    assert result.exit_code == 2
    assert re.fullmatch(r"medmllm: error: .*\n", result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_phantom_is_read_end_to_end_and_its_sr_shown(tmp_path: Path) -> None:
    study, replies, out = tmp_path / "study", tmp_path / "replies.json", tmp_path / "out"
    run("phantom", study, "--findings", "nodule", "--slices", 16)
    finding = {
        "finding": "nodule",
        "site": "lung",
        "side": "left",
        "status": "present",
        "severity": None,
        "pictures": [2],
        "box": {"picture": 2, "bbox_2d": [40, 50, 60, 70]},
        "sentence": "Solid nodule in the left lung.",
    }
    reply = {"abnormal_pictures": [2], "findings": [finding], "impression": ["Nodule."]}
    replies.write_text(json.dumps([reply]))

    result = run("read", study, "--model", f"scripted:{replies}", "--slices", 4, "-o", out, "--json")

    printed = json.loads(result.stdout)
    shown = run("sr", "show", out / "findings.dcm")
    assert result.exit_code == 0
    assert [one["finding"] for one in printed["findings"]] == ["nodule"]
    assert all(Path(path).exists() for path in printed["files"].values())
    assert {"report.json", "report.html", "slices.json", "findings.dcm", "report.dcm", "pictures"} <= {
        one.name for one in out.iterdir()
    }
    assert shown.exit_code == 0
    assert "odule" in shown.stdout
