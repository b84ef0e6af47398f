"""Tests of `medmllm_plugin.transforms.nifti`."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmllm_plugin.errors import GeometryError, StudyError
from medmllm_plugin.geometry import apply, orientation_letters
from medmllm_plugin.source import FileImage
from medmllm_plugin.transforms.nifti import read_nifti
from medmllm_plugin.volume import Volume
from tests.builders import write_nifti

VALUES = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
RAS = np.array([[2.0, 0, 0, -10], [0, 3.0, 0, -20], [0, 0, 4.0, 30], [0, 0, 0, 1]])


def in_lps(volume: Volume) -> dict[tuple[float, ...], float]:
    """Every voxel's value at its place, LPS mm rounded to micrometres."""
    found = {}
    for k, plane in enumerate(volume.planes):
        assert plane.to_patient is not None
        pixels = volume.read_plane(k)
        assert pixels.shape == (plane.rows, plane.columns)
        for row, column in np.ndindex(pixels.shape):
            place = apply(plane.to_patient, [column, row, 0])
            found[tuple(np.round(place, 3) + 0.0)] = float(pixels[row, column])
    return found


def expected(values: np.ndarray, affine: np.ndarray) -> dict[tuple[float, ...], float]:
    found = {}
    for index in np.ndindex(values.shape):
        x, y, z, _ = affine @ [*index, 1]
        found[tuple(np.round([-x, -y, z], 3) + 0.0)] = float(values[index])
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    turn=st.floats(-30, 30),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_every_voxel_keeps_its_place_however_it_is_stored(
    tmp_path: Path, order: list[int], signs: tuple[int, int, int], turn: float, suffix: str
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * signs * [2, 3, 4]
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine[:3, :3]
    affine[:3, 3] = (-10, 20, 30)
    path = write_nifti(tmp_path / f"any{suffix}", VALUES, affine)

    volume = read_nifti(path)

    ours, theirs = in_lps(volume), expected(VALUES, affine.astype(np.float32).astype(np.float64))
    assert len(ours) == len(theirs)
    near = {tuple(np.round(place, 1) + 0.0): value for place, value in theirs.items()}
    assert all(near[tuple(np.round(place, 1) + 0.0)] == value for place, value in ours.items())
    positions = [p.to_patient[:3, 3] @ p.to_patient[:3, 2] for p in volume.planes if p.to_patient is not None]
    assert positions == sorted(positions)


@pytest.mark.parametrize("third", [0, 1, 2])
@pytest.mark.parametrize("signs", list(itertools.product([-1, 1], repeat=3)))
def test_pictures_look_as_a_radiologist_expects(tmp_path: Path, third: int, signs: tuple[int, ...]) -> None:
    others = [axis for axis in range(3) if axis != third]
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, [*others, third]] * signs
    path = write_nifti(tmp_path / "any.nii", VALUES, affine)

    matrix = read_nifti(path).planes[0].to_patient

    assert matrix is not None
    shown = (orientation_letters(matrix[:3, 0]), orientation_letters(matrix[:3, 1]))
    assert shown == {0: ("P", "I"), 1: ("L", "I"), 2: ("L", "P")}[third]
    assert np.linalg.det(matrix[:3, :3]) > 0


def test_a_source_names_the_slice_along_the_third_stored_axis(tmp_path: Path) -> None:
    downwards = RAS @ np.diag([1.0, 1, -1, 1])
    volume = read_nifti(write_nifti(tmp_path / "down.nii", VALUES, downwards))

    assert volume.planes[0].source == FileImage(file="down.nii", index=4)
    assert sorted(volume.read_plane(0).ravel()) == sorted(VALUES[:, :, 4].ravel())
    assert volume.headers == ()


def test_scaling_is_applied(tmp_path: Path) -> None:
    import nibabel

    image = nibabel.Nifti1Image(VALUES, RAS)
    image.header.set_slope_inter(0.5, -7)
    for suffix in (".nii", ".nii.gz"):
        nibabel.save(image, tmp_path / f"scaled{suffix}")

        volume = read_nifti(tmp_path / f"scaled{suffix}")

        np.testing.assert_allclose(np.sort(volume.voxels().ravel()), np.arange(60) * 0.5 - 7)
        assert volume.voxels().dtype == np.float32


def test_values_that_can_only_be_hounsfield_units_make_it_a_ct_and_the_notes_say_so(tmp_path: Path) -> None:
    volume = read_nifti(write_nifti(tmp_path / "ct.nii.gz", (VALUES * 40 - 1000).astype(np.int16), RAS))

    assert (volume.study.modality, volume.unit) == ("CT", "HU")
    assert "taken as CT in HU" in volume.notes[0]


