"""The way from a picture's pixel to the patient and back, for any plane, size and stack."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medmllm_plugin.geometry import apply
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.transforms.crop import PATCH, picture_shape
from medmllm_plugin.transforms.labels import BAND
from medmllm_plugin.transforms.select import evenly
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volume import Volume
from tests.values import a_rotation, a_volume

some = settings(deadline=None, max_examples=60)

parts = st.floats(-1, 1, allow_nan=False)
spacings = st.floats(0.05, 8)
sides = st.integers(1, 90)


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    """Any stack: turned anyhow, sheared, of any spacing and size."""
    quaternion = draw(st.tuples(parts, parts, parts, parts))
    assume(np.linalg.norm(quaternion) > 0.1)
    options: dict[str, Any] = {
        "rows": draw(sides),
        "columns": draw(sides),
        "spacing": (draw(spacings), draw(spacings)),
        "position": draw(st.tuples(*[st.floats(-2000, 2000)] * 3)),
        "orientation": tuple(a_rotation(quaternion)[:2].ravel()),
        "step": draw(st.floats(0.1, 20)),
        "tilt": draw(st.floats(-1, 1)),
    }
    if draw(st.booleans()):
        body = draw(bodies(options["rows"], options["columns"]))
        options["values"] = lambda k: body
    return a_volume(draw(st.integers(1, 6)), **options)


@st.composite
def bodies(draw: st.DrawFn, rows: int, columns: int) -> NDArray[np.float32]:
    """A box of water somewhere in air."""
    values = np.full((rows, columns), -1000, np.float32)
    top, bottom = sorted(draw(st.tuples(st.integers(0, rows), st.integers(0, rows))))
    left, right = sorted(draw(st.tuples(st.integers(0, columns), st.integers(0, columns))))
    values[top:bottom, left:right] = 0
    return values


plans = st.builds(SlicePlan, count=st.integers(1, 4), size=st.integers(28, 140))
"""Whole images, resized."""
all_plans = plans | st.builds(
    SlicePlan,
    count=st.integers(2, 4),
    size=st.integers(112, 200),
    crop=st.booleans(),
    square=st.booleans(),
    labels=st.booleans(),
    multiple=st.sampled_from([1, 14, 28, 32]),
    zoom=st.sampled_from([None, "evenly"]),
    zoom_count=st.just(1),
    zoom_size=st.integers(112, 200),
)
"""Cropped, padded, with a band, of several sizes."""
slice_sets = st.builds(SlicePlan.apply, plans, volumes())
all_slice_sets = st.builds(SlicePlan.apply, all_plans, volumes())


@some
@given(shown=all_slice_sets, points=st.lists(st.tuples(st.floats(-1, 150), st.floats(-1, 150)), min_size=1))
def test_a_pixel_comes_back_from_millimetres(shown: SliceSet, points: list[tuple[float, float]]) -> None:
    for number in range(1, len(shown) + 1):
        back = shown.from_patient(number, shown.to_patient(number, points))

        np.testing.assert_allclose(back[:, :2], points, atol=1e-6)
        np.testing.assert_allclose(back[:, 2], 0, atol=1e-6)


@some
@given(volume=volumes(), plan=all_plans, column=st.floats(0, 140), row=st.floats(0, 140))
def test_the_way_over_the_source_image_and_the_direct_way_agree(
    volume: Volume, plan: SlicePlan, column: float, row: float
) -> None:
    shown = plan.apply(volume)
    planes = {plane.source: plane for plane in volume.planes}

    for number, one in enumerate(shown.slices, 1):
        of_image = planes[one.source].to_patient
        assert of_image is not None
        over_source = apply(of_image, [*apply(one.to_source, [column, row]), 0])

        np.testing.assert_allclose(shown.to_patient(number, [column, row]), over_source, atol=1e-6)


@some
@given(
    rows=sides,
    columns=sides,
    spacing=st.tuples(spacings, spacings),
    tilt=st.floats(-1, 1),
    slices=st.integers(1, 7),
    size=st.integers(28, 140),
)
def test_corners_of_a_picture_are_the_corners_of_its_plane(
    rows: int, columns: int, spacing: tuple[float, float], tilt: float, slices: int, size: int
) -> None:
    volume = a_volume(slices, rows=rows, columns=columns, spacing=spacing, tilt=tilt, position=(5, -6, 7))
    shown = SlicePlan(count=slices, size=size).apply(volume)

    for number, (one, plane) in enumerate(zip(shown.slices, volume.planes, strict=True), 1):
        height, width = one.pixels.shape[:2]
        of_picture = shown.to_patient(number, [[-0.5, -0.5], [width - 0.5, height - 0.5]])
        assert plane.to_patient is not None
        of_plane = apply(plane.to_patient, [[-0.5, -0.5, 0], [columns - 0.5, rows - 0.5, 0]])

        np.testing.assert_allclose(of_picture, of_plane, atol=1e-6)
        assert one.source == plane.source


@some
@given(shown=slice_sets, edges=st.tuples(*[st.floats(0, 1)] * 4))
def test_a_box_comes_back_from_its_source_and_stays_in_the_image(
    shown: SliceSet, edges: tuple[float, ...]
) -> None:
    one = shown.picture(1)
    height, width = one.pixels.shape[:2]
    rows, columns = one.source_shape
    left, right = sorted((edges[0] * width, edges[1] * width))
    top, bottom = sorted((edges[2] * height, edges[3] * height))

    box = shown.box_in_source(1, column_min=left, row_min=top, column_max=right, row_max=bottom)

    assert 0 <= box[0] <= box[2] <= columns
    assert 0 <= box[1] <= box[3] <= rows
    back = apply(np.linalg.inv(one.to_source), np.reshape(box, (2, 2)) - 0.5) + 0.5
    np.testing.assert_allclose(back, [[left, top], [right, bottom]], atol=1e-6)


@some
@given(shown=slice_sets, over=st.floats(0.1, 500))
def test_a_box_beyond_the_picture_is_cut_to_the_image(shown: SliceSet, over: float) -> None:
    one = shown.picture(1)
    height, width = one.pixels.shape[:2]
    rows, columns = one.source_shape

    box = shown.box_in_source(
        1, column_min=-over, row_min=-over, column_max=width + over, row_max=height + over
    )

    assert box == (0, 0, columns, rows)


@some
@given(volume=volumes(), plan=all_plans)
def test_a_picture_shows_the_kept_part_of_its_image_in_its_middle_and_black_around(
    volume: Volume, plan: SlicePlan
) -> None:
    shown = plan.apply(volume)

    for one in shown.slices:
        rows, columns = one.source_shape
        height, width = one.pixels.shape[:2]
        corners = apply(np.linalg.inv(one.to_source), [[-0.5, -0.5], [columns - 0.5, rows - 0.5]])
        assert np.all(np.diff(corners, axis=0) > 0)
        middle = apply(one.to_source, [(width - 1) / 2, (height - 1) / 2])
        assert np.all(middle > -1)
        assert np.all(middle < [columns, rows])
        assert height % plan.multiple == width % plan.multiple == 0
        assert height == width or not plan.square


@some
@given(volume=volumes(), size=st.integers(56, 140), square=st.booleans())
def test_a_crop_leaves_out_no_body_and_is_the_same_for_all_slices(
    volume: Volume, size: int, square: bool
) -> None:
    shown = SlicePlan(count=4, size=size, crop=True, square=square).apply(volume)

    one = shown.slices[0]
    assert all(np.array_equal(one.to_source, other.to_source) for other in shown.slices)
    places = np.argwhere(volume.read_plane(0) > -300)[:, ::-1]
    seen = apply(np.linalg.inv(one.to_source), places)
    height, width = one.pixels.shape[:2]
    assert np.all(seen >= -0.5)
    assert np.all(seen <= [width - 0.5, height - 0.5])


@some
@given(slices=st.integers(1, 400), count=st.integers(2, 64))
def test_chosen_slices_rise_and_include_both_ends(slices: int, count: int) -> None:
    chosen = evenly(slices, count)

    assert chosen == sorted(set(chosen))
    assert (chosen[0], chosen[-1]) == (0, slices - 1)
    assert len(chosen) == min(slices, count)


@some
@given(rows=sides, columns=sides, spacing=st.tuples(spacings, spacings), size=st.integers(28, 500))
def test_picture_sides_are_multiples_of_a_patch_and_no_longer_than_asked_for(
    rows: int, columns: int, spacing: tuple[float, float], size: int
) -> None:
    shape = picture_shape(a_volume(1, rows=rows, columns=columns, spacing=spacing).planes[0], size=size)

    assert all(side % PATCH == 0 and side >= PATCH for side in shape)
    assert max(shape) <= size + PATCH / 2


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(60, 220),
    columns=st.integers(60, 220),
    spacing=st.tuples(st.floats(0.5, 2), st.floats(0.5, 2)),
    size=st.integers(112, 448),
    place=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)),
    crop=st.booleans(),
    square=st.booleans(),
    band=st.booleans(),
)
def test_a_picture_shows_a_spot_where_its_matrix_says(
    rows: int,
    columns: int,
    spacing: tuple[float, float],
    size: int,
    place: tuple[float, float],
    crop: bool,
    square: bool,
    band: bool,
) -> None:
    column, row = place[0] * (columns - 1), place[1] * (rows - 1)
    spread = 0.06 * min(rows, columns)

    def spot(k: int) -> NDArray[np.float32]:
        ys, xs = np.mgrid[:rows, :columns]
        bright = np.exp(-((xs - column) ** 2 + (ys - row) ** 2) / (2 * spread**2))
        return np.where(bright < 1e-4, -1000, -160 + 399 * bright).astype(np.float32)

    volume = a_volume(1, rows=rows, columns=columns, spacing=spacing, values=spot)
    plan = SlicePlan(count=1, size=size, window="ct-soft-tissue", crop=crop, square=square, labels=band)
    one = plan.apply(volume).picture(1)

    grey = one.pixels[..., 0].astype(np.float64)
    if band:
        grey[:BAND] = grey[-BAND:] = grey[:, :BAND] = grey[:, -BAND:] = 0
    ys, xs = np.mgrid[: grey.shape[0], : grey.shape[1]]
    seen = np.array([(xs * grey).sum(), (ys * grey).sum()]) / grey.sum()
    expected = apply(np.linalg.inv(one.to_source), [column, row])
    np.testing.assert_allclose(seen, expected, atol=0.1)
