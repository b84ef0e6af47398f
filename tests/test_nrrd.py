"""Tests of `medmllm_plugin.transforms.nrrd`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmllm_plugin.errors import GeometryError, StudyError
from medmllm_plugin.transforms.nrrd import read_nrrd
from tests.voxel_files import TYPES, damages, directions, outcome, require_itks_places, write_nrrd

VALUES = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
PLACED = {
    "space": "left-posterior-superior",
    "space directions": "(2,0,0) (0,3,0) (0,0,4)",
    "space origin": "(-10,-20,30)",
}


def _placed(folder: Path) -> Path:
    return write_nrrd(folder / "placed.nrrd", VALUES, PLACED)


def vectors(columns: np.ndarray) -> str:
    return " ".join(f"({','.join(repr(float(x)) for x in column)})" for column in columns.T)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    axes=directions(),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    space=st.sampled_from(
        ["left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "LPS", "RAS", "LAS"]
    ),
    kind=st.sampled_from(sorted(TYPES)),
    order=st.sampled_from("<>"),
    encoding=st.sampled_from(["raw", "gzip"]),
    detached=st.booleans(),
)
def test_places_and_values_are_those_of_simpleitk(
    tmp_path: Path,
    axes: np.ndarray,
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    space: str,
    kind: str,
    order: str,
    encoding: str,
    detached: bool,
) -> None:
    values = np.random.default_rng(1).integers(0, 127, (3, 4, 5)).astype(order + kind)
    fields = {
        "space": space,
        "space directions": vectors(axes * spacing),
        "space origin": vectors(np.array([origin]).T),
        "kinds": "domain domain domain",
        "encoding": encoding,
    }
    name, data = ("any.nhdr", "any.raw") if detached else ("any.nrrd", None)
    path = write_nrrd(tmp_path / name, values, fields, data=data)

    require_itks_places(read_nrrd(path), path)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("kind", ["list", "vector", "time", "???"])
def test_an_axis_that_counts_is_split_wherever_it_stands(
    tmp_path: Path, place: int, encoding: str, kind: str
) -> None:
    values = np.arange(120, dtype=np.int16).reshape(3, 4, 5, 2)
    steps, kinds = ["(2,0,0)", "(0,3,0)", "(0,0,4)"], ["domain"] * 3
    steps.insert(place, "none")
    kinds.insert(place, kind)
    fields = {
        **PLACED,
        "space directions": " ".join(steps),
        "kinds": " ".join(kinds),
        "encoding": encoding,
    }
    path = write_nrrd(tmp_path / "many.nrrd", np.moveaxis(values, 3, place), fields)

    first, second = read_nrrd(path), read_nrrd(path, volume=1)

    np.testing.assert_array_equal(first.voxels(), values[..., 0].T)
    np.testing.assert_array_equal(second.voxels(), values[..., 1].T)
    assert (
        f"the file holds 2 volumes, along an axis of kind {kind}: number 1 (counted from 0) was read, "
        "as was asked for"
    ) in second.notes
    np.testing.assert_array_equal(first.affine, second.affine)
    assert first.affine[:3, 3].tolist() == [-10, -20, 30]


def test_gradient_images_are_magnetic_resonance(tmp_path: Path) -> None:
    fields = {
        **PLACED,
        "space directions": f"none {PLACED['space directions']}",
        "kinds": "list domain domain domain",
    }
    path = write_nrrd(tmp_path / "dwi.nrrd", np.zeros((6, 3, 4, 5), np.int16), fields)
    path.write_bytes(path.read_bytes().replace(b"# made for a test", b"modality:=DWMRI"))

    volume = read_nrrd(path)

    assert volume.study.modality == "MR"
    assert "6 volumes, along its gradient directions" in "\n".join(volume.notes)


def test_a_space_with_time_is_split_along_time(tmp_path: Path) -> None:
    values = np.arange(120, dtype=np.int16).reshape(3, 4, 5, 2)
    fields = {
        "space": "right-anterior-superior-time",
        "space directions": "(2,0,0,0) (0,3,0,0) (0,0,4,0) (0,0,0,1.5)",
        "space origin": "(-10,-20,30,0)",
        "kinds": "domain domain domain time",
    }
    path = write_nrrd(tmp_path / "time.nrrd", values, fields)

    volume = read_nrrd(path, volume=1)

    np.testing.assert_array_equal(volume.voxels(), values[::-1, ::-1, :, 1].T)
    assert volume.affine[:3, :3].tolist() == np.diag([2, 3, 4]).tolist()
    assert volume.affine[:3, 3].tolist() == [10 - 2 * 2, 20 - 3 * 3, 30]


def test_a_list_of_flat_pictures_is_split(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    fields = {**PLACED, "space directions": "(2,0,0) none (0,3,0)", "kinds": "domain list domain"}
    path = write_nrrd(tmp_path / "flat.nrrd", values, fields)

    volume = read_nrrd(path, volume=2)

    np.testing.assert_array_equal(volume.voxels()[0], values[:, 2].T)
    matrix = volume.planes[0].to_patient
    assert matrix is not None
    assert (matrix @ [1, 1, 0, 1]).tolist() == [-8, -17, 30, 1]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "the file names no space"),
        ({"space dimension": "3", **PLACED, "space": ""}, "the file names no space"),
        ({**PLACED, "space": "scanner-xyz"}, r"its space \(scanner-xyz\) doesn't say where left is"),
        ({**PLACED, "space": "3D-right-handed"}, "doesn't say where left is"),
        ({**PLACED, "space origin": ""}, "names no origin"),
    ],
)
def test_no_side_is_claimed_where_the_space_is_unknown(
    tmp_path: Path, fields: dict[str, str], told: str
) -> None:
    fields = {"spacings": "2 3 4", **fields}

    volume = read_nrrd(write_nrrd(tmp_path / "any.nrrd", VALUES, fields))

    assert {plane.to_patient is None for plane in volume.planes} == {True}
    assert volume.planes[0].spacing == (3, 2)
    np.testing.assert_array_equal(volume.voxels(), VALUES.T)
    assert re.search(told, "\n".join(volume.notes))


def test_a_picture_of_two_axes_has_no_place(tmp_path: Path) -> None:
    fields = {"space dimension": "2", "space directions": "(0.5,0) (0,0.25)", "space origin": "(0,0)"}

    volume = read_nrrd(write_nrrd(tmp_path / "flat.nrrd", VALUES[:, :, 0], fields))

    assert (len(volume), volume.planes[0].to_patient, volume.planes[0].spacing) == (1, None, (0.25, 0.5))


def test_colours_are_read_as_colours(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 6), dtype=np.uint8)
    fields = {
        **PLACED,
        "space directions": f"none {PLACED['space directions']}",
        "kinds": "RGB-color domain domain domain",
    }

    volume = read_nrrd(write_nrrd(tmp_path / "colours.nrrd", colours, fields))

    np.testing.assert_array_equal(volume.voxels(), colours.transpose(3, 2, 1, 0))
    assert volume.voxels().dtype == np.uint8


@pytest.mark.parametrize(
    ("unit", "scale"), [("mm", 1), ("m", 1000), ("um", 0.001), ("cm", 10), ("micrometers", 0.001)]
)
def test_places_become_millimetres(tmp_path: Path, unit: str, scale: float) -> None:
    fields = {
        "space": "LPS",
        "space directions": vectors(np.diag([2.0, 3, 4]) / scale),
        "space origin": vectors(np.array([[-10.0], [-20], [30]]) / scale),
        "space units": " ".join([f'"{unit}"'] * 3),
    }

    volume = read_nrrd(write_nrrd(tmp_path / "any.nrrd", VALUES, fields))

    np.testing.assert_allclose(volume.affine, read_nrrd(_placed(tmp_path)).affine)
    assert ("turned into mm" in "\n".join(volume.notes)) == (unit != "mm")


@pytest.mark.parametrize("skip", ["7", "-1"])
def test_bytes_before_the_voxels_are_skipped(tmp_path: Path, skip: str) -> None:
    path = write_nrrd(tmp_path / "any.nhdr", VALUES, {**PLACED, "byte skip": skip}, data="any.raw")
    raw = tmp_path / "any.raw"
    raw.write_bytes(b"1234567" + raw.read_bytes())

    np.testing.assert_array_equal(read_nrrd(path).voxels(), VALUES.T)


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"type": "block"}, "values of type 'block'"),
        ({"encoding": "hex"}, "the encoding 'hex'"),
        ({"endian": ""}, "whose order"),
        ({"sizes": "3 4"}, "claims sizes '3 4'"),
        ({"sizes": "3 4 0"}, "claims sizes '3 4 0'"),
        ({"sizes": "3 4 99999"}, "cut off"),
        ({"sizes": "300000 300000 5"}, "claims 300000x300000x5 voxels"),
        ({"kinds": "domain domain"}, "2 kinds of 3 axes"),
        ({"kinds": "3-vector domain domain"}, "2 axes in space|an axis of kind 3-vector"),
        ({**PLACED, "space units": '"mm" "mm" "inch"'}, "space units mm, mm, inch"),
        ({"line skip": "2"}, "line skip"),
        ({"data file": "../other.raw"}, "outside the folder"),
        ({"data file": "LIST"}, "'LIST', which is not there"),
    ],
)
def test_what_can_not_be_read_is_refused(tmp_path: Path, fields: dict[str, str], found: str) -> None:
    path = write_nrrd(tmp_path / "odd.nrrd", VALUES, fields)

    with pytest.raises(StudyError, match=found) as told:
        read_nrrd(path)

    assert "\n" not in str(told.value)


def test_singular_directions_are_refused(tmp_path: Path) -> None:
    fields = {**PLACED, "space directions": "(2,0,0) (0,3,0) (0,1,0)"}

    with pytest.raises(GeometryError, match=r"odd\.nrrd: its affine is singular"):
        read_nrrd(write_nrrd(tmp_path / "odd.nrrd", VALUES, fields))


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@pytest.mark.parametrize("keep", [0.99, 0.7, 0.2, 0])
def test_a_truncated_file_is_refused_when_read(tmp_path: Path, encoding: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    path = write_nrrd(tmp_path / "cut.nrrd", noise, {**PLACED, "encoding": encoding})
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])

    with pytest.raises(StudyError, match=r"cut\.nrrd: found .*"):
        read_nrrd(path)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_header_gives_a_volume_or_one_of_our_errors(
    tmp_path: Path, encoding: str, data: st.DataObject
) -> None:
    whole = write_nrrd(tmp_path / "whole.nrrd", VALUES, {**PLACED, "encoding": encoding}).read_bytes()
    path = tmp_path / "damaged.nrrd"
    path.write_bytes(data.draw(damages(whole, within=300)))

    assert len(outcome(read_nrrd, path).splitlines()) == 1
