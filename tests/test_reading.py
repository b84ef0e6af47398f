"""Tests of `medmllm_plugin.transforms.reading`."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medmllm_plugin.errors import MedMLLMError, StudyError
from medmllm_plugin.geometry import apply
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.volume import Volume
from tests.builders import (
    ct_voxels,
    write_cr,
    write_ct_series,
    write_dicomdir,
    write_enhanced_ct,
    write_mr_series,
    write_nifti,
)
from tests.voxel_files import write_metaimage, write_nrrd

DATA = Path(os.environ.get("MEDMLLM_DATA", Path(__file__).parents[2] / "shared" / "data"))


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"MEDMLLM_DATA has no {name}")
    return path


def places(volume: Volume) -> np.ndarray:
    """Shape (slices, rows, columns, 3), LPS mm."""
    rows, columns = np.mgrid[: volume.planes[0].rows, : volume.planes[0].columns]
    index = np.stack([columns, rows, np.zeros_like(rows)], axis=-1)
    return np.stack([apply(p.to_patient, index) for p in volume.planes if p.to_patient is not None])


def test_a_folder_a_zip_and_a_dicomdir_of_one_study_are_the_same_volume(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path / "folder", slices=4)
    with zipfile.ZipFile(tmp_path / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, path.name)
    dicomdir = write_dicomdir(tmp_path / "medium", paths)

    inputs = [tmp_path / "folder", tmp_path / "study.zip", dicomdir]
    volumes = [read_volume([path]) for path in inputs]

    for volume in volumes:
        np.testing.assert_array_equal(volume.voxels(), ct_voxels(4, 6, 8))
        assert [p.source for p in volume.planes] == [p.source for p in volumes[0].planes]
        np.testing.assert_array_equal(volume.affine, volumes[0].affine)


def test_the_files_of_one_series_may_be_given_one_by_one(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path, slices=3)

    assert len(read_volume(paths[:2])) == 2


def test_several_films_of_one_series_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_cr(tmp_path / "a.dcm", InstanceNumber=2, ViewPosition="LL")
    write_cr(tmp_path / "b.dcm", InstanceNumber=1)

    volume = read_volume([tmp_path])

    assert [header.ViewPosition for header in volume.headers] == ["PA", "LL"]
    assert "2 images have no place in the patient" in "\n".join(volume.notes)


def test_a_folder_with_one_nifti_is_that_file(tmp_path: Path) -> None:
    write_nifti(tmp_path / "t1.nii.gz", np.zeros((2, 3, 4), np.int16), np.eye(4))

    assert len(read_volume([tmp_path], modality="MR")) == 4


def test_nifti_beside_dicom_is_left_out_and_told(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=2)
    write_nifti(tmp_path / "mask.nii.gz", np.zeros((2, 3, 4), np.int16), np.eye(4))

    assert read_volume([tmp_path]).notes[-1] == "left out files: 1 NIfTI beside DICOM"


def test_several_niftis_are_refused(tmp_path: Path) -> None:
    for name in ("a.nii", "b.nii"):
        write_nifti(tmp_path / name, np.zeros((2, 3, 4), np.int16), np.eye(4))

    with pytest.raises(StudyError, match="found 2 NIfTI files, expected one; give the file itself"):
        read_volume([tmp_path])


def test_nrrd_and_metaimage_come_through_the_same_door(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    paths = [
        write_nrrd(tmp_path / "a" / "a.nrrd", values),
        write_nrrd(tmp_path / "b" / "b.NHDR", values, data="b.raw"),
        write_metaimage(tmp_path / "c" / "c.mha", values),
        write_metaimage(tmp_path / "d" / "d.MHD", values, data="d.raw"),
    ]

    for path in paths:
        for given in (path, path.parent):
            np.testing.assert_array_equal(read_volume([given]).voxels(), values.T)


def test_a_pair_is_read_by_either_file_and_by_its_folder(tmp_path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Pair(np.zeros((2, 3, 4), np.int16), np.eye(4)), tmp_path / "pair.img")
    (tmp_path / "scene.hdr").write_bytes(b"#?RADIANCE of another program")

    for given in (tmp_path / "pair.hdr", tmp_path / "pair.img", tmp_path):
        assert len(read_volume([given])) == 4


def test_files_of_several_kinds_are_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), np.eye(4))
    write_nrrd(tmp_path / "b.nrrd", np.zeros((2, 3, 4), np.int16))

    with pytest.raises(StudyError, match="found 1 NIfTI, 1 NRRD files, expected one; give the file itself"):
        read_volume([tmp_path])


def test_one_volume_of_several_may_be_named(tmp_path: Path) -> None:
    values = np.arange(48, dtype=np.int16).reshape(2, 3, 4, 2)
    path = write_nifti(tmp_path / "many.nii.gz", values, np.diag([-1.0, -1, 1, 1]))

    np.testing.assert_array_equal(read_volume([path], volume=1).voxels(), values[..., 1].T)


def test_one_stack_of_several_may_be_named_by_number_or_name(tmp_path: Path) -> None:
    for echo in (1, 2):
        write_mr_series(tmp_path / str(echo), slices=3, EchoNumbers=echo, InstanceNumber=None)

    by_number = read_volume([tmp_path], volume=1)
    by_name = read_volume([tmp_path], volume="Echo Number 2")

    assert {header.EchoNumbers for header in by_number.headers} == {2}
    assert {header.EchoNumbers for header in by_name.headers} == {2}
    assert "asked for: echo number 2, 3 of 6 images" in "\n".join(by_name.notes)


@pytest.mark.parametrize("wanted", [2, "echo number", "phase 3"])
def test_a_stack_that_is_not_there_or_not_one_is_refused(tmp_path: Path, wanted: int | str) -> None:
    for echo in (1, 2):
        write_mr_series(tmp_path / str(echo), slices=3, EchoNumbers=echo, InstanceNumber=None)

    with pytest.raises(StudyError, match=r"2 stacks: 0 \(echo number 1\), 1 \(echo number 2\)"):
        read_volume([tmp_path], volume=wanted)


def test_a_volume_of_a_file_has_no_name(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", np.zeros((2, 3, 4, 2), np.int16), np.eye(4))

    with pytest.raises(StudyError, match="volumes have no names"):
        read_volume([path], volume="second")


def test_a_series_of_a_nifti_is_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", np.zeros((2, 3, 4), np.int16), np.eye(4))

    with pytest.raises(StudyError, match="leave out the series"):
        read_volume([path], series="2")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        StudyError, match="found an empty folder, expected DICOM images or a NIfTI, NRRD or MetaImage"
    ):
        read_volume([tmp_path])


def test_a_folder_without_dicom_is_refused_with_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")

    with pytest.raises(StudyError, match=r"found no images \(1 not DICOM\)"):
        read_volume([tmp_path])


def test_a_file_named_dcm_that_is_not_dicom_is_refused_also_beside_good_ones(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=2)
    (tmp_path / "letter.dcm").write_text("Dear colleague, thank you for referring this patient to us. " * 9)

    with pytest.raises(StudyError, match=r"letter\.dcm: found what is not DICOM"):
        read_volume([tmp_path])


def test_no_path_is_a_wrong_argument() -> None:
    with pytest.raises(ValueError, match="no path"):
        read_volume([])


@pytest.mark.parametrize("kind", ["plain", "enhanced", "rle", "zip", "nii", "nii.gz"])
def test_damaged_bytes_give_a_volume_or_one_of_our_errors(tmp_path: Path, kind: str) -> None:
    whole = _whole(tmp_path, kind)
    content = whole.read_bytes()
    target = tmp_path / f"damaged{''.join(whole.suffixes)}"
    chance = random.Random(kind)

    for _ in range(80):
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(min(len(damaged), 3000))] = chance.randrange(256)
        target.write_bytes(bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged))])]))
        outcome = _outcome(target)

        assert len(outcome.splitlines()) == 1


def _outcome(path: Path) -> str:
    """The error's text, or the shape of the first plane."""
    try:
        return str(read_volume([path]).read_plane(0).shape)
    except MedMLLMError as error:
        return str(error)


