"""Tests of `medmllm_plugin.transforms.voi`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_voi, apply_windowing

from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.stored_bits import Bits, value_table
from medmllm_plugin.transforms.voi import Padded, counted, padding_of, vois_of
from medmllm_plugin.transforms.window import Ramp
from tests.builders import write_ct_series


def a_header(**attributes: Any) -> Dataset:
    """A header with these attributes."""
    header = Dataset()
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return header


def a_lut(values: list[int] | bytes, *, first: int = 0, bits: int = 8, entries: int | None = None) -> Dataset:
    """An item of VOI LUT Sequence."""
    count = len(values) if entries is None else entries
    item = a_header(LUTExplanation="PATIENT^NAME")
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [count, first, bits])
    item.add_new("LUTData", "OW" if isinstance(values, bytes) else "US", values)
    return item


DATA = Path(os.environ.get("MEDMLLM_DATA", Path(__file__).parents[2] / "shared" / "data"))
MAMMOGRAM = DATA / "mammo_fodicom" / "GH133.dcm"

VALUES = np.linspace(-500, 900, 4001).astype(np.float32)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@given(center=st.floats(-300, 600), width=st.floats(2, 900))
def test_windows_are_those_of_pydicom_to_half_a_grey_level(
    function: str, center: float, width: float
) -> None:
    header = a_header(
        WindowCenter=f"{center:.6g}",
        WindowWidth=f"{width:.6g}",
        VOILUTFunction=function,
        BitsStored=8,
        PixelRepresentation=0,
        PhotometricInterpretation="MONOCHROME2",
    )

    (voi,) = vois_of([header])

    with np.errstate(over="ignore"):
        theirs = np.clip(apply_windowing(VALUES.astype(np.float64), header), 0, 255)
    assert np.abs(voi.grey(VALUES) - theirs).max() <= 0.501


def test_all_windows_are_offered_in_their_order_and_named_without_free_text() -> None:
    header = a_header(
        WindowCenter=[40, -600, 300],
        WindowWidth=[400, 1500, 0],
        WindowCenterWidthExplanation=["A", "LUNG", "B"],
    )

    soft, lung = vois_of([header])

    assert (soft.words, lung.words) == (
        "window 40/400 of the header (1 of 3)",
        "window -600/1500 of the header (2 of 3)",
    )
    assert lung.explanation == "LUNG"


def test_the_nearest_source_that_has_windows_gives_them_all() -> None:
    frame, header = a_header(WindowCenter=5, WindowWidth=10), a_header(WindowCenter=40, WindowWidth=400)

    assert [voi.words for voi in vois_of([frame, header])] == ["window 5/10 of the header"]


def test_a_lut_comes_before_windows_and_holds_beyond_its_ends() -> None:
    header = a_header(WindowCenter=40, WindowWidth=400, VOILUTSequence=[a_lut([10, 90, 200], first=5)])

    lut, window = vois_of([header])

    assert lut.grey(np.array([-9, 5, 6.4, 6.6, 99], np.float32)).tolist() == [10, 10, 90, 200, 200]
    assert lut.words == "VOI LUT of the header, 3 entries from 5"
    assert window.words == "window 40/400 of the header"


def test_a_lut_of_more_bits_is_scaled_to_white() -> None:
    header = a_header(VOILUTSequence=[a_lut([0, 512, 1023], bits=10)])

    (lut,) = vois_of([header])

    assert lut.grey(np.array([0, 1, 2], np.float32)).tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    "item",
    [
        a_lut(bytes([7, 8, 9, 0]), entries=3),
        a_lut(b"\7\0\x08\0\x09\0", entries=3),
        a_lut([7, 8, 9]),
    ],
    ids=["two to a word", "words", "numbers"],
)
def test_lut_data_is_read_however_it_is_stored(item: Dataset) -> None:
    (lut,) = vois_of([a_header(VOILUTSequence=[item])])

    assert lut.grey(np.array([0, 1, 2], np.float32)).tolist() == [7, 8, 9]


def test_the_first_value_of_a_lut_is_negative_where_values_may_be() -> None:
    item = a_lut([1, 2], first=64512)  # -1024, written as an unsigned number
    header = a_header(VOILUTSequence=[item], RescaleIntercept=-1024)

    (lut,) = vois_of([header])

    assert lut.grey(np.array([-1024, -1023], np.float32)).tolist() == [1, 2]


@pytest.mark.parametrize(
    "item",
    [a_lut([1, 2], entries=5), a_lut([1, 2], bits=40), a_header(LUTExplanation="no data"), a_lut(b"")],
)
def test_a_damaged_lut_is_left_out(item: Dataset) -> None:
    header = a_header(WindowCenter=40, WindowWidth=400, VOILUTSequence=[item])

    assert [voi.words for voi in vois_of([header])] == ["window 40/400 of the header"]


@pytest.mark.parametrize("kind", ["window", "SIGMOID", "LUT"])
def test_monochrome1_shows_the_lowest_value_white(kind: str) -> None:
    header = a_header(
        WindowCenter=50, WindowWidth=100, VOILUTFunction="SIGMOID" if kind == "SIGMOID" else "LINEAR"
    )
    if kind == "LUT":
        header.VOILUTSequence = [a_lut(list(range(0, 256, 5)))]
    values = np.arange(-100, 300, dtype=np.float32)

    right, inverted = vois_of([header])[0], vois_of([header], inverted=True)[0]

    assert (inverted.grey(values) == 255 - right.grey(values)).all()


@given(
    signed=st.booleans(),
    slope=st.sampled_from([1.0, 0.5, 3.7, -1.0]),
    intercept=st.integers(-2000, 100),
    padding=st.integers(0, 4095),
    limit=st.integers(0, 4095),
)
def test_exactly_the_padding_in_a_table_of_stored_values_is_not_counted(
    *, signed: bool, slope: float, intercept: int, padding: int, limit: int
) -> None:
    first, last = (v - 2048 if signed else v for v in sorted((padding, limit)))
    header = a_header(PixelRepresentation=int(signed))
    vr = "SS" if signed else "US"
    header.add_new("PixelPaddingValue", vr, last)
    header.add_new("PixelPaddingRangeLimit", vr, first)
    table = value_table(Bits(16, 12, 11, signed=signed), (slope, float(intercept)))

    counts = counted(table, padding_of([header], rescale=(slope, float(intercept))))

    stored = np.arange(4096) if not signed else (np.arange(4096) ^ 2048) - 2048
    assert np.array_equal(counts[:4096], (stored < first) | (stored > last))


def test_padding_written_with_the_wrong_sign_is_understood() -> None:
    header = a_header(PixelRepresentation=1)
    header.add_new("PixelPaddingValue", "US", 63536)

    assert padding_of([header], rescale=None) == (-2000, -2000)


@given(
    center=st.floats(allow_nan=False, allow_infinity=False),
    width=st.floats(allow_nan=False, allow_infinity=False),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "OTHER", ""]),
)
def test_any_window_is_usable_or_left_out(center: float, width: float, function: str) -> None:
    header = a_header(WindowCenter=f"{center:.9g}", WindowWidth=f"{width:.9g}", VOILUTFunction=function)

    for voi in vois_of([header]):
        grey = voi.grey(VALUES)
        assert grey.dtype == np.uint8
        assert (np.diff(grey.astype(int)) >= 0).all()


def test_padding_under_a_modality_lut_is_not_guessed() -> None:
    header = a_header(PixelPaddingValue=0, PixelRepresentation=0, ModalityLUTSequence=[Dataset()])

    assert padding_of([header], rescale=None) is None


@given(inverted=st.booleans(), low=st.integers(-50, 300), width=st.integers(0, 50))
def test_padding_is_black_and_all_else_as_it_was(*, inverted: bool, low: int, width: int) -> None:
    window = Ramp.of_window(100, 200, inverted=inverted)
    values = np.arange(-100, 400, dtype=np.float32)

    grey = Padded(grey=window, padding=(low, low + width))(values)

    padded = (values >= low) & (values <= low + width)
    assert (grey[padded] == 0).all()
    assert np.array_equal(grey[~padded], window(values)[~padded])


def test_a_plane_knows_its_padding_in_modality_values(tmp_path: Path) -> None:
    def change(k: int, dataset: Dataset) -> None:
        dataset.add_new("PixelPaddingValue", "US", 24)

    write_ct_series(tmp_path, slices=2, change=change)

    volume = read_volume([tmp_path])

    assert [plane.padding for plane in volume.planes] == [(-1000.0, -1000.0)] * 2
    assert not counted(np.asarray(volume.read_plane(0)[:1, :1], np.float32), volume.planes[0].padding).any()


@pytest.mark.skipif(not MAMMOGRAM.exists(), reason="the real images are not here (MEDMLLM_DATA)")
def test_the_ways_of_showing_a_real_mammogram_are_those_of_pydicom() -> None:
    dataset = dcmread(MAMMOGRAM)
    values = dataset.pixel_array[::8, ::8]

    vois = vois_of([dataset])

    assert len(vois) == 6
    for number in range(3):
        lut, window = vois[number], vois[3 + number]
        bits = dataset.VOILUTSequence[number].LUTDescriptor[2]
        theirs = apply_voi(values, dataset, index=number).astype(float) * 255 / (2**bits - 1)
        assert np.abs(lut.grey(values.astype(np.float32)) - theirs).max() <= 0.501
        theirs = apply_windowing(values, dataset, index=number) * 255 / (2**dataset.BitsStored - 1)
        assert np.abs(window.grey(values.astype(np.float32)) - theirs).max() <= 0.501
