"""Tests of `medmllm_plugin.transforms.planes`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmllm_plugin.transforms.crop import Crop, Framing
from medmllm_plugin.transforms.planes import Planes
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volume import Stored, Volume
from tests.values import a_volume


def both_ways(seed: int, *, slices: int = 6, rows: int = 60, columns: int = 75) -> tuple[Volume, Volume]:
    """The same CT read as values and as stored; its slices have two rescales."""
    random = np.random.default_rng(seed)
    raw = random.integers(0, 1 << 16, (slices, rows, columns), dtype=np.uint16)
    tables = [
        (np.arange(1 << 16, dtype=np.uint16).view(np.int16) * np.float32(slope)).astype(np.float32)
        for slope in (0.1, 0.25)
    ]
    values = [tables[k % 2][raw[k]] for k in range(slices)]
    as_values = a_volume(slices, rows=rows, columns=columns, values=lambda k: values[k])

    def stored(ks: Any) -> Stored:
        return Stored(raw=raw[list(ks)], tables=tuple(tables[k % 2] for k in ks))

    return as_values, replace(as_values, read_stored=stored)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 9),
    window=st.sampled_from(["ct", "ct-lung+ct-bone", "body", "percentile", "slice-range", "ct-medgemma"]),
    size=st.sampled_from([28, 56, 112]),
    square=st.booleans(),
    zoom=st.sampled_from([None, "evenly"]),
)
def test_pictures_are_the_same_to_the_bit_from_stored_planes_and_from_values(
    seed: int, window: str, size: int, square: bool, zoom: str | None
) -> None:
    as_values, as_stored = both_ways(seed)
    plan = SlicePlan(count=5, size=size, window=window, square=square, zoom=zoom, zoom_count=1, zoom_size=84)

    one, other = plan.apply(as_values), plan.apply(as_stored)

    assert one.plan == other.plan
    for left, right in zip(one.slices, other.slices, strict=True):
        assert np.array_equal(left.pixels, right.pixels)
        assert left.source == right.source


def test_a_crop_is_the_same_from_stored_planes_and_from_values() -> None:
    as_values, as_stored = both_ways(1)
    framing = Framing(crop=Crop(row=7, column=11, rows=40, columns=33), shape=(28, 23), canvas=(28, 28))
    (ramps,) = [(lambda values: (values > 0).astype(np.uint8) * 200,)]

    one, other = (
        Planes.read(volume, [1, 2, 5]).pictures([0, 2], [ramps], framing) for volume in (as_values, as_stored)
    )

    assert one.shape == (2, 28, 28)
    assert np.array_equal(one, other)
    assert not one[:, :, :2].any()


def test_extremes_are_the_same_from_stored_planes_and_from_values() -> None:
    one, other = (Planes.read(volume, [0, 3]) for volume in both_ways(2))

    assert one.extremes() == other.extremes()


def test_coarse_values_are_the_same_from_stored_planes_and_from_values() -> None:
    one, other = (Planes.read(volume, [0, 3]).coarse() for volume in both_ways(2, rows=30, columns=41))

    assert [plane.shape for plane in one] == [(8, 11), (8, 11)]
    assert all(np.array_equal(left, right) for left, right in zip(one, other, strict=True))


def test_colours_are_looked_at_as_grey() -> None:
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[..., 0] = 90

    (one,) = Planes.read(a_volume(1, rows=8, columns=8, values=lambda k: colours), [0]).coarse()

    assert one.tolist() == [[30.0, 30.0], [30.0, 30.0]]


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("inverted", [False, True])
def test_padding_is_black_and_counts_nowhere(stored: bool, inverted: bool) -> None:
    raw = np.linspace(100, 200, 56 * 56).reshape(1, 56, 56).astype(np.uint16)
    raw[:, :8] = 65535
    table = np.arange(1 << 16, dtype=np.float32)
    volume = a_volume(1, modality="MR", unit="", inverted=inverted, values=lambda k: table[raw[0]])
    volume = replace(volume, planes=(replace(volume.planes[0], padding=(65535.0, 65535.0)),))
    if stored:
        volume = replace(volume, read_stored=lambda ks: Stored(raw=raw, tables=(table,)))

    grey = SlicePlan(count=1, size=56, window="percentile").apply(volume).picture(1).pixels[..., 0]

    assert not grey[:8].any()
    assert (int(grey[8, 0]) > 200, int(grey[-1, -1]) > 250) == (inverted, not inverted)
    assert Planes.read(volume, [0]).extremes() == [(float(raw[0, 8, 0]), 200.0)]


def test_colours_are_cut_and_resized_without_a_window() -> None:
    colours = np.zeros((40, 40, 3), np.uint8)
    colours[:, 20:] = (10, 20, 30)
    planes = Planes.read(a_volume(1, rows=40, columns=40, values=lambda k: colours), [0])

    framing = Framing(crop=Crop(row=0, column=20, rows=40, columns=20), shape=(4, 4), canvas=(4, 4))
    pictures = planes.pictures([0], [()], framing)

    assert planes.coloured
    assert pictures.tolist() == [[[[10, 20, 30]] * 4] * 4]


@pytest.mark.parametrize("k", [0, 5])
def test_progress_is_told_before_each_plane(k: int) -> None:
    told: list[tuple[int, int]] = []

    Planes.read(both_ways(1)[0], range(k + 1), progress=lambda done, total: told.append((done, total)))

    assert told == [(n, k + 1) for n in range(k + 1)]