def _whole(folder: Path, kind: str) -> Path:
    if kind.startswith("nii"):
        return write_nifti(folder / f"whole.{kind}", np.zeros((5, 6, 7), np.int16), np.eye(4))
    if kind == "enhanced":
        return write_enhanced_ct(folder / "whole.dcm")
    change = (lambda _, dataset: dataset.compress("1.2.840.10008.1.2.5")) if kind == "rle" else None
    (path,) = write_ct_series(folder / "series", slices=1, change=change)
    if kind != "zip":
        return path
    with zipfile.ZipFile(folder / "whole.zip", "w") as archive:
        archive.write(path, "a.dcm")
    return folder / "whole.zip"


def test_a_case_is_the_same_through_dicom_and_nifti() -> None:
    ours = read_volume([real("ct_lung_ibsi1/dicom")])
    twin = read_volume([real("ct_lung_ibsi1/nifti/image/phantom.nii.gz")])

    np.testing.assert_array_equal(ours.voxels(), twin.voxels())
    np.testing.assert_allclose(places(ours), places(twin), atol=1e-3)


@pytest.mark.parametrize(
    ("path", "upwards"),
    [("dicom", -1), ("nifti/orientation/image/orientation.nii.gz", 1)],
)
def test_the_orientation_phantom_has_each_value_where_its_file_puts_it(path: str, upwards: int) -> None:
    volume = read_volume([real(f"ibsi_orientation/{path}")])

    # values rise by 1 each 2 mm to the left and back; from slice 0 the DICOM goes down and the NIfTI goes up
    x, y, z = np.moveaxis(places(volume), -1, 0)
    np.testing.assert_allclose(volume.voxels(), (x + y + upwards * z) / 2)


def test_lossless_syntaxes_of_one_slice_agree_to_the_last_bit() -> None:
    folder = real("one_slice_15_syntaxes")
    reference = read_volume([folder / "CTImage.dcm"]).read_plane(0)
    files = [p for p in folder.glob("CTImage.dcm_*") if "Lossy" not in p.name and "JPEGProcess" not in p.name]
    lossless = [p for p in files if "JPEG2000Transfer" not in p.name] + list(folder.glob("*Process14*"))

    assert len(lossless) == 9
    for path in lossless:
        np.testing.assert_array_equal(read_volume([path]).read_plane(0), reference)


def test_spacing_comes_from_positions_not_from_thickness() -> None:
    volume = read_volume([real("sr_tid1500_liver")])

    assert volume.affine[2, 2] == pytest.approx(1.0)
    assert "1.25 mm thick every 1.00 mm" in "\n".join(volume.notes)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
def test_a_damaged_uid_is_refused(keyword: str, tmp_path: Path) -> None:
    path = write_ct_series(tmp_path, slices=1)[0]
    data = path.read_bytes()
    uid = str(pydicom.dcmread(path)[keyword].value).encode()
    at = data.rindex(uid)
    path.write_bytes(data[: at + 3] + b"\\" + data[at + 4 :])

    with pytest.raises(StudyError, match=f"{keyword} that is not one UID"):
        read_volume([path])
