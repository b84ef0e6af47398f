"""Tests of `medmllm_plugin.transforms.budget`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.transforms.budget import LEGIBLE, Budget
from medmllm_plugin.transforms.crop import Crop
from tests.values import a_volume

CT = a_volume(1, rows=512, columns=512).planes[0]


def a_budget(**settings: Any) -> Budget:
    usual = {"count": 24, "size": 448, "tokens": None, "multiple": 28, "square": False, "band": 0}
    return Budget(**{**usual, **settings})


def test_a_picture_costs_what_a_qwen_model_pays_for_it() -> None:
    assert a_budget().cost(CT, pictures=85, size=448) == 85 * 256
    assert a_budget(multiple=32).cost(CT, pictures=1, size=512) == 256


def test_without_a_limit_of_tokens_count_and_size_stand() -> None:
    assert a_budget().most(CT, available=300) == 24
    assert a_budget().most(CT, available=7) == 7
    assert a_budget().fit(CT, slices=24) == 448


def test_pictures_shrink_before_any_is_left_out() -> None:
    budget = a_budget(count=64, tokens=8192)

    assert budget.most(CT, available=300) == 64
    assert budget.fit(CT, slices=64) == 308


def test_pictures_are_left_out_rather_than_made_illegible() -> None:
    budget = a_budget(count=200, tokens=8192)

    assert budget.most(CT, available=300) == 8192 // 81
    assert budget.fit(CT, slices=8192 // 81) == LEGIBLE


def test_a_free_count_is_what_fits_at_the_usual_size() -> None:
    assert a_budget(count=None, size=None, tokens=8192).most(CT, available=300) == 32


def test_a_free_size_grows_up_to_the_image_s_own() -> None:
    assert a_budget(size=None, tokens=8192).fit(CT, slices=4) == 504
    assert a_budget(size=None, tokens=1024).fit(CT, slices=4) == 448


def test_a_crop_that_is_less_oblong_than_its_image_costs_more_and_is_shown_smaller() -> None:
    wide = a_volume(1, rows=256, columns=512).planes[0]
    budget = a_budget(tokens=128 * 24)

    assert budget.fit(wide, slices=24) == 448
    assert budget.fit(wide, slices=24, crop=Crop(row=0, column=0, rows=256, columns=256)) == 308


def test_zoomed_pictures_shrink_in_step() -> None:
    budget = a_budget(count=40, size=224, tokens=2500, zoom_count=8, zoom_size=504)
    size = budget.fit(CT, slices=40)
    small, large = (framed.canvas for framed in budget.framings(CT, size=size))

    assert size < 224
    assert small[0] < large[0] < 504


@settings(deadline=None, max_examples=150)
@given(
    count=st.none() | st.integers(1, 300),
    size=st.none() | st.integers(28, 1000),
    tokens=st.integers(1, 40_000),
    rows=st.integers(1, 1200),
    columns=st.integers(1, 1200),
    square=st.booleans(),
    available=st.integers(1, 500),
    zoom_count=st.integers(0, 9),
)
def test_what_is_shown_fits_the_tokens(
    count: int | None,
    size: int | None,
    tokens: int,
    rows: int,
    columns: int,
    square: bool,
    available: int,
    zoom_count: int,
) -> None:
    plane = a_volume(1, rows=rows, columns=columns).planes[0]
    budget = a_budget(
        count=count, size=size, tokens=tokens, square=square, zoom_count=zoom_count, zoom_size=504
    )
    try:
        pictures = budget.most(plane, available=available)
    except SettingsError:
        assume(False)

    fitted = budget.fit(plane, slices=pictures)

    assert 1 <= pictures <= min(count or available, available)
    assert budget.cost(plane, pictures=pictures, size=fitted) <= tokens
    assert size is None or fitted <= size


def test_a_single_picture_that_can_t_fit_is_refused_with_what_it_takes() -> None:
    with pytest.raises(SettingsError, match="one picture of 252 px takes 81 tokens, but the plan allows 80"):
        a_budget(tokens=80).most(CT, available=9)
