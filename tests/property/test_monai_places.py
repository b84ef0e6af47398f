"""Values of a MONAI image lie where our planes say, through any of its spatial transforms, lazy or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, Flip, Orientation, Resize, Rotate, Rotate90, Spacing, SpatialCrop, Zoom
from numpy.typing import NDArray

from medmllm_plugin.geometry import RAS_FROM_LPS, apply
from medmllm_plugin.resampled import Resampled
from medmllm_plugin.transforms.metatensor import to_array, to_slices, to_volume
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volume import Plane, Volume
from tests.values import a_rotation, a_stack, a_volume

some = settings(deadline=None, max_examples=30)

SHAPE = 23, 22, 21
"""Columns, rows, slices."""

parts = st.floats(-1, 1, allow_nan=False)
axes = st.integers(0, 2)
exact = st.one_of(
    st.builds(Flip, axes),
    st.builds(
        Rotate90, k=st.integers(1, 3), spatial_axes=st.permutations(range(3)).map(lambda p: tuple(p[:2]))
    ),
    st.sampled_from(["RAS", "LPS", "PIR", "ASL", "SRA", "IPL"]).map(
        lambda code: Orientation(code, labels=None)
    ),
    st.builds(
        SpatialCrop,
        roi_start=st.tuples(*[st.integers(0, 3)] * 3),
        roi_end=st.tuples(*[st.integers(16, 24)] * 3),
    ),
)
interpolating = st.one_of(
    st.builds(Spacing, st.tuples(*[st.floats(0.8, 3)] * 3)),
    st.builds(Resize, st.tuples(*[st.integers(12, 40)] * 3), mode=st.just("trilinear")),
    st.builds(
        Rotate,
        st.tuples(*[st.floats(-0.5, 0.5)] * 3),
        keep_size=st.booleans(),
        padding_mode=st.just("border"),
    ),
    st.builds(Zoom, st.floats(0.7, 1.5), mode=st.just("trilinear"), padding_mode=st.just("edge")),
)


def pixels_of(plane: Plane) -> NDArray[np.float64]:
    """(column, row, 0) of all pixels of a plane in the order of its values."""
    rows, columns = np.mgrid[: plane.rows, : plane.columns]
    return np.stack([columns.ravel(), rows.ravel(), np.zeros(columns.size)], axis=-1)


@st.composite
def fields(draw: st.DrawFn) -> tuple[Volume, NDArray[np.float64]]:
    """A volume turned anyhow whose values rise straight along a direction, and that direction, LPS."""
    quaternion = draw(st.tuples(parts, parts, parts, parts))
    direction = np.array(draw(st.tuples(parts, parts, parts)))
    assume(np.linalg.norm(quaternion) > 0.1)
    assume(np.linalg.norm(direction) > 0.3)
    columns, rows, slices = SHAPE
    place: dict[str, Any] = {
        "orientation": tuple(a_rotation(quaternion)[:2].ravel()),
        "position": draw(st.tuples(*[st.floats(-300, 300)] * 3)),
        "spacing": draw(st.tuples(st.floats(0.5, 2), st.floats(0.5, 2))),
        "step": draw(st.floats(0.5, 4)),
    }
    matrices = a_stack(slices, **place)

    def values(k: int) -> NDArray[np.float32]:
        where = apply(matrices[k], pixels_of(volume.planes[k]))
        return (where @ direction).reshape(rows, columns).astype(np.float32)

    volume = a_volume(slices, rows=rows, columns=columns, values=values, **place)
    return volume, direction


def as_image(volume: Volume) -> MetaTensor:
    array, meta = to_array(volume)
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(array))[None], meta=meta)


def to_index(image: MetaTensor) -> NDArray[np.float64]:
    """LPS mm to (x, y, z) of an image."""
    return np.linalg.inv(RAS_FROM_LPS @ np.asarray(image.affine, np.float64))


@some
@given(field=fields(), steps=st.lists(exact | interpolating, min_size=1, max_size=3), lazy=st.booleans())
def test_values_lie_where_planes_say(
    field: tuple[Volume, NDArray[np.float64]], steps: list[Any], lazy: bool
) -> None:
    volume, direction = field
    images = [as_image(volume)]
    for step in steps:
        images.append(step(images[-1]))

    moved = to_volume(Compose(steps, lazy=lazy)(images[0]))

    # beyond the edge of an image on the way, by a voxel of the coarsest, its values are made up
    sizes = [np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0) for image in images]
    coarsest = max(float(size.max()) for size in sizes)
    for k, plane in enumerate(moved.planes):
        assert plane.to_patient is not None
        where = apply(plane.to_patient, pixels_of(plane))
        known = np.ones(len(where), np.bool_)
        for image, size in zip(images, sizes, strict=True):
            index, margin = apply(to_index(image), where), coarsest / size
            known &= np.all((index >= margin) & (index <= np.array(image.shape[1:]) - 1 - margin), axis=1)
        values = moved.read_plane(k).ravel()
        np.testing.assert_allclose(values[known], (where @ direction)[known], atol=0.15)


@some
@given(field=fields(), steps=st.lists(exact, min_size=1, max_size=4), lazy=st.booleans())
def test_values_of_moves_without_interpolation_are_those_of_the_image_that_is_cited(
    field: tuple[Volume, NDArray[np.float64]], steps: list[Any], lazy: bool
) -> None:
    volume, _ = field
    originals = {plane.source: k for k, plane in enumerate(volume.planes)}

    shown = to_slices(Compose(steps, lazy=lazy)(as_image(volume)), SlicePlan(count=4, size=56))

    moved = to_volume(Compose(steps)(as_image(volume)))
    for k, plane in enumerate(moved.planes):
        assert plane.to_patient is not None
        source = plane.source.outlines()[0].image if isinstance(plane.source, Resampled) else plane.source
        original = volume.planes[originals[source]].to_patient
        assert original is not None
        back = apply(np.linalg.inv(original) @ plane.to_patient, pixels_of(plane))
        columns, rows, off = np.rint(back).astype(int).T
        np.testing.assert_allclose(back, np.rint(back), atol=1e-6)
        assert not off.any()
        assert np.array_equal(
            moved.read_plane(k).ravel(), volume.read_plane(originals[source])[rows, columns]
        )
    assert {one.source for one in shown.slices} <= {plane.source for plane in moved.planes}
