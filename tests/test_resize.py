"""Sizes of pictures: the bytes of torch's antialiased bicubic by every route, and where a pixel goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medmllm_plugin.transforms import compiled
from medmllm_plugin.transforms.resize import resize, resize_stack, taps
from tests.routes import ROUTES, only

SIZES = [
    ((512, 512), (504, 504)),
    ((512, 512), (448, 448)),
    ((320, 260), (448, 364)),
    ((777, 333), (28, 1036)),
    ((2500, 2048), (112, 84)),
    ((64, 64), (64, 100)),
    ((64, 64), (100, 64)),
    ((7, 5), (448, 448)),
    ((1, 1), (3, 2)),
    ((50, 1), (1, 50)),
    ((33, 47), (1, 1)),
]
SIDE = st.integers(1, 90)


def pictures(shape: tuple[int, ...], *, seed: int = 0) -> NDArray[np.uint8]:
    """Noise and hard edges, so that sums over- and undershoot 0..255."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 256, shape, dtype=np.uint8)
    return np.where(generator.random(shape) < 0.5, noise, noise // 128 * 255).astype(np.uint8)


def by_torch_itself(one: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """What torch makes of one picture (rows, columns[, 3]), each channel by itself."""
    if one.ndim == 3:
        return np.stack([by_torch_itself(one[:, :, channel], shape) for channel in range(3)], axis=-1)
    done = torch.nn.functional.interpolate(
        torch.from_numpy(one.copy())[None, None],
        size=list(shape),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    return np.asarray(done[0, 0].numpy())


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_each_route_gives_the_bytes_of_torch(
    source: tuple[int, int], target: tuple[int, int], channels: tuple[int, ...], route: str
) -> None:
    stack = pictures((2, *source, *channels))

    with only(route):
        found = resize_stack(stack, target)

    assert found.shape == (2, *target, *channels)
    assert found.flags.c_contiguous
    for one, resized in zip(stack, found, strict=True):
        assert np.array_equal(resized, by_torch_itself(one, target))


@pytest.mark.parametrize("route", ROUTES)
@settings(deadline=None, max_examples=60)
@given(rows=SIDE, columns=SIDE, high=SIDE, wide=SIDE, count=st.integers(1, 6), seed=st.integers(0, 99))
def test_pictures_of_any_size_are_resized_as_torch_does(
    route: str, rows: int, columns: int, high: int, wide: int, count: int, seed: int
) -> None:
    stack = pictures((count, rows, columns), seed=seed)

    with only(route):
        found = resize_stack(stack, (high, wide))

    assert np.array_equal(found, np.stack([by_torch_itself(one, (high, wide)) for one in stack]))


@pytest.mark.parametrize("route", ROUTES)
def test_a_grey_picture_shown_as_three_channels_is_computed_once_and_shown_so_again(route: str) -> None:
    grey = pictures((40, 30))

    with only(route):
        found = resize(np.broadcast_to(grey[:, :, None], (40, 30, 3)), (28, 56))

    assert found.shape == (28, 56, 3)
    assert found.strides[2] == 0
    assert np.array_equal(found[:, :, 1], by_torch_itself(grey, (28, 56)))


@pytest.mark.parametrize("route", ROUTES)
def test_a_blot_lands_where_pixel_areas_say(route: str) -> None:
    picture = np.zeros((96, 128), np.uint8)
    picture[30:36, 70:80] = 200
    rows, columns = np.mgrid[:48, :96]

    with only(route):
        found = resize(picture, (48, 96)).astype(np.float64)

    center = np.array([(found * rows).sum(), (found * columns).sum()]) / found.sum()
    scale = np.array([96 / 48, 128 / 96])
    assert (center + 0.5) * scale - 0.5 == pytest.approx((32.5, 74.5), abs=0.05)


def test_a_picture_of_that_size_is_left_alone() -> None:
    stack = pictures((3, 20, 30))

    assert resize_stack(stack, (20, 30)) is stack
    assert resize_stack(stack[:0], (40, 40)).shape == (0, 40, 40)


@pytest.mark.parametrize(
    ("stack", "shape", "message"),
    [
        (np.zeros((1, 4, 4)), (2, 2), r"got float64 \(4, 4\)"),
        (np.zeros((1, 4, 4, 4), np.uint8), (2, 2), r"got uint8 \(4, 4, 4\)"),
        (np.zeros((4, 4), np.uint8), (2, 2), r"got uint8 \(4,\)"),
        (np.zeros((1, 0, 4), np.uint8), (2, 2), r"at least 1 px, got \(0, 4\) to \(2, 2\)"),
        (np.zeros((1, 4, 4), np.uint8), (2, 0), r"at least 1 px, got \(4, 4\) to \(2, 0\)"),
    ],
)
def test_what_is_no_picture_is_refused(stack: Any, shape: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resize_stack(stack, shape)


@given(source=st.integers(1, 3000), target=st.integers(1, 3000))
@settings(deadline=None, max_examples=60)
def test_taps_lie_on_the_line_and_weigh_one_together(source: int, target: int) -> None:
    line = taps(source, target)
    width = line.weights.shape[1]

    assert width % 2 == 0
    assert line.starts.min() >= 0
    assert (line.starts + width).max() <= source + source % 2
    beyond = line.starts[:, None] + np.arange(width) >= source
    assert not line.weights[beyond].any()
    total = line.weights.astype(np.int64).sum(axis=1) / (1 << line.bits)
    assert total == pytest.approx(1, abs=width / (1 << line.bits))


def a_call(**changed: Any) -> list[Any]:
    """Arguments of `_pictures.resample` that fit each other, but for those given."""
    line = taps(8, 4)
    down = (8, 4, line.weights.shape[1], line.bits, line.starts, line.counts, line.weights)
    fitting: dict[str, Any] = {
        "kernel": 0,
        "pictures": 2,
        "channels": 1,
        "source": np.zeros((2, 8, 6), np.uint16),
        "levels": np.zeros((3, 65536), np.uint8),
        "lines": np.zeros((3, 7), np.int32),
        "which": np.array([0, 2], np.int32),
        "out": np.zeros((2, 4, 6, 1), np.uint8),
        "down": down,
        "across": (6, 6, 0, 0, b"", b"", b""),
    }
    return list({**fitting, **changed}.values())


def a_line(**changed: Any) -> tuple[Any, ...]:
    line = taps(8, 4)
    fitting: dict[str, Any] = {
        "source": 8,
        "target": 4,
        "width": line.weights.shape[1],
        "bits": line.bits,
        "starts": line.starts,
        "counts": line.counts,
        "weights": line.weights,
    }
    return tuple({**fitting, **changed}.values())


WRONG = {
    "a kernel that is not there": {"kernel": 99},
    "a kernel below the first": {"kernel": -1},
    "more pictures than buffers": {"pictures": 3},
    "fewer than none": {"pictures": -1},
    "more than can be counted": {"pictures": 2**62},
    "two channels": {"channels": 2},
    "a source that is too short": {"source": np.zeros((2, 8, 5), np.uint16)},
    "a source of bytes where there are levels": {"source": np.zeros((2, 8, 6), np.uint8)},
    "a source off its alignment": {"source": memoryview(bytes(2 * 8 * 6 * 2 + 1))[1:]},
    "a table that is too short": {"levels": np.zeros(65535, np.uint8)},
    "a table and a half": {"levels": np.zeros(65536 + 32768, np.uint8)},
    "fewer lines than tables": {"lines": np.zeros((2, 7), np.int32)},
    "a table that is not there": {"which": np.array([0, 3], np.int32)},
    "a table before the first": {"which": np.array([0, -1], np.int32)},
    "too few numbers of tables": {"which": np.array([0], np.int32)},
    "a result that is too small": {"out": np.zeros((2, 4, 5, 1), np.uint8)},
    "taps before the line": {"down": a_line(starts=np.array([-1, 0, 0, 0], np.int32))},
    "taps beyond the line": {"down": a_line(starts=np.array([0, 0, 0, 1], np.int32))},
    "too few taps": {"down": a_line(starts=np.zeros(3, np.int32))},
    "too few weights": {"down": a_line(weights=np.zeros((4, 6), np.int16))},
    "a line longer than the picture": {"down": a_line(source=9)},
    "a line that would grow without taps": {"across": (6, 7, 0, 0, b"", b"", b"")},
    "an odd width": {"down": a_line(width=7)},
    "too many bits": {"down": a_line(bits=40)},
    "too few counts": {"down": a_line(counts=np.zeros(3, np.int32))},
    "more taps than weights": {"down": a_line(counts=np.array([8, 8, 10, 8], np.int32))},
    "fewer taps than none": {"down": a_line(counts=np.array([8, 8, -2, 8], np.int32))},
    "half a pair of taps": {"down": a_line(counts=np.array([8, 8, 7, 8], np.int32))},
    "weights that overflow": {
        "down": (300, 1, 300, 14, *[np.zeros(1, np.int32)] * 2, np.full((1, 300), 32767, np.int16))
    },
}


@pytest.mark.parametrize("changed", WRONG.values(), ids=WRONG.keys())
def test_the_compiled_part_checks_every_length_before_it_touches_a_byte(changed: dict[str, Any]) -> None:
    with only("compiled"):
        assert compiled.pictures is not None
        compiled.pictures.resample(*a_call())

        with pytest.raises(ValueError, match=r"not the taps|sizes that were said"):
            compiled.pictures.resample(*a_call(**changed))


def test_the_compiled_part_writes_into_no_buffer_that_is_read_only() -> None:
    out = np.zeros((2, 4, 6, 1), np.uint8)
    out.flags.writeable = False

    with only("compiled"):
        assert compiled.pictures is not None
        with pytest.raises((TypeError, ValueError, BufferError)):
            compiled.pictures.resample(*a_call(out=out))


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_every_kernel_of_this_processor_gives_the_same_bytes(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    with only("compiled"), pytest.MonkeyPatch.context() as patched:
        stack = pictures((2, *source, 3))
        expected = resize_stack(stack, target)
        assert compiled.pictures is not None
        number = compiled.pictures.KERNELS

        found = []
        for kernels in range(1, number + 1):
            patched.setattr(compiled.pictures, "KERNELS", kernels)
            found.append(resize_stack(stack, target))

    assert len(found) >= 1
    assert all(np.array_equal(one, expected) for one in found)
