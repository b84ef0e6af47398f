"""Models by name: those of this package, and of any installed one with entry points in `medmllm.models`."""

from __future__ import annotations

import inspect
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmllm_plugin.errors import MedMLLMError, SettingsError

if TYPE_CHECKING:
    from medmllm_plugin.models import Model

GROUP = "medmllm.models"
OURS = "medmllm-plugin"
"""The distribution whose names others can't take."""

FOLDERS = "transformers"
"""The model that opens folders and hub ids given without a name."""


def models() -> list[tuple[str, str]]:
    """Each model's name and what it is, in a line; ours first. One that is broken says so and hides no other.

    Loads the modules that register models, but opens none: torch stays out.
    """
    return [(name, _summary(entry)) for name, entry in _entries().items()]


def open_model(name: str) -> Model:
    """The model that `--model` names.

    Args:
        name: `NAME` or `NAME:SPEC` of a registered model; or a folder or hub id, short for
            `transformers:SPEC`.

    Raises:
        SettingsError: If there is no such model, or it can't be opened with this SPEC.
        ModelError: If it is there but can't be loaded.
    """
    entries = _entries()
    head, _, spec = name.partition(":")
    entry = entries.get(head)
    if entry is None and _looks_like_a_place(name):
        entry, spec = entries.get(FOLDERS), name
    if entry is None:
        raise SettingsError(
            f"model {name!r}: found no such name, expected one of {', '.join(entries) or 'none'}, "
            f"a model's folder, or a hub id; {_remedy(entries)}"
        )
    opened: Model = _load(entry)(spec)
    return opened


def _remedy(entries: dict[str, EntryPoint]) -> str:
    return "see: medmllm models" if entries else "run: pip install medmllm-plugin"


def _looks_like_a_place(name: str) -> bool:
    return bool(name) and ("/" in name or "\\" in name or name.startswith("~") or Path(name).is_dir())


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
