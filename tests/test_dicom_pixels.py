"""Stored bits become the values that the standard and pydicom say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import apply_modality_lut
from pydicom.uid import (
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms import compiled, dicom_pixels
from medmllm_plugin.transforms.codecs import decode_bits, decoder
from medmllm_plugin.transforms.quiet import quiet
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.stored_bits import Bits, value_table
from tests.builders import a_dataset, save, set_pixels, write_ct_series, write_enhanced_ct


@pytest.fixture(params=["compiled", "python"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs with the compiled reader and without it."""
    if request.param == "python":
        monkeypatch.setattr(compiled, "read", None)
    elif compiled.read is None:
        pytest.skip("transforms/_read.c was not built: no C compiler when the package was installed")


@given(
    stored=st.integers(1, 16),
    signed=st.booleans(),
    value=st.integers(-(1 << 15), (1 << 16) - 1),
    garbage=st.integers(0, (1 << 16) - 1),
)
def test_only_the_stored_bits_of_a_pattern_count(stored: int, signed: bool, value: int, garbage: int) -> None:
    low, high = (-(1 << stored - 1), (1 << stored - 1) - 1) if signed else (0, (1 << stored) - 1)
    value = max(low, min(high, value))
    mask = (1 << stored) - 1
    pattern = (value & mask) | (garbage & ~mask & 0xFFFF)

    table = value_table(Bits(16, stored, stored - 1, signed), None)

    assert table[pattern] == value


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm"]
)
@pytest.mark.usefixtures("route")
def test_values_are_those_of_pydicom(name: str) -> None:
    path = Path(str(get_testdata_file(name, download=False)))
    with quiet():
        dataset = dcmread(path)
        expected = apply_modality_lut(dataset.pixel_array, dataset).astype(np.float32)

    volume = read_volume([path])

    assert np.array_equal(volume.read_plane(0), expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.usefixtures("route")
def test_every_frame_of_a_file_is_read_from_its_own_offset(tmp_path: Path, bits: int, signed: bool) -> None:
    kind = np.dtype(f"{'i' if signed else 'u'}{bits // 8}")
    info = np.iinfo(kind)
    frames = np.random.default_rng(1).integers(info.min, info.max, (4, 6, 8), kind, endpoint=True)
    dataset = a_dataset(RescaleSlope=0.5, RescaleIntercept=-3)
    set_pixels(dataset, frames, bits=bits)
    path = save(dataset, tmp_path / "frames.dcm")

    volume = read_volume([path])
    stored = volume.read_stored([3, 1])

    assert stored is not None
    assert np.array_equal(stored.values(0), frames[3].astype(np.float32) * 0.5 - 3)
    assert np.array_equal(volume.read_plane(1), stored.values(1))


def test_planes_of_one_rescale_share_a_table(tmp_path: Path) -> None:
    volume = read_volume(write_ct_series(tmp_path))

    stored = volume.read_stored(range(5))

    assert stored is not None
    assert len({id(table) for table in stored.tables}) == 1


@pytest.mark.usefixtures("route")
def test_the_frames_of_an_enhanced_ct_are_stored_planes(tmp_path: Path) -> None:
    volume = read_volume([write_enhanced_ct(tmp_path / "enhanced.dcm")])

    stored = volume.read_stored(range(4))

    assert stored is not None
    assert np.array_equal(stored.values(2), volume.read_plane(2))


def test_colour_is_not_given_as_stored_planes(tmp_path: Path) -> None:
    dataset = a_dataset()
    set_pixels(dataset, np.zeros((4, 4, 3), np.uint8), photometric="RGB", bits=8)

    volume = read_volume([save(dataset, tmp_path / "colour.dcm")])

    assert volume.read_stored([0]) is None


@pytest.mark.usefixtures("route")
def test_a_file_cut_off_after_it_was_scanned_is_told(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path)
    volume = read_volume([tmp_path])
    paths[1].write_bytes(paths[1].read_bytes()[:-50])

    with pytest.raises(StudyError, match="cut off"):
        volume.read_stored([1])


@pytest.mark.usefixtures("route")
def test_a_file_gone_after_it_was_scanned_is_told(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path)
    volume = read_volume([tmp_path])
    paths[1].unlink()

    with pytest.raises(StudyError, match="can't be opened any more"):
        volume.read_plane(1)


def encoded(values: NDArray[Any], syntax: str) -> bytes:
    import imagecodecs

    if syntax == RLELossless:
        dataset = a_dataset()
        set_pixels(dataset, values, bits=16)
        dataset.compress(RLELossless, generate_instance_uid=False)
        return get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == JPEGLosslessSV1:
        return bytes(imagecodecs.jpeg8_encode(values, lossless=True, bitspersample=16, predictor=1))
    if syntax == JPEGLSLossless:
        return bytes(imagecodecs.jpegls_encode(values))
    if syntax == JPEG2000Lossless:
        return bytes(imagecodecs.jpeg2k_encode(values, reversible=True, codecformat="J2K"))
    return bytes(imagecodecs.htj2k_encode(values, reversible=True))


SYNTAXES = [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("stored", [12, 16])
def test_each_codec_gives_every_stored_bit_back(syntax: str, stored: int) -> None:
    pytest.importorskip("imagecodecs")
    values = np.random.default_rng(2).integers(0, 1 << stored, (32, 40), np.uint16)

    found = decode_bits(encoded(values, syntax), syntax, shape=(32, 40), allocated=16, stored=stored)

    assert np.array_equal(found, values)


def test_more_bits_than_are_stored_are_not_cut(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    data = encoded(np.full((4, 4), 5000, np.uint16), JPEGLSLossless)

    with pytest.raises(ValueError, match="12 bits are stored"):
        decode_bits(data, JPEGLSLossless, shape=(4, 4), allocated=16, stored=12)


def test_damaged_compressed_pixels_are_one_error_of_ours(tmp_path: Path) -> None:
    path = write_ct_series(tmp_path, slices=1, rows=32, columns=32)[0]
    dataset = dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    save(dataset, path)
    data = path.read_bytes()
    start = data.rindex(b"\xfe\xff\x00\xe0") + 8
    path.write_bytes(data[:start] + bytes([0xFF]) * 60 + data[start + 60 :])

    with pytest.raises(StudyError, match="can't be decoded"):
        read_volume([path])


def test_without_imagecodecs_pydicom_decodes_to_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_ct_series(tmp_path, slices=1, rows=32, columns=32)[0]
    expected = read_volume([path]).read_plane(0)
    dataset = dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    save(dataset, path)
    monkeypatch.setattr(dicom_pixels, "decoder", lambda syntax: None)

    volume = read_volume([path])

    assert np.array_equal(volume.read_plane(0), expected)
    assert "were decoded by pydicom" in " ".join(volume.notes)


def test_an_unknown_syntax_has_no_decoder() -> None:
    assert decoder("1.2.3") is None


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.102"])
def test_a_syntax_that_nothing_decodes_is_refused_by_its_uid(tmp_path: Path, syntax: str) -> None:
    path = write_ct_series(tmp_path, slices=1)[0]
    dataset = dcmread(path)
    dataset.PixelData = encapsulate([bytes(100)])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    placeholder = UID(syntax[:-3] + "100")
    dataset.file_meta.TransferSyntaxUID = placeholder
    dataset.save_as(path)
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), syntax.encode(), 1))

    with pytest.raises(StudyError, match=rf"\({re.escape(syntax)}\).*have it sent uncompressed"):
        read_volume([path])


