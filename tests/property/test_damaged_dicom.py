"""Whatever is done to a DICOM file, reading it gives a volume or one of our errors, in bounded memory."""

from __future__ import annotations

import logging
import shutil
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from medmllm_plugin.errors import MedMLLMError
from medmllm_plugin.transforms.reading import read_volume
from tests.builders import save, write_ct_series, write_enhanced_ct

MEMORY = 200 << 20
"""Most bytes that reading one of these files, all below 200 kB, may take."""

BUNDLED = (
    *("CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "JPEG2000.dcm", "JPEG-lossy.dcm"),
    *("SC_rgb_rle_2frame.dcm", "image_dfl.dcm", "examples_palette.dcm", "liver_1frame.dcm", "test-SR.dcm"),
)


@cache
def originals() -> dict[str, bytes]:
    """Whole files of many kinds, by name."""
    found = {name: Path(str(get_testdata_file(name, download=False))).read_bytes() for name in BUNDLED}
    with tempfile.TemporaryDirectory() as folder:
        path = write_ct_series(Path(folder), slices=1, rows=32, columns=32)[0]
        found["native"] = path.read_bytes()
        for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
            dataset = dcmread(path)
            dataset.compress(syntax, generate_instance_uid=False)
            found[str(syntax)] = save(dataset, Path(folder) / "compressed.dcm").read_bytes()
        found["enhanced"] = write_enhanced_ct(Path(folder) / "enhanced.dcm").read_bytes()
    return found


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file with bytes changed, cut out or doubled, most of them in its header."""
    name = draw(st.sampled_from(sorted(originals())))
    data = bytearray(originals()[name])
    header = min(len(data) - 1, 4000)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, header) | st.integers(0, len(data) - 1))
        at = min(at, len(data) - 1)
        match draw(st.sampled_from(["byte", "number", "cut", "double", "end"])):
            case "byte":
                data[at] = draw(st.integers(0, 255))
            case "number":
                count = draw(st.sampled_from([2, 4]))
                data[at : at + count] = draw(st.sampled_from([0, 1, 0x7F, 0xFF])).to_bytes(1, "big") * count
            case "cut":
                del data[at : at + draw(st.integers(1, 64))]
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case "end":
                del data[max(at, 140) :]
        if len(data) < 2:
            break
    return bytes(data)


@pytest.fixture(autouse=True)
def silent_libraries() -> Iterator[None]:
    """What pydicom logs of these files would bury what a failure says."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < MEMORY


@settings(max_examples=250, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])
@given(data=damaged())
def test_a_damaged_file_gives_a_volume_or_one_of_our_errors(data: bytes) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "damaged.dcm"
        path.write_bytes(data)
        with bounded_memory():
            try:
                volume = read_volume([path])
                planes = [volume.read_plane(k) for k in range(min(3, len(volume)))]
            except MedMLLMError:
                return
        for k, plane in enumerate(planes):
            assert plane.shape[:2] == (volume.planes[k].rows, volume.planes[k].columns)
            matrix = volume.planes[k].to_patient
            assert matrix is None or (np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 0)
    finally:
        shutil.rmtree(folder)


@cache
def series() -> tuple[bytes, ...]:
    """The files of a plain series of three slices."""
    with tempfile.TemporaryDirectory() as folder:
        return tuple(path.read_bytes() for path in write_ct_series(Path(folder), slices=3))


@settings(max_examples=60, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])
@given(changes=st.lists(st.tuples(st.integers(132, 1 << 16), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_series_with_a_damaged_file_gives_a_volume_or_one_of_our_errors(
    changes: list[tuple[int, int]],
) -> None:
    first, second, third = series()
    damaged = bytearray(second)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    folder = Path(tempfile.mkdtemp())
    try:
        for name, data in (("1", first), ("2", damaged), ("3", third)):
            (folder / name).write_bytes(data)
        with bounded_memory():
            try:
                volume = read_volume([folder])
                voxels = volume.voxels()
            except MedMLLMError:
                return
        assert len(voxels) == len(volume) <= 3
    finally:
        shutil.rmtree(folder)