def test_other_values_have_no_modality_unless_it_is_given(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "mr.nii.gz", VALUES, RAS)

    assert read_nifti(path).study.modality == "OT"
    assert "names no modality" in read_nifti(path).notes[0]
    assert read_nifti(path, modality="MR").study.modality == "MR"
    assert read_nifti(path, modality="CT").unit == "HU"


def test_a_fourth_axis_of_one_is_no_second_volume(tmp_path: Path) -> None:
    for suffix in (".nii", ".nii.gz"):
        path = write_nifti(tmp_path / f"one{suffix}", VALUES[..., None], RAS)

        assert in_lps(read_nifti(path)) == expected(VALUES, RAS)


def test_values_that_are_no_numbers_become_zero_and_the_notes_say_so(tmp_path: Path) -> None:
    values = VALUES.astype(np.float32)
    values[1, 1, 1] = np.nan

    volume = read_nifti(write_nifti(tmp_path / "holes.nii.gz", values, RAS))

    assert np.isfinite(volume.voxels()).all()
    assert "not finite" in "\n".join(volume.notes)


def test_a_disagreement_of_qform_and_sform_is_told(tmp_path: Path) -> None:
    import nibabel

    image = nibabel.Nifti1Image(VALUES, RAS)
    image.set_qform(RAS @ np.diag([-1.0, 1, 1, 1]), code=1)
    image.set_sform(RAS, code=1)
    nibabel.save(image, tmp_path / "two.nii")

    volume = read_nifti(tmp_path / "two.nii")

    assert "qform and sform disagree by up to 12.0 mm; the sform was used" in volume.notes
    assert in_lps(volume) == expected(VALUES, RAS)


def test_without_qform_and_sform_no_side_is_claimed(tmp_path: Path) -> None:
    import nibabel

    image = nibabel.Nifti1Image(VALUES, None)
    image.header.set_zooms((2, 3, 4))
    nibabel.save(image, tmp_path / "nowhere.nii")

    volume = read_nifti(tmp_path / "nowhere.nii")

    assert all(plane.to_patient is None for plane in volume.planes)
    assert volume.planes[0].spacing == (3, 2)
    assert "neither qform nor sform" in "\n".join(volume.notes)
    np.testing.assert_array_equal(volume.read_plane(2), VALUES[:, :, 2].T)


def test_places_in_metres_become_millimetres(tmp_path: Path) -> None:
    import nibabel

    image = nibabel.Nifti1Image(VALUES, np.diag([0.002, 0.003, 0.004, 1]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "metres.nii")

    assert read_nifti(tmp_path / "metres.nii").planes[0].spacing == pytest.approx((3, 2))


def test_what_nibabel_repairs_is_not_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_nifti(tmp_path / "odd.nii", VALUES, RAS)
    content = bytearray(path.read_bytes())
    content[252:254] = (99).to_bytes(2, "little")
    path.write_bytes(bytes(content))

    assert len(read_nifti(path)) == 5
    assert capfd.readouterr().err == ""


def test_a_singular_affine_is_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "flat.nii.gz", VALUES, RAS)
    import nibabel

    image = nibabel.load(path)
    image.header["srow_x"] = 0
    image.header["qform_code"], image.header["sform_code"] = 0, 1
    flat = nibabel.Nifti1Image(VALUES, None, image.header)
    nibabel.save(flat, path)

    with pytest.raises(GeometryError, match=r"flat\.nii\.gz: its affine is singular"):
        read_nifti(path)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.zeros((3, 4, 5, 2), np.int16), "3x4x5x2: several volumes"),
        (np.zeros((3, 4, 5, 1, 3), np.float32), "3x4x5x1x3: several volumes"),
        (np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours"),
        (np.zeros((3, 4, 5), np.complex64), "complex64"),
    ],
)
def test_what_is_not_one_volume_of_numbers_is_refused(tmp_path: Path, values: np.ndarray, found: str) -> None:
    path = write_nifti(tmp_path / "odd.nii.gz", values, RAS)

    with pytest.raises(StudyError, match=found):
        read_nifti(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("keep", [0.9, 0.5, 0.05, 0])
def test_a_truncated_file_is_refused_when_read(tmp_path: Path, suffix: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    path = write_nifti(tmp_path / f"cut{suffix}", noise, RAS)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])

    with pytest.raises(StudyError, match=r"cut\.nii.*cut off") as told:
        read_nifti(path)

    assert "\n" not in str(told.value)
