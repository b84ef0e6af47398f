"""Stored planes to pictures: the levels of the window on float values, by every route."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from medmllm_plugin.transforms.render import Window, render, shown
from medmllm_plugin.transforms.resize import resize_stack
from medmllm_plugin.transforms.window import apply_range, apply_window
from medmllm_plugin.volume import Stored
from tests.routes import ROUTES, only

LUNG: Window = partial(apply_window, center=-600, width=1500)
TISSUE: Window = partial(apply_window, center=40, width=400)
BRAIN: Window = partial(apply_window, center=40, width=80)
INVERTED: Window = partial(apply_range, low=-3.5, high=900.25, inverted=True)


def a_stored(*, planes: int = 3, rows: int = 45, columns: int = 37, tables: int = 2) -> Stored:
    """Signed values with a rescale of their own for each table, in turn, over all patterns of bits."""
    generator = np.random.default_rng(0)
    raw = generator.integers(0, 1 << 16, (planes, rows, columns), dtype=np.uint16)
    signed = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.float32)
    made = [signed * np.float32(0.37 + n) - np.float32(1024.5) for n in range(tables)]
    return Stored(raw=raw, tables=tuple(made[n % tables] for n in range(planes)))


def by_values(stored: Stored, n: int, window: Window, shape: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(resize_stack(window(stored.values(n))[None], shape)[0])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", [(45, 37), (28, 56), (45, 50), (90, 37)])
@pytest.mark.parametrize("window", [LUNG, TISSUE, INVERTED])
def test_levels_are_those_of_the_window_on_the_values(
    shape: tuple[int, int], window: Window, route: str
) -> None:
    stored = a_stored()

    with only(route):
        found = render(stored, [[window]], shape)

    assert found.flags.c_contiguous
    assert np.array_equal(found, np.stack([by_values(stored, n, window, shape) for n in range(3)]))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("planes", [1, 4, 6])
def test_however_many_planes_are_resized_each_has_its_own_window(planes: int, route: str) -> None:
    stored = a_stored(planes=planes)
    windows = [(LUNG, TISSUE, BRAIN, INVERTED)[n % 4] for n in range(planes)]
    out = np.zeros((planes, 28, 56), np.uint8)

    with only(route):
        render(stored, [[window] for window in windows], (28, 56), out=out)

    expected = [by_values(stored, n, window, (28, 56)) for n, window in enumerate(windows)]
    assert np.array_equal(out, np.stack(expected))


@pytest.mark.parametrize("route", ROUTES)
def test_three_windows_are_the_three_channels(route: str) -> None:
    stored = a_stored()

    with only(route):
        found = render(stored, [[LUNG, TISSUE, BRAIN]], (28, 56))

    assert found.shape == (3, 28, 56, 3)
    assert found.flags.c_contiguous
    for channel, window in enumerate((LUNG, TISSUE, BRAIN)):
        expected = [by_values(stored, n, window, (28, 56)) for n in range(3)]
        assert np.array_equal(found[..., channel], np.stack(expected))


@pytest.mark.parametrize("route", ROUTES)
def test_each_plane_may_have_windows_of_its_own(route: str) -> None:
    stored = a_stored()

    with only(route):
        found = render(stored, [[LUNG], [INVERTED], [LUNG]])

    assert np.array_equal(found[0], LUNG(stored.values(0)))
    assert np.array_equal(found[1], INVERTED(stored.values(1)))
    assert np.array_equal(found[2], LUNG(stored.values(2)))


def test_a_window_is_computed_once_for_a_table_and_not_for_each_voxel() -> None:
    stored = a_stored(planes=4, tables=2)
    seen: list[tuple[int, ...]] = []

    def counted(values: NDArray[np.float32]) -> NDArray[np.uint8]:
        seen.append(values.shape)
        return TISSUE(values)

    render(stored, [[counted]], (28, 28))

    assert seen == [(65536,), (65536,)]


@pytest.mark.parametrize(("lasting", "calls"), [(True, 1), (False, 2)])
def test_levels_of_a_table_that_nobody_can_change_are_kept_for_the_next_study(
    lasting: bool, calls: int
) -> None:
    stored = a_stored(planes=1)
    stored.tables[0].flags.writeable = not lasting
    seen: list[tuple[int, ...]] = []

    def counted(values: NDArray[np.float32]) -> NDArray[np.uint8]:
        seen.append(values.shape)
        return TISSUE(values)

    first, second = (render(stored, [[counted]], (28, 28)) for _ in range(2))

    assert np.array_equal(first, second)
    assert len(seen) == calls


@pytest.mark.parametrize("route", ROUTES)
def test_planes_that_lie_apart_or_off_their_alignment_are_rendered_too(route: str) -> None:
    stored = a_stored(planes=4)
    unaligned = np.frombuffer(b"." + stored.raw.tobytes(), np.uint8)[1:].view(np.uint16)
    others = [stored.raw[::2], unaligned.reshape(stored.raw.shape)[::2]]

    with only(route):
        found = [render(Stored(raw=one, tables=stored.tables[::2]), [[TISSUE]], (28, 28)) for one in others]

    expected = np.stack([by_values(stored, n, TISSUE, (28, 28)) for n in (0, 2)])
    assert all(np.array_equal(one, expected) for one in found)


@pytest.mark.parametrize("route", ROUTES)
def test_no_planes_are_no_pictures(route: str) -> None:
    stored = Stored(raw=np.zeros((0, 4, 4), np.uint16), tables=())

    with only(route):
        found = render(stored, [[TISSUE]], (28, 28))

    assert found.shape == (0, 28, 28)


@pytest.mark.parametrize(
    "windows", [[], [[]], [[TISSUE, LUNG]], [[TISSUE]] * 2, [[TISSUE], [LUNG] * 3, [LUNG]]]
)
def test_windows_that_do_not_fit_the_planes_are_refused(windows: list[list[Window]]) -> None:
    with pytest.raises(ValueError, match="expected 1 or 3 windows for each of 3 planes"):
        render(a_stored(), windows)


def test_a_grey_picture_is_shown_as_three_channels_without_a_copy() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)

    picture = shown(grey)

    assert picture.shape == (2, 3, 3)
    assert np.shares_memory(picture, grey)
    assert not picture.flags.writeable
    assert (picture == grey[:, :, None]).all()
