"""Tests of `medmllm_plugin.transforms.window`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.transforms.window import PRESETS, apply_range, apply_window, preset


def of_the_standard(x: float, *, center: float, width: float) -> float:
    """PS3.3 C.11.2.1.2.1 with an output of 0 to 255, word for word, without rounding."""
    if x <= center - 0.5 - (width - 1) / 2:
        return 0.0
    if x > center - 0.5 + (width - 1) / 2:
        return 255.0
    return ((x - (center - 0.5)) / (width - 1) + 0.5) * 255


@settings(deadline=None)
@given(
    x=st.floats(-3000, 4000, width=32),
    center=st.floats(-1000, 1000),
    width=st.floats(2, 4000),
)
def test_a_grey_level_is_that_of_the_standard(x: float, center: float, width: float) -> None:
    level = apply_window(np.array([x], np.float32), center=center, width=width)[0]

    assert float(level) == pytest.approx(of_the_standard(x, center=center, width=width), abs=0.52)


def test_it_agrees_with_pydicom() -> None:
    from pydicom.dataset import Dataset
    from pydicom.pixels.processing import apply_windowing

    header = Dataset()
    header.PhotometricInterpretation, header.BitsStored, header.PixelRepresentation = "MONOCHROME2", 8, 0
    header.WindowCenter, header.WindowWidth = 100, 80
    values = np.arange(256, dtype=np.uint8)

    ours = apply_window(values.astype(np.float32), center=100, width=80)

    assert np.abs(ours - apply_windowing(values, header)).max() <= 0.5


def test_a_width_of_1_splits_just_above_half_below_the_center() -> None:
    values = np.array([38, 39, 39.5, 39.6, 40, 41], np.float32)

    assert apply_window(values, center=40, width=1).tolist() == [0, 0, 0, 255, 255, 255]


@pytest.mark.parametrize("width", [0.5, 0, -400])
def test_a_width_below_1_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        apply_window(np.zeros(1, np.float32), center=0, width=width)


def test_what_is_no_number_is_black_and_infinities_are_at_the_ends() -> None:
    values = np.array([np.nan, -np.inf, np.inf], np.float32)

    assert apply_window(values, center=40, width=400).tolist() == [0, 0, 255]


def test_monochrome1_shows_the_lowest_value_white() -> None:
    values = np.linspace(-200, 300, 50, dtype=np.float32)

    plain = apply_window(values, center=40, width=400)
    inverted = apply_window(values, center=40, width=400, inverted=True)

    assert (inverted[0], inverted[-1]) == (255, 0)
    assert (plain + inverted == 255).all()


def test_values_are_left_as_they_were() -> None:
    values = np.array([np.nan, 1.0], np.float32)

    apply_window(values, center=0, width=10)

    assert np.isnan(values[0])


def test_a_range_of_tiny_values_uses_all_grey_levels() -> None:
    values = np.array([0, 5e-10, 1e-9], np.float32)

    assert apply_range(values, low=0, high=1e-9).tolist() == [0, 128, 255]


def test_an_image_of_one_value_is_black() -> None:
    assert apply_range(np.full(4, 7, np.float32), low=7, high=7).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_one_or_three_usable_windows_and_names_their_numbers(name: str) -> None:
    one = preset(name)

    assert len(one.windows) in (1, 3)
    assert all(width >= 1 for _, width in one.windows)
    assert one.name == name
    assert "HU" in one.words


def test_the_ct_preset_tells_lung_soft_tissue_and_brain_apart() -> None:
    (lung, soft, brain) = preset("ct").windows

    assert apply_window(np.array([-1000, -850, 40], np.float32), center=lung[0], width=lung[1])[1] > 60
    assert apply_window(np.array([-160, 40, 240], np.float32), center=soft[0], width=soft[1]).tolist() == [
        0,
        128,
        255,
    ]
    assert apply_window(np.array([0, 80], np.float32), center=brain[0], width=brain[1]).tolist() == [0, 255]


def test_an_unknown_window_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"'lungs'; there are: ct, .*percentile, header"):
        preset("lungs")
