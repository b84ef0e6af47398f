"""Tests of `medmllm_plugin.transforms.nifti`."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmllm_plugin.geometry import orientation_letters
from medmllm_plugin.source import FileImage
from medmllm_plugin.transforms.nifti import read_nifti
from tests.builders import write_nifti
from tests.nifti_places import RAS, VALUES, expected, in_lps, require_nibabels_places


def test_what_rounding_left_of_half_a_turn_is_taken_as_nibabel_takes_it(tmp_path: Path) -> None:
    affine = np.array([[1, 0.125, 0, 0], [0, -1, 0.2578125, 0], [-0.25, 0.21875, -1.125, 0], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(VALUES, None)
    image.header.set_qform(affine, code=1, strip_shears=True)
    image.header.set_sform(None, code=0)
    nibabel.save(image, tmp_path / "any.nii")

    require_nibabels_places(tmp_path / "any.nii")


ORDERS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product([-1, 1], repeat=3)
]
"""The 48 ways to store a volume along the axes of the patient."""


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_every_voxel_keeps_its_place_however_it_is_stored(
    tmp_path: Path, order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * signs * [2, 3, 4]
    affine[:3, 3] = (-10, 20, 30)
    path = write_nifti(tmp_path / "any.nii", VALUES, affine)

    volume = read_nifti(path)

    assert in_lps(volume) == expected(VALUES, affine)
    positions = [p.to_patient[:3, 3] @ p.to_patient[:3, 2] for p in volume.planes if p.to_patient is not None]
    assert positions == sorted(positions)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Any storage order, turned, sheared and stretched: (i, j, k, 1) to RAS mm."""
    numbers = st.floats(-0.3, 0.3)
    shear = np.eye(3) + np.reshape(draw(st.lists(numbers, min_size=9, max_size=9)), (3, 3))
    order, signs = draw(st.sampled_from(ORDERS))
    affine = np.eye(4)
    affine[:3, :3] = shear @ (np.eye(3)[:, order] * signs * draw(st.tuples(*[st.floats(0.3, 6)] * 3)))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    affine=affines(),
    kind=st.sampled_from(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]),
    order=st.sampled_from("<>"),
    volumes=st.sampled_from([None, 1, 3]),
    scaling=st.sampled_from([(1, 0), (0.5, -7), (-3, 2.5), (np.nan, np.nan), (0, 5)]),
    version=st.sampled_from([1, 2]),
    name=st.sampled_from(["any.nii", "any.nii.gz", "any.hdr"]),
    qform=st.booleans(),
)
def test_places_and_values_are_those_of_nibabel(
    tmp_path: Path,
    affine: np.ndarray,
    kind: str,
    order: str,
    volumes: int | None,
    scaling: tuple[float, float],
    version: int,
    name: str,
    qform: bool,
) -> None:
    import nibabel

    single = name != "any.hdr"
    make = {
        (1, True): nibabel.Nifti1Image,
        (2, True): nibabel.Nifti2Image,
        (1, False): nibabel.Nifti1Pair,
        (2, False): nibabel.Nifti2Pair,
    }[version, single]
    shape = (3, 4, 5) if volumes is None else (3, 4, 5, volumes)
    values = np.random.default_rng(1).integers(0, 127, shape).astype(order + kind)
    header = make.header_class(endianness=order)
    header.set_data_dtype(values.dtype)
    header.set_data_shape(shape)
    header.set_sform(affine, code=0 if qform else 4)
    header.set_qform(affine, code=1 if qform else 0, strip_shears=True)
    header["scl_slope"], header["scl_inter"] = scaling
    offset = header["vox_offset"] = (544 if version == 2 else 352) if single else 0
    head = header.binaryblock.ljust(int(offset), b"\0")
    content = head + values.tobytes(order="F")
    if single:
        packed = gzip.compress(content, 1) if name.endswith(".gz") else content
        (tmp_path / name).write_bytes(packed)
    else:
        (tmp_path / name).write_bytes(head)
        (tmp_path / "any.img").write_bytes(values.tobytes(order="F"))

    require_nibabels_places(tmp_path / name, number=(volumes or 1) - 1)


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
