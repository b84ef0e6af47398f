"""Tests of `medmllm_plugin.transforms.slices`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.geometry import apply
from medmllm_plugin.transforms.slices import SlicePlan, evenly, picture_shape, scale_matrix
from medmllm_plugin.transforms.window import apply_window
from tests.values import a_volume


def a_ramp(low: float, high: float, *, rows: int = 56, columns: int = 56) -> Any:
    values = np.linspace(low, high, rows * columns, dtype=np.float32).reshape(rows, columns)
    return lambda k: values


def test_only_the_chosen_slices_are_decoded_and_each_picture_cites_its_own() -> None:
    decoded: list[int] = []

    def values(k: int) -> np.ndarray:
        decoded.append(k)
        return np.full((56, 56), k, np.float32)

    volume = a_volume(9, values=values)

    shown = SlicePlan(count=3, size=56).apply(volume)

    assert decoded == [0, 4, 8]
    assert [one.source for one in shown.slices] == [volume.planes[k].source for k in (0, 4, 8)]


def test_progress_goes_up_to_the_number_of_pictures() -> None:
    told: list[tuple[int, int]] = []

    SlicePlan(count=3, size=56).apply(a_volume(9), progress=lambda done, total: told.append((done, total)))

    assert told == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("rows", "columns", "spacing", "shape"),
    [
        (512, 512, (0.7, 0.7), (448, 448)),
        (256, 512, (0.7, 0.7), (224, 448)),
        (100, 100, (4.0, 1.0), (448, 112)),
        (512, 512, (1.0, 0.5), (448, 224)),
        (3000, 20, (0.1, 0.1), (448, 28)),
    ],
)
def test_a_picture_has_the_true_aspect(
    rows: int, columns: int, spacing: tuple[float, float], shape: tuple[int, int]
) -> None:
    plane = a_volume(1, rows=rows, columns=columns, spacing=spacing).planes[0]

    assert picture_shape(plane, size=448) == shape


def test_a_picture_of_the_same_size_is_the_windowed_slice_itself() -> None:
    values = a_ramp(-1000, 500)

    one = SlicePlan(count=1, size=56, window="ct-lung").apply(a_volume(1, values=values)).picture(1)

    expected = apply_window(values(0), center=-600, width=1500)
    assert np.array_equal(one.pixels, np.stack([expected] * 3, axis=-1))
    assert np.array_equal(one.to_source, np.eye(3))


def test_a_ct_shows_three_windows_as_colours() -> None:
    values = a_ramp(-1000, 500)

    one = SlicePlan(count=1, size=56).apply(a_volume(1, values=values)).picture(1)

    for channel, (center, width) in enumerate(((-600, 1500), (40, 400), (40, 80))):
        assert np.array_equal(one.pixels[..., channel], apply_window(values(0), center=center, width=width))
    assert "red lung -600/1500" in one.window


def test_an_mr_shows_its_percentiles_the_same_in_every_picture() -> None:
    volume = a_volume(
        2, modality="MR", unit="", values=lambda k: np.full((56, 56), (100, 300)[k], np.float32)
    )

    shown = SlicePlan(count=2, size=56).apply(volume)

    assert [int(one.pixels[0, 0, 0]) for one in shown.slices] == [0, 255]
    assert "percentile 0.5 (100) to 99.5 (300)" in shown.plan


def test_values_that_are_no_numbers_do_not_darken_the_rest() -> None:
    values = np.linspace(0, 100, 56 * 56, dtype=np.float32).reshape(56, 56)
    values[:8] = np.nan

    one = SlicePlan(count=1, size=56).apply(a_volume(1, modality="MR", unit="", values=lambda k: values))

    assert one.picture(1).pixels[:8].max() == 0
    assert one.picture(1).pixels[-1].min() > 240


def test_a_picture_without_any_number_is_black() -> None:
    values = np.full((56, 56), np.nan, np.float32)

    shown = SlicePlan(count=1, size=56).apply(a_volume(1, modality="MR", unit="", values=lambda k: values))

    assert shown.picture(1).pixels.max() == 0


@pytest.mark.parametrize("inverted", [False, True])
def test_a_radiograph_shows_the_window_of_its_header_right_way_round(inverted: bool) -> None:
    values = a_ramp(0, 1000)
    volume = a_volume(
        1, modality="CR", unit="", placed=False, window=(500, 800), inverted=inverted, values=values
    )

    one = SlicePlan(count=1, size=56).apply(volume).picture(1)

    assert one.window == "window of the header"
    assert one.to_patient is None
    assert np.array_equal(
        one.pixels[..., 0], apply_window(values(0), center=500, width=800, inverted=inverted)
    )


def test_a_monochrome1_image_without_a_window_is_inverted_too() -> None:
    volume = a_volume(1, modality="CR", unit="", placed=False, inverted=True, values=a_ramp(0, 1000))

    pixels = SlicePlan(count=1, size=56).apply(volume).picture(1).pixels

    assert pixels[0, 0, 0] == 255
    assert pixels[-1, -1, 0] == 0


def test_colours_stay_as_they_are_stored() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (56, 56, 3), dtype=np.uint8)

    one = SlicePlan(count=1, size=56).apply(a_volume(1, modality="US", unit="", values=lambda k: colours))

    assert np.array_equal(one.picture(1).pixels, colours)
    assert one.picture(1).window == "colours as stored"


@pytest.mark.parametrize(
    ("source", "picture"), [((512, 512), (448, 448)), ((56, 56), (448, 448)), ((100, 30), (28, 84))]
)
def test_the_matrix_of_a_resize_maps_edges_to_edges(
    source: tuple[int, int], picture: tuple[int, int]
) -> None:
    matrix = scale_matrix(source=source, picture=picture)

    edges = apply(matrix, [[-0.5, -0.5], [picture[1] - 0.5, picture[0] - 0.5]])

    np.testing.assert_allclose(edges, [[-0.5, -0.5], [source[1] - 0.5, source[0] - 0.5]], atol=1e-9)


@pytest.mark.parametrize(("rows", "columns", "size"), [(512, 300, 112), (60, 80, 448), (97, 41, 200)])
def test_a_resized_picture_shows_an_edge_where_its_matrix_says(rows: int, columns: int, size: int) -> None:
    edge = columns // 3
    values = np.full((rows, columns), -2000, np.float32)
    values[:, edge:] = 2000
    volume = a_volume(1, rows=rows, columns=columns, values=lambda k: values)

    one = SlicePlan(count=1, size=size, window="ct-soft-tissue").apply(volume).picture(1)

    row = one.pixels[one.pixels.shape[0] // 2, :, 0].astype(float)
    first = int(np.argmax(row >= 127.5))
    seen = first - 1 + (127.5 - row[first - 1]) / (row[first] - row[first - 1])
    expected = apply(np.linalg.inv(one.to_source), [edge - 0.5, 0])[0]
    assert seen == pytest.approx(expected, abs=0.25)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"count": 0}, "number of slices is 0"),
        ({"count": 513}, "number of slices is 513"),
        ({"size": 27}, "picture size is 27"),
        ({"size": 5000}, "picture size is 5000"),
        ({"window": "lungs"}, "no window is named 'lungs'"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        SlicePlan(**settings)


def test_a_ct_window_on_other_values_is_refused_with_the_way_out() -> None:
    volume = a_volume(1, modality="MR", unit="")

    with pytest.raises(SettingsError, match=r"needs Hounsfield units.*MR.*--window percentile"):
        SlicePlan(count=1, size=56, window="ct-lung").apply(volume)


@pytest.mark.parametrize(("total", "count"), [(0, 3), (3, 0)])
def test_slices_are_counted_from_1(total: int, count: int) -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        evenly(total, count)


def test_the_plan_says_in_words_what_was_done() -> None:
    shown = SlicePlan(count=3, size=56).apply(a_volume(9))

    assert shown.plan.startswith("3 of 9 slices, evenly spaced, longer side 56 px; CT windows as colours")
