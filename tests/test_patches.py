"""Patches: the bytes of transformers' own processor by every route, and the sizes that it makes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from medmllm_plugin.models import torchvision_shim
from medmllm_plugin.sliceset import Slice, SliceSet
from medmllm_plugin.source import FileImage
from medmllm_plugin.transforms import compiled
from medmllm_plugin.transforms.patches import QWEN2_VL, QWEN3_VL, PatchFormat, patches
from medmllm_plugin.transforms.render import shown
from medmllm_plugin.volume import Study
from tests.routes import ROUTES, only

SMALL = PatchFormat(min_pixels=56 * 56, max_pixels=28 * 28 * 16)
ODD = PatchFormat(patch=6, merge=3, temporal=1, mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7))

SETS = [
    [(56, 84)],
    [(504, 504)] * 3,
    [(100, 140), (512, 512), (100, 140), (28, 28)],
    [(31, 2000), (20, 30), (1, 1)],
]


def a_processor(form: PatchFormat = QWEN2_VL) -> Any:
    """The processor of transformers with the torchvision backend, set to a format."""
    torchvision_shim.ensure()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import Qwen2VLImageProcessor

        return Qwen2VLImageProcessor(
            patch_size=form.patch,
            merge_size=form.merge,
            temporal_patch_size=form.temporal,
            size={"shortest_edge": form.min_pixels, "longest_edge": form.max_pixels},
            image_mean=list(form.mean),
            image_std=list(form.std),
        )


def by_processor(
    pictures: list[NDArray[np.uint8]], form: PatchFormat, kind: str
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    raw = {"do_rescale": False, "do_normalize": False} if kind == "uint8" else {}
    tensors = [torch.from_numpy(np.moveaxis(one, -1, 0).copy()) for one in pictures]
    done = a_processor(form)(images=tensors, return_tensors="pt", input_data_format="channels_first", **raw)
    return done["pixel_values"].numpy(), done["image_grid_thw"].numpy()


def colours(shapes: list[tuple[int, int]]) -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("shapes", SETS)
@pytest.mark.parametrize("form", [QWEN2_VL, QWEN3_VL, SMALL, ODD], ids=["qwen2", "qwen3", "small", "odd"])
def test_patches_are_the_bytes_of_the_processor(
    form: PatchFormat, shapes: list[tuple[int, int]], kind: Any, route: str
) -> None:
    pictures = colours(shapes)
    expected, expected_grid = by_processor(pictures, form, kind)

    with only(route):
        found, grid = patches(pictures, form=form, kind=kind)

    assert (str(found.dtype), str(grid.dtype)) == (kind, "int64")
    assert np.array_equal(found, expected)
    assert np.array_equal(grid, expected_grid)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("shapes", SETS)
@pytest.mark.parametrize("form", [QWEN2_VL, QWEN3_VL])
def test_grey_pictures_give_what_three_equal_channels_give(
    form: PatchFormat, shapes: list[tuple[int, int]], kind: Any, route: str
) -> None:
    grey = [one[:, :, 0].copy() for one in colours(shapes)]
    expected, expected_grid = by_processor([shown(one).copy() for one in grey], form, kind)

    with only(route):
        bare, grid = patches(grey, form=form, kind=kind)
        by_stride, same_grid = patches([shown(one) for one in grey], form=form, kind=kind)

    assert np.array_equal(bare, expected)
    assert np.array_equal(by_stride, expected)
    assert np.array_equal(grid, expected_grid)
    assert np.array_equal(same_grid, expected_grid)


@pytest.mark.parametrize("route", ROUTES)
def test_pictures_that_are_parts_of_larger_ones_are_cut_too(route: str) -> None:
    large = colours([(200, 200)])[0]
    parts = [large[10:66, 20:104], large[10:66, 20:104, 1], large[66:10:-1, 20:104]]

    with only(route):
        found = [patches([part], kind="uint8")[0] for part in parts]
        expected = [patches([part.copy()], kind="uint8")[0] for part in parts]

    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_a_given_buffer_is_filled_from_its_beginning_and_not_beyond(kind: Any, route: str) -> None:
    pictures = colours([(56, 84), (84, 56)])
    expected, _ = patches(pictures, kind=kind)
    out = np.full((50, QWEN2_VL.width), 7, kind)

    with only(route):
        found, _ = patches(pictures, kind=kind, out=out)

    assert np.shares_memory(found, out)
    assert found.shape == (48, QWEN2_VL.width)
    assert np.array_equal(found, expected)
    assert (out[48:] == 7).all()


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((23, 1176), np.uint8),
        np.zeros((24, 1175), np.uint8),
        np.zeros((24, 1176), np.float32),
        np.zeros((48, 1176), np.uint8)[::2],
        np.broadcast_to(np.zeros((1, 1176), np.uint8), (24, 1176)),
        np.zeros(24 * 1176, np.uint8),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused(out: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"out must be contiguous uint8 \(24 or more, 1176\), got "):
        patches(colours([(56, 84)]), kind="uint8", out=out)


@pytest.mark.parametrize(
    "picture", [np.zeros((28, 28)), np.zeros((28, 28, 4), np.uint8), np.zeros(28, np.uint8)]
)
def test_what_is_no_picture_is_refused(picture: Any) -> None:
    with pytest.raises(ValueError, match="a picture is uint8"):
        patches([picture])


def test_a_slice_set_and_its_pictures_give_the_same() -> None:
    pictures = colours([(56, 56), (84, 56)])
    slices = [
        Slice(
            pixels=one,
            source=FileImage(file="a.nii", index=n),
            source_shape=one.shape[:2],
            to_source=np.eye(3),
            to_patient=None,
            window="",
        )
        for n, one in enumerate(pictures)
    ]
    slice_set = SliceSet(slices=tuple(slices), study=Study(modality="CT"), plan="")

    values, grid = patches(slice_set)

    expected, expected_grid = patches(pictures)
    assert np.array_equal(values, expected)
    assert np.array_equal(grid, expected_grid)


def test_no_pictures_are_no_patches() -> None:
    values, grid = patches([])

    assert (values.shape, grid.shape) == ((0, 1176), (0, 3))


@given(
    rows=st.integers(1, 6000),
    columns=st.integers(1, 6000),
    factor=st.sampled_from([(14, 2), (16, 2), (6, 3)]),
    least=st.integers(1, 400),
    more=st.integers(1, 400),
)
def test_the_shape_is_that_of_the_processor(
    rows: int, columns: int, factor: tuple[int, int], least: int, more: int
) -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    patch, merge = factor
    side = patch * merge
    low, high = least * side**2, (least + more) * side**2
    form = PatchFormat(patch=patch, merge=merge, min_pixels=low, max_pixels=high)
    settings = {"factor": side, "min_pixels": low, "max_pixels": high}
    if max(rows, columns) / min(rows, columns) > 200:
        with pytest.raises(ValueError, match="aspect ratio"):
            smart_resize(rows, columns, **settings)
        with pytest.raises(ValueError, match="aspect ratio"):
            form.shape(rows, columns)
    else:
        found = form.shape(rows, columns)

        assert found == smart_resize(rows, columns, **settings)
        assert form.tokens(rows, columns) == found[0] * found[1] // side**2


def test_a_format_that_does_not_resize_refuses_other_sizes() -> None:
    form = PatchFormat(resizes=False)

    assert form.shape(56, 8400) == (56, 8400)
    with pytest.raises(ValueError, match="sides must be multiples of 28 px, got 56 x 85"):
        form.shape(56, 85)
    with pytest.raises(ValueError, match="at least 1 px, got 0 x 28"):
        form.shape(0, 28)


@pytest.mark.parametrize("form", [QWEN2_VL, QWEN3_VL, SMALL, ODD])
def test_the_format_of_a_processor_is_read_from_it(form: PatchFormat) -> None:
    assert PatchFormat.of(a_processor(form)) == form


@pytest.mark.parametrize(
    "changed",
    [
        {"do_rescale": False},
        {"do_normalize": False},
        {"resample": 2},
        {"image_mean": [0.5]},
        {"image_std": 0.5},
    ],
)
def test_a_processor_that_does_something_else_has_no_format(changed: dict[str, Any]) -> None:
    processor = a_processor()
    for name, value in changed.items():
        setattr(processor, name, value)

    assert PatchFormat.of(processor) is None


@pytest.mark.parametrize("setting", [{"patch": 0}, {"patch": 33}, {"merge": 65}, {"temporal": 5}])
def test_settings_that_no_model_has_are_refused(setting: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"(patch|merge|temporal) must be 1 to \d+, got \d+"):
        PatchFormat(**setting)


def a_call(**changed: Any) -> list[Any]:
    """Arguments of `_pictures.cut` that fit each other, but for those given."""
    fitting: dict[str, Any] = {
        "kernel": 0,
        "rows": 28,
        "columns": 56,
        "channels": 1,
        "patch": 14,
        "merge": 2,
        "temporal": 2,
        "plane": np.zeros((28, 56), np.uint8),
        "scale": np.ones((2, 3), np.float32),
        "out": np.zeros((8, 1176), np.float32),
    }
    return list({**fitting, **changed}.values())


WRONG: dict[str, dict[str, Any]] = {
    "a kernel that is not there": {"kernel": 99},
    "rows that are no multiple": {"rows": 27},
    "more rows": {"rows": 56},
    "rows below none": {"rows": -28},
    "more columns than can be counted": {"columns": 28 * 2**57},
    "two channels": {"channels": 2},
    "channels that are not there": {"channels": 3},
    "no patch": {"patch": 0},
    "a huge patch": {"patch": 28 * 14, "merge": 1},
    "no merge": {"merge": 0},
    "a longer time": {"temporal": 3},
    "no time": {"temporal": 0},
    "a scale that is too short": {"scale": np.ones(5, np.float32)},
    "a scale of doubles": {"scale": np.ones((2, 3))},
    "a result of bytes": {"out": np.zeros((8, 1176), np.uint8)},
    "a result that is too large": {"out": np.zeros((9, 1176), np.float32)},
}


@pytest.mark.parametrize("changed", WRONG.values(), ids=WRONG.keys())
def test_the_compiled_part_checks_every_length_before_it_touches_a_byte(changed: dict[str, Any]) -> None:
    with only("compiled"):
        assert compiled.pictures is not None
        compiled.pictures.cut(*a_call())

        with pytest.raises(ValueError, match="sizes that were said"):
            compiled.pictures.cut(*a_call(**changed))


@pytest.mark.parametrize("form", [QWEN2_VL, QWEN3_VL, ODD])
@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("start", [0, 1, 3])
def test_every_kernel_gives_the_same_bytes_wherever_the_buffer_begins(
    form: PatchFormat, kind: Any, start: int
) -> None:
    pictures = colours([(2 * form.factor, 3 * form.factor)])
    pictures.append(pictures[0][:, :, 0].copy())
    with only("numpy"):
        expected, _ = patches(pictures, form=form, kind=kind)

    with only("compiled"), pytest.MonkeyPatch.context() as patched:
        assert compiled.pictures is not None
        number = compiled.pictures.KERNELS
        for kernels in range(1, number + 1):
            patched.setattr(compiled.pictures, "KERNELS", kernels)
            out = np.zeros(expected.size + start, kind)[start:].reshape(expected.shape)

            found, _ = patches(pictures, form=form, kind=kind, out=out)

            assert np.array_equal(found, expected)
