"""Slice plans of the field by name, and plans as a line of text."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass, fields
from typing import Any

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.transforms.slices import SlicePlan


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A plan that a published system or a habit of reading prescribes."""

    name: str
    plan: SlicePlan
    summary: str
    """What it shows and where it comes from, in a line."""


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="lingshu",
            plan=SlicePlan(count=32, size=None, tokens=8192),
            summary="up to 32 slices, as large as 8,192 tokens of Qwen2.5-VL hold; Lingshu's authors tried 6 "
            "pictures at most",
        ),
        Recipe(
            name="medgemma-ct",
            plan=SlicePlan(count=85, size=896, window="ct-medgemma", square=True),
            summary="85 slices of a CT, -1024..1024, -135..215 and 0..80 HU as red, green and blue, squares "
            "of 896 px, as MedGemma 1.5's notebook; in order of place, not of Instance Number",
        ),
        Recipe(
            name="radfm",
            plan=SlicePlan(count=64, size=512, square=True, multiple=32),
            summary="64 slices, squares of 512 px; RadFM takes depths of 4, 8 to 64 and rescales grey levels "
            "from the lowest to the highest",
        ),
        Recipe(
            name="hulu-med",
            plan=SlicePlan(count=180, size=448, window="slice-range", tokens=16_384),
            summary="180 slices, each from its own lowest to its own highest value (Hounsfield units are "
            "lost), within 16,384 tokens",
        ),
        Recipe(
            name="overview+zoom",
            plan=SlicePlan(count=40, size=224, crop=True, zoom="evenly", zoom_count=8, zoom_size=504),
            summary="32 small pictures and 8 large ones among them, cut to the body; "
            "zoom=around:X/Y/Z puts the large ones at a place",
        ),
    )
}
"""Recipes by name."""


def settings_of(text: str) -> dict[str, Any]:
    """The settings of `SlicePlan` that a text names: all of a recipe's, else only those that it gives.

    Args:
        text: A recipe's name, `key=value` pairs, or both, with commas between: `radfm`,
            `count=32,select=every:5`, `medgemma-ct,count=40`. `none` stands for no value, `auto` for a count
            or size that the tokens decide.

    Raises:
        SettingsError: If there is no such recipe or setting, one comes twice, or a value is of another kind.

    >>> settings_of("count=32,crop=yes,size=auto")
    {'count': 32, 'crop': True, 'size': None}
    """
    found: dict[str, Any] = {}
    given: set[str] = set()
    for number, part in enumerate(one.strip() for one in text.split(",")):
        key, equals, value = part.partition("=")
        if equals:
            key = key.strip()
            if key in given:
                raise SettingsError(f"plan {text!r}: {key} is given twice, expected once; leave one out")
            given.add(key)
            found[key] = _value(key, value.strip())
        elif number == 0 and part in RECIPES:
            found = {one.name: getattr(RECIPES[part].plan, one.name) for one in fields(SlicePlan)}
        else:
            raise SettingsError(
                f"plan {text!r}: found {part!r}, expected key=value, or one of {', '.join(RECIPES)} first; "
                "see: medmllm slices --plan list"
            )
    return found


def _value(key: str, text: str) -> Any:
    kinds = _kinds().get(key)
    if kinds is None:
        raise SettingsError(f"plan: no setting is named {key!r}; there are: {', '.join(_kinds())}")
    if type(None) in kinds and text in ("none", "auto"):
        return None if not (key == "window" and text == "auto") else text
    if bool in kinds:
        if text in ("yes", "true", "no", "false"):
            return text in ("yes", "true")
        raise SettingsError(f"plan: {key} is {text!r}, expected yes or no")
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                raise SettingsError(f"plan: {key} is {text!r}, expected a number") from None
    return text


def _kinds() -> dict[str, tuple[Any, ...]]:
    """The types of each setting."""
    return {
        name: typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
        for name, kind in typing.get_type_hints(SlicePlan).items()
    }


def listing() -> list[tuple[str, str]]:
    """Each recipe's name and what it is, in a line."""
    return [(recipe.name, recipe.summary) for recipe in RECIPES.values()]