def test_damaged_big_endian_files_are_not_given_to_simpleitk_which_takes_gigabytes_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import SimpleITK as sitk  # noqa: N813

    given: list[str] = []
    monkeypatch.setattr(sitk, "ReadImage", lambda path, **_: given.append(path))
    whole = Path(str(get_testdata_file("MR_small_bigendian.dcm", download=False))).read_bytes()
    path = tmp_path / "damaged.dcm"
    path.write_bytes(whole.replace(b"MONOCHROME2 ", b"MONOCHROME29"))
    volume = read_volume([path])

    with pytest.raises(StudyError, match="can't be decoded"):
        volume.read_plane(0)

    assert given == []


def test_the_compiled_reader_stops_at_the_first_stretch_that_is_not_there(tmp_path: Path) -> None:
    if compiled.read is None:
        pytest.skip("transforms/_read.c was not built: no C compiler when the package was installed")
    files = [tmp_path / str(n) for n in range(40)]
    for n, file in enumerate(files):
        file.write_bytes(bytes([n]) * 8)
    names = tuple(str(file).encode() for file in files)
    offsets, out = np.zeros(40, np.int64), np.zeros((40, 8), np.uint8)

    assert compiled.read.read_all(names, offsets, out) == 40
    assert out.tolist() == [[n] * 8 for n in range(40)]
    for wrong in (1, -1, 1 << 62):
        offsets[20] = wrong
        assert compiled.read.read_all(names, offsets, out) == 20
    assert compiled.read.read_all((b"/nowhere",), offsets[:1], out[:1]) == 0
    assert compiled.read.read_all((), offsets[:0], out[:0]) == 0
    for arguments in (
        (names, offsets[:1], out),
        (names[:3], offsets[:3], out),
        (("text",), offsets[:1], out),
    ):
        with pytest.raises((ValueError, TypeError)):
            compiled.read.read_all(*arguments)
