"""Tests of `medmllm_plugin.transforms.metaimage`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmllm_plugin.errors import GeometryError, StudyError
from medmllm_plugin.transforms.metaimage import read_metaimage
from tests.voxel_files import TYPES, damages, directions, outcome, require_itks_places, write_metaimage

VALUES = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
PLACED = {
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "-10 -20 30",
    "ElementSpacing": "2 3 4",
}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    axes=directions(),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    matrix=st.sampled_from(["TransformMatrix", "Rotation", "Orientation"]),
    offset=st.sampled_from(["Offset", "Position", "Origin"]),
    step=st.sampled_from(["ElementSpacing", "ElementSize"]),
    kind=st.sampled_from(sorted(TYPES)),
    order=st.sampled_from("<>"),
    packed=st.booleans(),
    data=st.sampled_from(["LOCAL", "any.raw"]),
)
def test_places_and_values_are_those_of_simpleitk(
    tmp_path: Path,
    axes: np.ndarray,
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    matrix: str,
    offset: str,
    step: str,
    kind: str,
    order: str,
    packed: bool,
    data: str,
) -> None:
    values = np.random.default_rng(1).integers(0, 127, (3, 4, 5)).astype(order + kind)
    fields = {
        "CompressedData": str(packed),
        matrix: " ".join(repr(float(x)) for x in axes.T.ravel()),
        offset: " ".join(map(repr, origin)),
        step: " ".join(map(repr, spacing)),
    }
    name = "any.mha" if data == "LOCAL" else "any.mhd"
    path = write_metaimage(tmp_path / name, values, fields, data=data)

    require_itks_places(read_metaimage(path), path)


@pytest.mark.parametrize("packed", [False, True])
def test_what_simpleitk_writes_is_read(tmp_path: Path, packed: bool) -> None:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(VALUES)
    image.SetSpacing((2, 3, 4))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    for name in ("written.mha", "written.mhd"):
        path = tmp_path / name
        SimpleITK.WriteImage(image, str(path), packed)

        volume = read_metaimage(path)

        require_itks_places(volume, path)
        assert "AnatomicalOrientation" not in "\n".join(volume.notes)


@pytest.mark.parametrize("packed", ["False", "True"])
def test_of_several_volumes_the_first_or_the_one_named_is_read_and_told(tmp_path: Path, packed: str) -> None:
    values = np.arange(120, dtype=np.int16).reshape(3, 4, 5, 2)
    fields = {
        "TransformMatrix": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        "Offset": "-10 -20 30 0",
        "ElementSpacing": "2 3 4 1.5",
        "CompressedData": packed,
    }
    path = write_metaimage(tmp_path / "many.mha", values, fields)

    first, second = read_metaimage(path), read_metaimage(path, volume=1)

    np.testing.assert_array_equal(first.voxels(), values[..., 0].T)
    np.testing.assert_array_equal(second.voxels(), values[..., 1].T)
    assert "number 0 (counted from 0) was read, the first, as none was named" in "\n".join(first.notes)
    assert second.affine[:3, 3].tolist() == [-10, -20, 30]


def test_the_modality_of_the_file_is_believed_unless_one_is_given(tmp_path: Path) -> None:
    path = write_metaimage(tmp_path / "ct.mha", VALUES, {**PLACED, "Modality": "MET_MOD_CT"})

    volume, other = read_metaimage(path), read_metaimage(path, modality="MR")

    assert (volume.study.modality, volume.unit) == ("CT", "HU")
    assert "the file says that its modality is CT" in volume.notes
    assert (other.study.modality, other.unit) == ("MR", "")
    assert "the modality MR is the user's word: the file says CT" in other.notes


def test_an_anatomical_orientation_that_contradicts_the_directions_is_told(tmp_path: Path) -> None:
    right = write_metaimage(tmp_path / "right.mha", VALUES, {**PLACED, "AnatomicalOrientation": "RAI"})
    wrong = write_metaimage(tmp_path / "wrong.mha", VALUES, {**PLACED, "AnatomicalOrientation": "LPI"})

    assert "AnatomicalOrientation" not in "\n".join(read_metaimage(right).notes)
    assert (
        "AnatomicalOrientation says LPI, but the directions are RAI: the directions were used"
        in read_metaimage(wrong).notes
    )
    np.testing.assert_array_equal(read_metaimage(right).affine, read_metaimage(wrong).affine)


@pytest.mark.parametrize("missing", ["TransformMatrix", "Offset"])
def test_no_side_is_claimed_where_the_place_is_missing(tmp_path: Path, missing: str) -> None:
    volume = read_metaimage(write_metaimage(tmp_path / "any.mha", VALUES, {**PLACED, missing: ""}))

    assert {plane.to_patient is None for plane in volume.planes} == {True}
    assert volume.planes[0].spacing == (3, 2)
    assert "none is claimed" in "\n".join(volume.notes)


def test_a_picture_of_two_axes_has_no_place(tmp_path: Path) -> None:
    fields = {"TransformMatrix": "1 0 0 1", "Offset": "0 0", "ElementSpacing": "0.5 0.25"}

    volume = read_metaimage(write_metaimage(tmp_path / "flat.mha", VALUES[:, :, 0], fields))

    assert (len(volume), volume.planes[0].to_patient, volume.planes[0].spacing) == (1, None, (0.25, 0.5))


def test_colours_are_read_as_colours(tmp_path: Path) -> None:
    import SimpleITK

    colours = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), dtype=np.uint8)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(colours, isVector=True), str(tmp_path / "colours.mha"))

    np.testing.assert_array_equal(read_metaimage(tmp_path / "colours.mha").voxels(), colours)


def test_micrometres_become_millimetres(tmp_path: Path) -> None:
    fields = {**PLACED, "Offset": "-1e4 -2e4 3e4", "ElementSpacing": "2e3 3e3 4e3", "DistanceUnits": "um"}

    volume = read_metaimage(write_metaimage(tmp_path / "any.mha", VALUES, fields))

    np.testing.assert_allclose(
        volume.affine, read_metaimage(write_metaimage(tmp_path / "mm.mha", VALUES, PLACED)).affine
    )
    assert "the file counts in um; its places were turned into mm" in volume.notes


@pytest.mark.parametrize("skip", ["7", "-1"])
def test_bytes_before_the_voxels_are_skipped(tmp_path: Path, skip: str) -> None:
    path = write_metaimage(tmp_path / "any.mhd", VALUES, {**PLACED, "HeaderSize": skip}, data="any.raw")
    raw = tmp_path / "any.raw"
    raw.write_bytes(b"1234567" + raw.read_bytes())

    np.testing.assert_array_equal(read_metaimage(path).voxels(), VALUES.T)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"ElementType": "MET_STRING"}, "values of type 'MET_STRING'"),
        ({"BinaryData": "False"}, "values as text"),
        ({"ElementNumberOfChannels": "3"}, "vectors of 3 numbers"),
        ({"DimSize": "3 4"}, "claims 3x4 voxels"),
        ({"DimSize": "3 4 99999"}, "cut off"),
        ({"DimSize": "300000 300000 5"}, "claims 300000x300000x5 voxels"),
        ({"DimSize": "1000 1000 1000", "CompressedData": "True"}, "packed bytes that can't hold"),
        ({"ObjectType": "Mesh"}, "an object of type 'Mesh'"),
        ({"DistanceUnits": "inch"}, "the unit 'inch'"),
        ({"ElementToIntensityFunctionSlope": "2"}, "intensity function"),
        ({**PLACED, "Offset": "1 2"}, "2 numbers for a place, where 3"),
        ({**PLACED, "Offset": "1 2 nan"}, "3 numbers for a place"),
        ({**PLACED, "Offset": "1 2 x"}, r"damaged or cut off \(ValueError\)"),
    ],
)
def test_what_can_not_be_read_is_refused(tmp_path: Path, fields: dict[str, str], found: str) -> None:
    path = write_metaimage(tmp_path / "odd.mha", VALUES, fields)

    with pytest.raises(StudyError, match=found) as told:
        read_metaimage(path)

    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("../other.raw", "outside the folder"),
        ("other.raw", "which is not there"),
        ("LIST", "voxels in many files"),
        ("slice%03d.raw 1 5 1", "voxels in many files"),
    ],
)
def test_other_data_files_are_refused(tmp_path: Path, named: str, found: str) -> None:
    path = write_metaimage(tmp_path / "odd.mhd", VALUES, PLACED)
    path.write_bytes(path.read_bytes().split(b"LOCAL")[0] + named.encode())

    with pytest.raises(StudyError, match=found):
        read_metaimage(path)


def test_singular_directions_are_refused(tmp_path: Path) -> None:
    fields = {**PLACED, "TransformMatrix": "1 0 0 0 1 0 0 1 0"}

    with pytest.raises(GeometryError, match=r"odd\.mha: its affine is singular"):
        read_metaimage(write_metaimage(tmp_path / "odd.mha", VALUES, fields))


@pytest.mark.parametrize("packed", ["False", "True"])
@pytest.mark.parametrize("keep", [0.99, 0.7, 0.2, 0])
def test_a_truncated_file_is_refused_when_read(tmp_path: Path, packed: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    path = write_metaimage(tmp_path / "cut.mha", noise, {**PLACED, "CompressedData": packed})
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])

    with pytest.raises(StudyError, match=r"cut\.mha.*cut off"):
        read_metaimage(path)


@pytest.mark.parametrize("packed", ["False", "True"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_header_gives_a_volume_or_one_of_our_errors(
    tmp_path: Path, packed: str, data: st.DataObject
) -> None:
    whole = write_metaimage(tmp_path / "whole.mha", VALUES, {**PLACED, "CompressedData": packed}).read_bytes()
    path = tmp_path / "damaged.mha"
    path.write_bytes(data.draw(damages(whole, within=300)))

    assert len(outcome(read_metaimage, path).splitlines()) == 1
