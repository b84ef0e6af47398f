"""Compressed pixel data is looked at before any decoder takes memory for it."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms import dicom_pixels
from medmllm_plugin.transforms.encapsulated import claimed_shape, misfit_of, read_items
from medmllm_plugin.transforms.reading import read_volume
from tests.builders import save, write_ct_series
from tests.test_dicom_pixels import encoded

STREAMS = [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless]


def items(*contents: bytes) -> bytes:
    return b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(c)) + c for c in contents)


@pytest.mark.parametrize("syntax", STREAMS)
def test_a_stream_s_claim_is_the_shape_it_was_made_of(syntax: str) -> None:
    pytest.importorskip("imagecodecs")

    stream = encoded(np.zeros((32, 40), np.uint16), syntax)

    assert claimed_shape(stream) == (32, 40, 1)
    assert misfit_of(stream, rows=32, columns=40) == ""
    assert "32 x 40 x 1 where the header says 40 x 32" in misfit_of(stream, rows=40, columns=32)


def test_run_lengths_claim_nothing() -> None:
    assert claimed_shape(encoded(np.zeros((4, 4), np.uint16), RLELossless)) is None


@pytest.mark.parametrize("syntax", STREAMS)
def test_no_beginning_of_a_stream_is_misread(syntax: str) -> None:
    pytest.importorskip("imagecodecs")
    stream = encoded(np.zeros((32, 40), np.uint16), syntax)

    claims = {claimed_shape(stream[:length]) for length in range(200)}

    assert claims <= {None, (32, 40, 1)}


def test_items_are_walked_by_their_lengths() -> None:
    data = b"pad" + items(b"", b"abcd", b"ef") + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)

    found = read_items(io.BytesIO(data), 3, len(data), rows=1, columns=1)

    assert found == ((0, 4, 2), False, True, "")


def test_an_item_longer_than_the_file_is_cut() -> None:
    data = items(b"", b"abcd")[:-1]

    assert read_items(io.BytesIO(data), 0, len(data), rows=1, columns=1).cut


@pytest.mark.parametrize("with_imagecodecs", [True, False])
def test_a_stream_that_claims_another_size_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_imagecodecs: bool
) -> None:
    pytest.importorskip("imagecodecs")
    path = write_ct_series(tmp_path, slices=1, rows=32, columns=32)[0]
    dataset = dcmread(path)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    dataset.PixelData = dataset.PixelData.replace(b"\x00\x20\x00\x20", b"\xff\xff\xff\xff", 1)
    save(dataset, path)
    if not with_imagecodecs:
        monkeypatch.setattr(dicom_pixels, "decoder", lambda syntax: None)

    with pytest.raises(StudyError, match="65535 x 65535 x 1 where the header says 32 x 32"):
        read_volume([path])
