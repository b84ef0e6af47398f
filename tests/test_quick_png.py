"""PNG files as any other program reads them."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from medmllm_plugin.models.quick_png import quick_png

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))


def read(png: bytes) -> tuple[str, NDArray[np.uint8]]:
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        return image.mode, np.asarray(image.convert("RGB"))


@given(arrays.arrays(np.uint8, SHAPES))
def test_no_pixel_is_lost(pixels: NDArray[np.uint8]) -> None:
    _, found = read(quick_png(pixels))

    np.testing.assert_array_equal(found, pixels)


def test_grey_is_stored_in_one_channel() -> None:
    grey = np.repeat(np.arange(40, dtype=np.uint8).reshape(5, 8, 1), 3, axis=2)
    colour = grey.copy()
    colour[4, 7, 2] += 1

    assert [read(quick_png(one))[0] for one in (grey, colour)] == ["L", "RGB"]


def test_pictures_cut_out_of_others_are_read_right() -> None:
    whole = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)

    for cut in (whole[::2, 3:20], whole[:, ::-1], whole.transpose(1, 0, 2)):
        np.testing.assert_array_equal(read(quick_png(cut))[1], cut)


def test_without_isal_the_picture_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    monkeypatch.setitem(sys.modules, "isal", None)

    np.testing.assert_array_equal(read(quick_png(pixels))[1], pixels)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (4, 4, 4), (0, 4, 3)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"a picture is uint8 \(rows, columns, 3\), got"):
        quick_png(np.zeros(shape, np.uint8))
