"""Models by name: ours, those of installed packages (group `medmllm.models`), those of the settings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmllm_plugin import config
from medmllm_plugin.config import NamedModel, Settings
from medmllm_plugin.errors import MedMLLMError, SettingsError

if TYPE_CHECKING:
    from medmllm_plugin.models import Model

GROUP = "medmllm.models"
OURS = "medmllm-plugin"
"""The distribution whose names others can't take."""

FOLDERS = "transformers"
"""The model that opens folders and hub ids given without a name."""


def models(settings: Settings | None = None) -> list[tuple[str, str]]:
    """Each model's name and what it is, in a line; ours first, the user's own last.

    Loads the modules that register models, but opens none: torch stays out. One that is broken says so and
    hides no other.

    Args:
        settings: Where models have names of the user's; None for the file that `config.load` finds.

    Raises:
        SettingsError: If the settings can't be used.
    """
    entries = _entries()
    named = _named(settings, entries)
    return [
        *((name, _summary(entry)) for name, entry in entries.items()),
        *((name, one.summary) for name, one in named.items()),
    ]


def open_model(name: str, *, settings: Settings | None = None) -> Model:
    """The model that `--model` names.

    Args:
        name: `NAME` or `NAME:SPEC` of a registered model; a name of the settings; or a folder or hub id,
            short for `transformers:SPEC`.
        settings: As in `models`; looked at only if no registered model has the name.

    Raises:
        SettingsError: If there is no such model, or it can't be opened with this SPEC.
        ModelError: If it is there but can't be loaded.
    """
    entries = _entries()
    head, _, spec = name.partition(":")
    entry = entries.get(head)
    named: Mapping[str, NamedModel] = {}
    if entry is None and not _is_path(name):
        named = _named(settings, entries)
        if name in named:
            return _open_named(named[name], entries)
    if entry is None and _looks_like_a_place(name):
        entry, spec = entries.get(FOLDERS), name
    if entry is None:
        raise SettingsError(
            f"model {name!r}: found no such name, expected one of {', '.join((*entries, *named)) or 'none'}, "
            f"a model's folder, or a hub id; {_remedy(entries)}"
        )
    opened: Model = _load(entry)(spec)
    return opened


def _named(settings: Settings | None, entries: Mapping[str, EntryPoint]) -> Mapping[str, NamedModel]:
    """The models that the settings name; none may take the name of a registered one."""
    named = (config.load() if settings is None else settings).models
    for name in named.keys() & entries.keys():
        raise SettingsError(f"{named[name].where}: found the name of an installed model, choose another")
    return named


def _open_named(one: NamedModel, entries: Mapping[str, EntryPoint]) -> Model:
    entry = entries.get(one.uses)
    if entry is None:
        raise SettingsError(
            f"{one.where}.uses: found {one.uses!r}, expected one of {', '.join(entries) or 'none'}; "
            f"{_remedy(entries)}"
        )
    try:
        opened: Model = _load(entry)(one.spec)
    except SettingsError as error:
        raise SettingsError(f"{one.where}: {error}") from error
    return opened


def _remedy(entries: Mapping[str, EntryPoint]) -> str:
    return "see: medmllm models" if entries else "run: pip install medmllm-plugin"


def _looks_like_a_place(name: str) -> bool:
    return bool(name) and (_is_path(name) or Path(name.partition("?")[0]).is_dir())


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.startswith("~")


def _entries() -> dict[str, EntryPoint]:
    """By name. Ours win their names; between others the first in the order of their distributions does."""
    found = sorted(
        entry_points(group=GROUP), key=lambda entry: (_owner(entry) != OURS, _owner(entry), entry.name)
    )
    entries: dict[str, EntryPoint] = {}
    for entry in found:
        entries.setdefault(entry.name, entry)
    return entries


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else ""


def _load(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except MedMLLMError:
        raise
    except Exception as error:
        raise SettingsError(
            f"model {entry.name}: {_broken(entry, error)}; install that package again"
        ) from error


def _summary(entry: EntryPoint) -> str:
    try:
        text = inspect.getdoc(entry.load()) or "no description"
    except Exception as error:
        return _broken(entry, error)
    return text.partition("\n")[0]


def _broken(entry: EntryPoint, error: Exception) -> str:
    reason = " ".join(str(error).split())[:160]
    return f"its package {_owner(entry) or entry.module} can't be loaded ({type(error).__name__}: {reason})"
