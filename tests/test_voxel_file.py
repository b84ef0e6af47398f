"""Tests of `medmllm_plugin.transforms.voxel_file`, through the reader of NIfTI."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms import voxel_file
from medmllm_plugin.transforms.nifti import read_nifti
from tests.builders import write_nifti

RAS = np.diag([2.0, 3.0, 4.0, 1.0])


def values(kind: str, shape: tuple[int, ...] = (3, 4, 5)) -> np.ndarray:
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return np.random.default_rng(0).normal(0, 100, shape).astype(dtype)
    limits = np.iinfo(dtype)
    picked = np.random.default_rng(0).integers(limits.min, limits.max, shape, np.int64, endpoint=True)
    picked.ravel()[:2] = limits.min, limits.max
    return picked.astype(dtype)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["i1", "u1", "<i2", ">i2", "<u2", ">u2"]),
    scaling=st.sampled_from([(1, 0), (0.1, -1024.3), (-2, 1e6), (3e38, 0), (np.nan, 0)]),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
    turned=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    ks=st.lists(st.integers(0, 4), max_size=7),
)
def test_planes_as_stored_give_the_values_of_read_plane(
    tmp_path: Path,
    kind: str,
    scaling: tuple[float, float],
    suffix: str,
    turned: list[int],
    signs: tuple[int, ...],
    ks: list[int],
) -> None:
    import nibabel

    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, turned] * signs
    order = kind[0] if kind[0] in "<>" else "<"
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(kind)
    nibabel.save(nibabel.Nifti1Image(values(kind), affine, header), tmp_path / "any.nii")
    content = bytearray((tmp_path / "any.nii").read_bytes())
    content[112:120] = np.array(scaling, f"{order}f4").tobytes()
    path = tmp_path / f"scaled{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    volume = read_nifti(path)

    stored = volume.read_stored(ks)

    assert stored is not None
    rows, columns = volume.planes[0].rows, volume.planes[0].columns
    assert (stored.raw.shape, stored.raw.dtype) == ((len(ks), rows, columns), np.uint16)
    assert stored.raw.flags.c_contiguous
    assert len({id(table) for table in stored.tables}) == min(1, len(ks))
    np.testing.assert_array_equal(volume.voxels(), np.stack([volume.read_plane(k) for k in range(5)]))
    for n, k in enumerate(ks):
        np.testing.assert_array_equal(stored.values(n), volume.read_plane(k))
        assert np.isfinite(stored.values(n)).all()


@pytest.mark.parametrize("kind", ["i4", "u4", "f4", "f8"])
def test_values_of_more_than_16_bits_have_no_table(tmp_path: Path, kind: str) -> None:
    volume = read_nifti(write_nifti(tmp_path / "any.nii", values(kind), RAS))

    assert volume.read_stored([0]) is None
    assert volume.voxels().dtype == np.float32


def test_only_the_planes_that_are_asked_for_are_read(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "any.nii", values("i2", (30, 40, 50)), RAS)
    volume = read_nifti(path, modality="MR")
    whole = volume.voxels()

    # the last 20 of 50 slices are lost behind our back
    path.write_bytes(path.read_bytes()[: 352 + 30 * 30 * 40 * 2])

    np.testing.assert_array_equal(volume.read_plane(29), whole[29])
    for read in (lambda: volume.read_plane(30), lambda: volume.read_stored([0, 30])):
        with pytest.raises(StudyError, match="cut off since it was opened"):
            read()


def test_a_header_that_claims_too_much_takes_no_memory(tmp_path: Path) -> None:
    small = write_nifti(tmp_path / "any.nii", values("i2"), RAS).read_bytes()
    claims = {"voxels": (32767, 32767, 32767), "slice": (32767, 32767, 1), "file": (1000, 1000, 500)}
    for name, shape in claims.items():
        for packed in (False, True):
            content = bytearray(small)
            content[42:48] = np.array(shape, "<i2").tobytes()
            path = tmp_path / (f"{name}.nii.gz" if packed else f"{name}.nii")
            path.write_bytes(gzip.compress(content) if packed else content)
            tracemalloc.start()

            with pytest.raises(StudyError, match="claims"):
                read_nifti(path)

            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 4 << 20


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nifti(tmp_path / "bomb.nii.gz", np.zeros((200, 200, 200), np.int16), RAS)
    monkeypatch.setattr(voxel_file, "SUSPECT", 1 << 20)

    with pytest.raises(StudyError, match="200x200x200 voxels: a decompression bomb, expected"):
        read_nifti(path)


def test_an_empty_mask_is_no_bomb(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "mask.nii.gz", np.zeros((200, 200, 200), np.uint8), RAS)

    assert not read_nifti(path).voxels().any()


def test_damaged_packed_voxels_are_told_by_their_checksum(tmp_path: Path) -> None:
    noise = values("i2", (20, 20, 20))
    content = bytearray(write_nifti(tmp_path / "whole.nii.gz", noise, RAS).read_bytes())
    content[-5] ^= 1
    path = tmp_path / "damaged.nii.gz"
    path.write_bytes(content)

    with pytest.raises(StudyError, match=r"damaged\.nii\.gz: found packed voxels that are damaged"):
        read_nifti(path)


def test_what_is_read_may_be_changed_without_changing_the_volume(tmp_path: Path) -> None:
    colours = values("u1", (3, 4, 5, 3)).view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    for array in (colours, values("f4"), values("i2")):
        # stored as it is shown, so that nothing has to be turned
        volume = read_nifti(write_nifti(tmp_path / "any.nii.gz", array, np.diag([-2.0, -3, 4, 1])))
        before = volume.read_plane(0).copy()

        volume.read_plane(0)[...] = 7

        np.testing.assert_array_equal(volume.read_plane(0), before)


def test_the_values_of_an_integer_file_are_looked_at_only_to_tell_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_nifti(tmp_path / "any.nii", values("i2"), RAS)
    read: list[int] = []
    each = voxel_file._Slices.each
    monkeypatch.setattr(voxel_file._Slices, "each", lambda self, ks: [read.extend(ks), each(self, ks)][1])

    read_nifti(path, modality="MR")
    assert read == []
    read_nifti(path)
    assert read == [0, 1, 2, 3, 4]
