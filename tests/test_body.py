"""Tests of `medmllm_plugin.transforms.body`."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from medmllm_plugin.transforms.body import body_rule

OVAL = (np.mgrid[:64, :64][0] - 32) ** 2 / 24**2 + (np.mgrid[:64, :64][1] - 32) ** 2 / 18**2 < 1


def an_mr(background: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """Tissue of 300 to 900 in an oval."""
    tissue = np.random.default_rng(3).uniform(300, 900, (64, 64))
    return np.where(OVAL, tissue, background).astype(np.float32)


@pytest.mark.parametrize("padding", [-1000, -1024, -2000, -3024])
def test_a_ct_s_body_is_what_is_denser_than_air_whatever_pads_it(padding: float) -> None:
    ct = np.where(OVAL, 40, padding).astype(np.float32)

    assert np.array_equal(body_rule([ct], unit="HU")(ct), OVAL)


def test_noise_around_an_mr_is_no_body() -> None:
    noise = np.abs(np.random.default_rng(1).normal(0, 12, (64, 64))).astype(np.float32)
    mr = an_mr(noise)

    assert np.array_equal(body_rule([mr], unit="")(mr), OVAL)


def test_a_padding_value_in_the_middle_of_the_range_is_no_body() -> None:
    z_scored = np.where(OVAL, np.random.default_rng(1).normal(0, 1, (64, 64)), 0).astype(np.float32)

    assert np.array_equal(body_rule([z_scored], unit="")(z_scored), OVAL & (z_scored != 0))


def test_a_hot_spot_leaves_the_rest_of_the_body_a_body() -> None:
    pet = np.where(OVAL, 1.0, 0.02).astype(np.float32)
    pet[30:34, 30:34] = 40

    assert np.array_equal(body_rule([pet], unit="")(pet), OVAL)


def test_where_nothing_tells_body_from_background_all_is_body() -> None:
    flat = np.full((64, 64), 7, np.float32)
    filled = np.random.default_rng(1).uniform(500, 600, (64, 64)).astype(np.float32)

    assert body_rule([filled], unit="")(filled).mean() > 0.85
    assert body_rule([np.full((64, 64), np.nan, np.float32)], unit="")(flat).all()


def test_what_is_no_number_is_neither_body_nor_padding() -> None:
    padded = an_mr(np.nan)

    rule = body_rule([padded], unit="")

    assert rule.padding is None
    assert np.array_equal(rule(padded), OVAL)
