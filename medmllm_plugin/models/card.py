"""The card `medmllm.json` in a model's folder: what the model is for and what it knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmllm_plugin import codes
from medmllm_plugin.errors import SettingsError

CARD = "medmllm.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What `medmllm.json` in a model's folder says of the model; None where it says nothing."""

    name: str | None = None
    version: str | None = None
    findings: tuple[str, ...] | None = None
    """Keys of the findings it knows."""
    sites: tuple[str, ...] | None = None
    """Keys of the sites it knows."""
    tasks: tuple[str, ...] | None = None
    """Names of the tasks it was made for."""
    terse: bool | None = None
    plan: dict[str, Any] | None = None
    """Settings of `transforms.slices.SlicePlan` that suit it."""
    plans: tuple[dict[str, Any], ...] | None = None
    """Plans for some studies, each as `{"for": [KIND OR MODALITY, ...], "plan": {...}}`."""
    pictures: int | None = None
    """Most pictures in one prompt."""
    boxes: bool | None = None
    box_limit: int | None = None
    domain: str | None = None
    phantoms: tuple[str, ...] | None = None
    """The only kinds of synthetic phantoms it was made for; every other study is outside its domain."""
    guard: str | None = None
    """The file in the folder that knows what its studies look like, see `guard.Guard`."""
    calibration: str | None = None
    """The file in the folder that says what its certainties are worth, see `calibration.Calibration`."""
    specialists: tuple[str, ...] | None = None
    """Folders inside, named after the kind of study that the model in each reads; see `specialists`."""
    closer: dict[str, Any] | None = None
    """Who looks from near at what was found: `{"folder": NAME, "findings": [KEY, ...]}`, a model's folder
    inside and what it was made for; see `models.Closer`."""
    free_text: bool | None = None
    """Whether it answers in prose rather than JSON."""
    measured: dict[str, dict[str, float]] | None = None
    """What it reached on phantoms that it never saw: by kind, then by keys of `scoring.MEASURES`."""


def read_card(path: Path) -> Card:
    """The card, empty if there is none.

    Raises:
        SettingsError: If it is not as this module describes it.
    """
    if not path.exists():
        return Card()
    content = read_object(path, remedy="correct the card or remove it")
    fields: dict[str, Any] = {}
    for key, value in content.items():
        if key not in _FIELDS:
            expected = ", ".join(_FIELDS)
            raise SettingsError(
                f"{path}: found the field {key!r}, expected one of {expected}; correct its name"
            )
        expected, holds = _FIELDS[key]
        if not holds(value):
            raise SettingsError(
                f"{path}: {key}: found {json.dumps(value)[:80]}, expected {expected}; correct the card"
            )
        fields[key] = tuple(value) if isinstance(value, list) else value
    return Card(**fields)


def read_object(path: Path, *, remedy: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        SettingsError: If there is none; `remedy` says what to do.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(
            f"{path.parent}: found no {path.name}, expected a model's folder; {remedy}"
        ) from error
    except OSError as error:
        raise SettingsError(f"{path}: can't be read: {error.strerror}; {remedy}") from error
    except ValueError as error:
        raise SettingsError(f"{path}: found no valid JSON ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: found a {type(content).__name__}, expected an object; {remedy}")
    return content


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_truth(value: object) -> bool:
    return isinstance(value, bool)


def _is_list(holds: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and bool(value) and all(map(holds, value))


def _is_figures(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(figures, dict)
        and all(isinstance(one, int | float) and not isinstance(one, bool) for one in figures.values())
        for figures in value.values()
    )


def _is_plan(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"for", "plan"}
        and _is_list(_is_text)(value["for"])
        and isinstance(value["plan"], dict)
    )


def _is_closer(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"folder", "findings"}
        and _is_file_name(value["folder"])
        and _FIELDS["findings"][1](value["findings"])
    )


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and _is_text(value) and Path(value).name == value


_FIELDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "name": ("a text", _is_text),
    "version": ("a text", _is_text),
    "findings": (
        "a list of findings of codes.toml",
        _is_list(lambda value: isinstance(value, str) and value in codes.findings()),
    ),
    "sites": (
        "a list of sites of codes.toml",
        _is_list(lambda value: isinstance(value, str) and value in codes.sites()),
    ),
    "tasks": ("a list of names of tasks", _is_list(_is_text)),
    "terse": ("true or false", _is_truth),
    "plan": ("an object of slice plan settings", lambda value: isinstance(value, dict)),
    "plans": ('a list of {"for": [kinds or modalities], "plan": {settings}}', _is_list(_is_plan)),
    "pictures": ("a number from 1", _is_count),
    "boxes": ("true or false", _is_truth),
    "box_limit": ("a number from 1", _is_count),
    "domain": ("a text", _is_text),
    "phantoms": ("a list of kinds of phantoms", _is_list(_is_text)),
    "guard": ("the name of a file in the folder", _is_file_name),
    "calibration": ("the name of a file in the folder", _is_file_name),
    "specialists": ("a list of names of folders inside", _is_list(_is_file_name)),
    "closer": ('{"folder": a name, "findings": [findings of codes.toml]}', _is_closer),
    "free_text": ("true or false", _is_truth),
    "measured": ("an object of numbers for each kind of phantom", _is_figures),
}
"""What each field of a card holds, in words and as a check."""
