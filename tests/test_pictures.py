"""Pictures survive being a PNG, and a drawn box lies around its pixels."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from medmllm_plugin.pictures import BOX_COLOR, draw_box, png_bytes, thumbnail


@given(pixels=arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))))
def test_a_png_holds_exactly_the_pixels(pixels: NDArray[np.uint8]) -> None:
    with Image.open(io.BytesIO(png_bytes(pixels))) as image:
        back = np.asarray(image.convert("RGB"))

    assert np.array_equal(back, pixels)


def test_a_grey_picture_is_stored_with_one_channel_and_a_coloured_one_with_three() -> None:
    grey = np.full((4, 5, 3), 7, np.uint8)
    coloured = grey.copy()
    coloured[0, 0, 2] = 8

    modes = [Image.open(io.BytesIO(png_bytes(pixels))).mode for pixels in (grey, coloured)]

    assert modes == ["L", "RGB"]


def test_pictures_cut_out_of_others_are_stored_right() -> None:
    whole = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)

    for cut in (whole[::2, 3:20], whole[:, ::-1], whole.transpose(1, 0, 2)):
        with Image.open(io.BytesIO(png_bytes(cut))) as image:
            assert np.array_equal(np.asarray(image), cut)


def test_without_isal_the_picture_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    monkeypatch.setitem(sys.modules, "isal", None)

    with Image.open(io.BytesIO(png_bytes(pixels))) as image:
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_not_a_picture_is_refused(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"uint8 \(rows, columns, 3\)"):
        png_bytes(pixels)


@given(rows=st.integers(1, 300), columns=st.integers(1, 300), longest=st.integers(1, 300))
def test_a_thumbnail_fits_and_is_never_larger_than_the_picture(rows: int, columns: int, longest: int) -> None:
    small = thumbnail(np.zeros((rows, columns, 3), np.uint8), longest=longest)

    assert max(small.shape[:2]) == min(longest, max(rows, columns))
    assert min(small.shape[:2]) >= 1


def test_a_box_frames_its_pixels_and_leaves_them_and_the_original_alone() -> None:
    pixels = np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3).astype(np.uint8)
    before = pixels.copy()

    drawn = draw_box(pixels, column_min=10.4, row_min=20, column_max=15, row_max=29.5)

    assert np.array_equal(drawn[20:30, 10:15], before[20:30, 10:15])
    assert (drawn[19, 9:16] == BOX_COLOR).all()
    assert (drawn[30, 9:16] == BOX_COLOR).all()
    assert (drawn[19:31, 9] == BOX_COLOR).all()
    assert (drawn[19:31, 15] == BOX_COLOR).all()
    assert (drawn != before).any(axis=-1).sum() <= 2 * 7 + 2 * 10
    assert np.array_equal(pixels, before)


def test_a_box_at_the_edge_is_cut_to_the_picture() -> None:
    drawn = draw_box(np.zeros((10, 10, 3), np.uint8), column_min=0, row_min=0, column_max=10, row_max=5)

    assert (drawn[5] == BOX_COLOR).all()
    assert not drawn[:5].any()
