"""Tests of `medmllm_plugin.transforms.slices`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.geometry import apply
from medmllm_plugin.transforms.crop import picture_shape, scale_matrix
from medmllm_plugin.transforms.slices import SlicePlan
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


def test_an_mr_s_percentiles_are_of_the_whole_volume_even_where_only_a_part_is_shown() -> None:
    volume = a_volume(
        20, modality="MR", unit="", values=lambda k: np.full((56, 56), 100 + 10 * k, np.float32)
    )

    few = SlicePlan(count=2, size=56, window="percentile", select="numbers:1/2").apply(volume)

    assert "of 12 slices of the whole volume" in few.plan
    assert [int(one.pixels[0, 0, 0]) for one in few.slices] == [0, 13]


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
        ({"count": None}, "the number of slices is free, but no limit of tokens"),
        ({"tokens": 0}, "the plan allows 0 tokens"),
        ({"multiple": 0}, "multiples of 0 px"),
        ({"labels": True, "size": 84}, "labels need pictures of 112 px or more, but the size is 84"),
        ({"plane": "frontal"}, "the plane is 'frontal', expected one of axial, coronal, sagittal"),
        ({"slab": "sum"}, "'sum', expected one of max, mean, min"),
        ({"slab_mm": 0.0}, "slabs are 0.0 mm thick"),
        ({"select": "nearby"}, "no selection is named 'nearby'"),
        ({"zoom": "nearby"}, "no selection is named 'nearby'"),
        ({"zoom": "evenly", "count": 8}, "8 pictures of 504 px are zoomed, expected fewer than all"),
        ({"zoom": "evenly", "zoom_size": 5}, "8 pictures of 5 px are zoomed"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        SlicePlan(**settings)


def test_a_ct_window_on_other_values_is_refused_with_the_way_out() -> None:
    volume = a_volume(1, modality="MR", unit="")

    with pytest.raises(SettingsError, match=r"needs Hounsfield units.*MR.*--window percentile"):
        SlicePlan(count=1, size=56, window="ct-lung").apply(volume)


def test_the_plan_says_in_words_what_was_done() -> None:
    shown = SlicePlan(count=3, size=56).apply(a_volume(9))

    assert shown.plan.startswith("3 of 9 slices, evenly spaced, longer side 56 px; CT windows as colours")


def test_several_windows_make_as_many_pictures_of_each_slice() -> None:
    values = a_ramp(-1000, 500)

    shown = SlicePlan(count=4, size=56, window="ct-lung+ct-bone").apply(a_volume(9, values=values))

    assert [one.window.split()[1] for one in shown.slices] == ["lung", "bone"] * 2
    assert [one.source for one in shown.slices[::2]] == [one.source for one in shown.slices[1::2]]
    assert shown.plan.endswith("CT lung window -600/1500 HU and CT bone window 400/1800 HU")
    for one, (center, width) in zip(shown.slices, ((-600, 1500), (400, 1800)), strict=False):
        assert np.array_equal(one.pixels[..., 0], apply_window(values(0), center=center, width=width))


def test_more_windows_than_pictures_are_refused() -> None:
    with pytest.raises(SettingsError, match="3 windows make as many pictures of each slice, but fewer"):
        SlicePlan(count=2, window="ct-lung+ct-bone+ct-brain").apply(a_volume(9))


def a_body_in_air(*, rows: int, columns: int) -> np.ndarray:
    values = np.full((rows, columns), -1000, np.float32)
    values[rows // 2 - 20 : rows // 2 + 20, columns // 3 : columns // 3 + 30] = 40
    return values


def test_a_crop_is_said_and_makes_the_body_larger() -> None:
    body = a_body_in_air(rows=160, columns=240)
    volume = a_volume(3, rows=160, columns=240, values=lambda k: body)

    whole, cut = (SlicePlan(count=3, size=224, crop=crop).apply(volume) for crop in (False, True))

    assert "cut to 57 x 65 px" in cut.plan
    assert (cut.picture(1).pixels > 100).mean() > 4 * (whole.picture(1).pixels > 100).mean()
    assert cut.to_patient(1, [0, 0])[0] > whole.to_patient(1, [0, 0])[0] + 60


@pytest.mark.parametrize("volume", ["a radiograph", "colours"])
def test_what_has_no_plane_in_the_body_is_not_cut(volume: str) -> None:
    body = a_body_in_air(rows=160, columns=240)
    colours = np.repeat((body > 0).astype(np.uint8)[..., None], 3, axis=2)
    made = (
        a_volume(1, rows=160, columns=240, unit="", modality="DX", placed=False, values=lambda k: body)
        if volume == "a radiograph"
        else a_volume(1, rows=160, columns=240, unit="", modality="US", values=lambda k: colours)
    )

    shown = SlicePlan(count=1, size=224, crop=True).apply(made)

    assert "nothing cut off" in shown.plan
    assert shown.picture(1).to_source[0, 2] == pytest.approx((240 / 224 - 1) / 2)


def test_labels_tell_the_side_and_the_slice_and_leave_the_image_alone() -> None:
    volume = a_volume(9, values=a_ramp(-1000, 500))

    plain = SlicePlan(count=2, size=112 - 36, multiple=1, window="ct-lung").apply(volume)
    shown = SlicePlan(count=2, size=112, labels=True, window="ct-lung").apply(volume)

    for bare, one in zip(plain.slices, shown.slices, strict=True):
        assert np.array_equal(one.pixels[18:-18, 18:-18], bare.pixels)
        assert one.pixels[:18].max() == one.pixels[:, :18].max() == 255
        np.testing.assert_allclose(apply(one.to_source, [18, 18]), apply(bare.to_source, [0, 0]), atol=1e-12)


def test_slices_of_a_zoom_are_larger_and_keep_their_place_in_the_order() -> None:
    volume = a_volume(40, step=2.0)

    shown = SlicePlan(
        count=12, size=56, zoom="around:9/9/40", zoom_count=3, zoom_size=112, select="every:8"
    ).apply(volume)

    heights = [one.to_patient[2, 3] for one in shown.slices]  # type: ignore[index]
    assert heights == sorted(set(heights))
    assert [h for h, one in zip(heights, shown.slices, strict=True) if len(one.pixels) == 112] == [38, 40, 42]
    assert "3 of them larger, nearest to the point (9.0, 9.0, 40.0)" in shown.plan
    assert "longer side 56 px, the larger ones 112 px" in shown.plan


@pytest.mark.parametrize(("size", "multiple", "side"), [(100, 64, 128), (512, 28, 504)])
def test_the_size_that_is_said_is_that_of_the_pictures(size: int, multiple: int, side: int) -> None:
    shown = SlicePlan(count=2, size=size, multiple=multiple).apply(a_volume(3, rows=32, columns=32))

    assert max(shown.slices[0].pixels.shape) == side
    assert f"longer side {side} px" in shown.plan


def test_a_budget_is_kept_and_said() -> None:
    volume = a_volume(40, rows=128, columns=128)

    shown = SlicePlan(count=32, size=448, tokens=4096).apply(volume)

    assert len(shown) == 32
    assert {one.pixels.shape for one in shown.slices} == {(308, 308, 3)}
    assert "longer side 308 px, to fit 4096 tokens" in shown.plan


def test_images_of_several_sizes_keep_their_own_aspect() -> None:
    one, other = a_volume(1, rows=56, columns=112), a_volume(1, rows=112, columns=56)
    planes = (one.planes[0], other.planes[0])
    volume = replace(one, planes=planes, read_plane=lambda k: (one, other)[k].read_plane(0))

    shown = SlicePlan(count=2, size=112, crop=True).apply(volume)

    assert [picture.pixels.shape[:2] for picture in shown.slices] == [(56, 112), (112, 56)]


@pytest.mark.parametrize(("plane", "letters"), [("coronal", "R L S I"), ("sagittal", "A P S I")])
def test_another_plane_is_shown_as_radiologists_see_it(plane: str, letters: str) -> None:
    volume = a_volume(30, values=lambda k: np.full((56, 56), 10 * k, np.float32))

    shown = SlicePlan(count=3, size=112, plane=plane).apply(volume)

    edges = shown.picture(2).edges
    assert " ".join(edges[edge] for edge in ("left", "right", "top", "bottom")) == letters
    grey = shown.picture(2).pixels[:, 56, 1].astype(int)
    assert grey[5] > grey[-5]


def test_slabs_are_joined_before_slices_are_chosen() -> None:
    volume = a_volume(30, values=lambda k: np.full((56, 56), k, np.float32))

    shown = SlicePlan(count=2, size=56, slab_mm=10, slab="max", window="ct-brain").apply(volume)

    low, high = (int(one.pixels[20, 20, 0]) for one in shown.slices)
    expected = apply_window(np.array([0, 29], np.float32), center=40, width=80)
    assert low > expected[0]
    assert high == expected[1]
