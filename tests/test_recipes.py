"""Tests of `medmllm_plugin.transforms.recipes`."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.transforms.recipes import RECIPES, listing, settings_of
from medmllm_plugin.transforms.slices import SlicePlan
from tests.values import a_volume


@pytest.mark.parametrize("name", ["lingshu", "medgemma-ct", "radfm", "hulu-med", "overview+zoom"])
def test_a_recipe_makes_pictures(name: str) -> None:
    volume = a_volume(12, rows=64, columns=48, values=lambda k: np.full((64, 48), 10 * k, np.float32))

    shown = SlicePlan(**settings_of(name)).apply(volume)

    assert len(shown) == 12
    assert dict(listing())[name]


def test_medgemma_s_recipe_shows_85_squares() -> None:
    shown = SlicePlan(**settings_of("medgemma-ct")).apply(a_volume(200, rows=32, columns=24))

    assert len(shown) == 85
    assert {one.pixels.shape for one in shown.slices} == {(896, 896, 3)}
    assert "red -1024..1024, green -135..215, blue 0..80 HU" in shown.plan


def test_a_recipe_stays_within_its_tokens() -> None:
    shown = SlicePlan(**settings_of("hulu-med")).apply(a_volume(300, rows=32, columns=32))

    assert len(shown) == 180
    assert sum(one.pixels.shape[0] * one.pixels.shape[1] for one in shown.slices) <= 16_384 * 28**2


def test_an_overview_with_a_point_is_large_around_it() -> None:
    plan = SlicePlan(**settings_of("overview+zoom,zoom=around:20/20/200,count=20,zoom_count=3"))

    shown = plan.apply(a_volume(200, rows=64, columns=64, step=2.0))

    sides = [one.pixels.shape[0] for one in shown.slices]
    assert 18 <= len(shown) <= 20
    assert sorted(set(sides)) == [224, 504]
    large = [one.to_patient[2, 3] for one in shown.slices if one.pixels.shape[0] == 504]  # type: ignore[index]
    assert large == [198, 200, 202]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_stands_for_all_its_settings(name: str) -> None:
    assert settings_of(name) == asdict(RECIPES[name].plan)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("count=3", {"count": 3}),
        (" size = 112 ,crop=yes, labels=no", {"size": 112, "crop": True, "labels": False}),
        ("slab_mm=7.5,slab=mean,plane=coronal", {"slab_mm": 7.5, "slab": "mean", "plane": "coronal"}),
        ("count=auto,tokens=99,window=none", {"count": None, "tokens": 99, "window": None}),
        ("window=auto", {"window": "auto"}),
        ("select=around:1/-2/3.5", {"select": "around:1/-2/3.5"}),
        ("radfm,count=7", {**asdict(RECIPES["radfm"].plan), "count": 7}),
    ],
)
def test_a_plan_is_a_line_of_text(text: str, settings: dict[str, Any]) -> None:
    assert settings_of(text) == settings
    SlicePlan(**settings)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("medgemma", r"found 'medgemma', expected key=value, or one of lingshu, medgemma-ct"),
        ("count=3,radfm", "found 'radfm'"),
        ("", "found ''"),
        ("slices=3", "no setting is named 'slices'; there are: count, size, window, select"),
        ("count=many", "count is 'many', expected a number"),
        ("count=2.5", "count is '2.5', expected a number"),
        ("crop=maybe", "crop is 'maybe', expected yes or no"),
        ("plane=axial,plane=coronal", "plane is given twice"),
    ],
)
def test_a_text_that_is_no_plan_is_refused(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        settings_of(text)


def test_the_docs_describe_each_setting_and_no_other() -> None:
    page = (Path(__file__).parents[1] / "docs" / "python-api.md").read_text("utf-8")
    table = page.partition("| setting | says |")[2].partition("\n\n")[0]

    told = [
        name for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for name in re.findall(r"\w+", row)
    ]

    assert sorted(told) == sorted(field.name for field in fields(SlicePlan))
