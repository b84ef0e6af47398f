"""What a NIfTI header says of values, units and sides: taken, told or refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmllm_plugin.errors import GeometryError, StudyError
from medmllm_plugin.source import FileImage
from medmllm_plugin.transforms.nifti import read_nifti
from tests.builders import write_nifti
from tests.nifti_places import RAS, VALUES, expected, in_lps, require_nibabels_places
from tests.voxel_files import damages, outcome


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

    moved = RAS.copy()
    moved[2, 3] += 12
    image = nibabel.Nifti1Image(VALUES, RAS)
    image.set_qform(moved, code=1)
    image.set_sform(RAS, code=1)
    nibabel.save(image, tmp_path / "two.nii")

    volume = read_nifti(tmp_path / "two.nii")

    assert "qform and sform disagree by up to 12.0 mm; the sform was used" in volume.notes
    assert in_lps(volume) == expected(VALUES, RAS)


def test_no_side_is_claimed_where_qform_and_sform_mirror_each_other(tmp_path: Path) -> None:
    import nibabel

    image = nibabel.Nifti1Image(VALUES, RAS)
    image.set_qform(RAS @ np.diag([-1.0, 1, 1, 1]), code=1)
    image.set_sform(RAS, code=1)
    nibabel.save(image, tmp_path / "mirrored.nii")

    volume = read_nifti(tmp_path / "mirrored.nii")

    assert {plane.to_patient is None for plane in volume.planes} == {True}
    assert volume.planes[0].spacing == (3, 2)
    assert "mirror each other" in "\n".join(volume.notes)


@pytest.mark.parametrize(("code", "space"), [(1, None), (2, None), (3, "Talairach"), (4, "MNI 152")])
def test_places_of_a_template_are_told(tmp_path: Path, code: int, space: str | None) -> None:
    import nibabel

    image = nibabel.Nifti1Image(VALUES, RAS)
    image.set_sform(RAS, code=code)
    image.set_qform(RAS, code=0)
    nibabel.save(image, tmp_path / "any.nii")

    notes = "\n".join(read_nifti(tmp_path / "any.nii").notes)

    assert ("not of the scanner" in notes) == (space is not None)
    assert space is None or space in notes


def test_a_qform_that_is_no_rotation_is_refused_unless_there_is_an_sform(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "odd.nii", VALUES, RAS)
    content = bytearray(path.read_bytes())
    content[252] = 1
    content[256:268] = np.array([0.9, 0.9, 0.9], "<f4").tobytes()
    path.write_bytes(content)
    without = path.with_name("without.nii")
    without.write_bytes(content[:254] + b"\0\0" + content[256:])

    assert "the qform is no rotation; the sform was used" in read_nifti(path).notes
    with pytest.raises(GeometryError, match="its qform is no rotation"):
        read_nifti(without)


def test_a_unit_that_makes_the_patient_a_giant_is_refused(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "giant.nii", np.zeros((30, 30, 30), np.int16), RAS)
    content = bytearray(path.read_bytes())
    content[123] = 1
    path.write_bytes(content)

    with pytest.raises(GeometryError, match="by its header it is 120 m long"):
        read_nifti(path)


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


def test_a_code_that_does_not_exist_places_nothing(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "odd.nii", VALUES, RAS)
    content = bytearray(path.read_bytes())
    content[252:256] = b"\x63\0\x63\0"
    path.write_bytes(content)

    assert read_nifti(path).planes[0].to_patient is None


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


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (3, 4, 5, 2, 1)])
def test_of_several_volumes_the_first_or_the_one_named_is_read_and_told(
    tmp_path: Path, suffix: str, shape: tuple[int, ...]
) -> None:
    import nibabel

    values = np.arange(120, dtype=np.int16).reshape(shape)
    image = nibabel.Nifti1Image(values, RAS)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((2, 3, 4, 2.5, 1)[: len(shape)])
    path = tmp_path / f"many{suffix}"
    nibabel.save(image, path)

    first, second = read_nifti(path), read_nifti(path, volume=1)

    both = values.reshape(3, 4, 5, 2)
    assert in_lps(first) == expected(both[..., 0], RAS)
    assert in_lps(second) == expected(both[..., 1], RAS)
    told = "the file holds 2 volumes, by its header 2.5 s apart: number {} (counted from 0) was read, {}"
    assert told.format(0, "the first, as none was named") in first.notes
    assert told.format(1, "as was asked for") in second.notes


def test_a_volume_that_is_not_there_is_refused(tmp_path: Path) -> None:
    one = write_nifti(tmp_path / "one.nii", VALUES, RAS)
    two = write_nifti(tmp_path / "two.nii", np.stack([VALUES, VALUES], axis=-1), RAS)

    with pytest.raises(StudyError, match="found a single volume, expected volume 1; name none"):
        read_nifti(one, volume=1)
    for number in (2, -1):
        with pytest.raises(
            StudyError,
            match=f"found 2 volumes, numbered from 0, expected volume {number}; name one from 0 to 1",
        ):
            read_nifti(two, volume=number)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_rgb24_is_read_as_colours(tmp_path: Path, suffix: str) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    packed = colours.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    path = write_nifti(tmp_path / f"colours{suffix}", packed, np.diag([-1.0, -1, 1, 1]))

    volume = read_nifti(path)

    assert (volume.read_plane(2).shape, volume.read_plane(2).dtype) == ((4, 3, 3), np.uint8)
    np.testing.assert_array_equal(volume.read_plane(2), colours[:, :, 2].swapaxes(0, 1))
    assert volume.read_stored([0]) is None
    assert (volume.study.modality, volume.unit) == ("OT", "")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.zeros((3, 4, 5, 1, 3), np.float32), "3x4x5x1x3: vectors"),
        (np.zeros((3, 4, 5, 2, 3), np.float32), "3x4x5x2x3: vectors"),
        (np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")]), "RGBA32"),
        (np.zeros((3, 4, 5), np.complex64), "complex64"),
        (np.zeros(7, np.int16), "claims 7 voxels"),
    ],
)
def test_what_is_not_one_volume_of_numbers_is_refused(tmp_path: Path, values: np.ndarray, found: str) -> None:
    path = write_nifti(tmp_path / "odd.nii.gz", values, RAS)

    with pytest.raises(StudyError, match=found):
        read_nifti(path)


def test_vectors_along_the_fourth_axis_are_refused_where_the_intent_says_so(tmp_path: Path) -> None:
    import nibabel

    image = nibabel.Nifti1Image(np.zeros((3, 4, 5, 3), np.float32), RAS)
    image.header.set_intent("vector")
    nibabel.save(image, tmp_path / "field.nii")

    with pytest.raises(StudyError, match="3x4x5x3: vectors"):
        read_nifti(tmp_path / "field.nii")


def test_an_analyze_header_is_refused_as_it_has_no_side(tmp_path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.AnalyzeImage(VALUES, None), tmp_path / "old.img")

    with pytest.raises(StudyError, match=r"Analyze 7\.5 header, which doesn't say where left is"):
        read_nifti(tmp_path / "old.hdr")


def test_a_pair_without_its_voxels_is_refused(tmp_path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Pair(VALUES, RAS), tmp_path / "lone.img")
    (tmp_path / "lone.img").unlink()

    with pytest.raises(StudyError, match=r"voxels should be in lone\.img, which is not there, expected"):
        read_nifti(tmp_path / "lone.hdr")


def test_whether_a_file_is_packed_is_seen_in_it_and_not_in_its_name(tmp_path: Path) -> None:
    plain = write_nifti(tmp_path / "plain.nii", VALUES, RAS)
    packed = write_nifti(tmp_path / "packed.nii.gz", VALUES, RAS)

    for path in (plain.rename(tmp_path / "a.nii.gz"), packed.rename(tmp_path / "b.nii")):
        assert in_lps(read_nifti(path)) == expected(VALUES, RAS)


def test_a_packed_pair_is_read(tmp_path: Path) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Pair(VALUES, RAS), tmp_path / "pair.img.gz")

    assert in_lps(read_nifti(tmp_path / "pair.hdr.gz")) == expected(VALUES, RAS)


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


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("packed", [False, True])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_header_gives_a_volume_or_one_of_our_errors(
    tmp_path: Path, version: int, packed: bool, data: st.DataObject
) -> None:
    import nibabel

    make = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    nibabel.save(make(VALUES, RAS), tmp_path / "whole.nii")
    damaged = data.draw(damages((tmp_path / "whole.nii").read_bytes(), within=560))
    path = tmp_path / ("damaged.nii.gz" if packed else "damaged.nii")
    path.write_bytes(gzip.compress(damaged) if packed else damaged)

    assert len(outcome(read_nifti, path).splitlines()) == 1


def test_a_slice_of_one_of_several_volumes_says_which(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "several.nii", np.zeros((4, 3, 2, 5), np.int16), np.eye(4))

    volume = read_nifti(path, volume=3)

    assert {plane.source for plane in volume.planes} == {
        FileImage(file="several.nii", index=k, volume=3) for k in (0, 1)
    }


@pytest.mark.parametrize(("lowest", "told"), [(-1024, False), (0, True)])
def test_values_that_may_be_no_hounsfield_units_are_told(tmp_path: Path, lowest: int, told: bool) -> None:
    values = np.full((4, 3, 2), lowest, np.int16)
    values[0] = 100
    path = write_nifti(tmp_path / "ct.nii", values, np.eye(4))

    volume = read_nifti(path, modality="CT")

    assert ("may be no Hounsfield units" in " ".join(volume.notes)) == told


def test_half_a_turn_is_not_tilted_by_what_rounding_left_of_the_quaternion(tmp_path: Path) -> None:
    sheared = np.diag([-1.0, -1.0, -1.0, 1.0])
    sheared[0, 2] = -0.15625
    path = write_nifti(tmp_path / "half.nii", np.zeros((4, 3, 2), np.int8), sheared)
    image = nibabel.load(path)
    image.set_qform(sheared, 1)
    image.set_sform(None, 0)
    nibabel.save(image, path)

    require_nibabels_places(path)
