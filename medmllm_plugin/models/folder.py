"""A model's folder: what is in it, looked at and checked before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from medmllm_plugin import codes
from medmllm_plugin.errors import SettingsError

CARD = "medmllm.json"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "merges.txt", "*.model", "*.npz")
"""What is fetched of a model on the hub: no code, no pickled weights."""


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
    measured: dict[str, dict[str, float]] | None = None
    """What it reached on phantoms that it never saw: by kind, then by keys of `scoring.MEASURES`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFolder:
    """A folder in the layout of the public model hub."""

    path: Path
    name: str
    """The card's name, else the hub id, else the folder's name."""
    version: str
    """The card's version, else the commit on the hub, else the empty string."""
    config: dict[str, Any]
    """The content of `config.json`."""
    card: Card
    weights: tuple[Path, ...]
    """The weight files, sorted by name; all there."""

    @property
    def model_type(self) -> str:
        """The family's name in `config.json`."""
        return str(self.config.get("model_type", ""))

    @property
    def weights_bytes(self) -> int:
        """Size of all weight files."""
        return sum(path.stat().st_size for path in self.weights)

    def weights_sha256(self) -> str:
        """Hash over the weights: over the file's bytes; of several files, over their hashes in order of name.

        So `sha256sum` says the same of one file. Of several, the hashes are joined as 64 hexadecimal digits
        each, without a break, and hashed again. Every byte is read, about a second for a gigabyte, once in a
        process unless a file changes.
        """
        hashes = []
        for path in self.weights:
            stat = path.stat()
            hashes.append(_file_sha256(path, stat.st_size, stat.st_mtime_ns))
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def open_folder(spec: str) -> ModelFolder:
    """The model's folder that `spec` names.

    Args:
        spec: A folder, or a hub id `ORGANISATION/MODEL[@REVISION]`, which is fetched into the local cache if
            it isn't there, unless the environment variable HF_HUB_OFFLINE is set.

    Raises:
        SettingsError: If there is no such folder, or it lacks something that a model has.
    """
    path = Path(spec).expanduser()
    if path.is_dir():
        name, version = path.resolve().name, ""
    else:
        path = _fetch(spec)
        name, version = spec.partition("@")[0], path.name
    config = _read_object(
        path / CONFIG, remedy="name the folder that holds a model's config.json and weights"
    )
    card = _read_card(path / CARD)
    return ModelFolder(
        path=path,
        name=card.name or name,
        version=card.version or version,
        config=config,
        card=card,
        weights=_weight_files(path),
    )


def _fetch(spec: str) -> Path:
    identifier, _, revision = spec.partition("@")
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", identifier):
        found = "a file" if Path(spec).expanduser().exists() else "no such folder"
        raise SettingsError(
            f"{spec}: found {found}, expected a model's folder or a hub id such as ORGANISATION/MODEL"
        )
    from huggingface_hub import constants, errors, snapshot_download

    try:
        return Path(
            snapshot_download(
                identifier,
                revision=revision or None,
                allow_patterns=list(HUB_FILES),
                local_files_only=constants.HF_HUB_OFFLINE,
            )
        )
    except errors.GatedRepoError as error:
        found = "a model on the hub that is not open to you; ask for access there, then run: hf auth login"
        raise SettingsError(f"{spec}: found {found}") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        found = "neither such a folder here nor such a model on the hub; check the name"
        raise SettingsError(f"{spec}: found {found}") from error
    except (OSError, errors.HfHubHTTPError, errors.HFValidationError) as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub can't be reached"
        raise SettingsError(
            f"{spec}: found neither such a folder here nor such a model in the hub's local cache, and {why}; "
            "check the name, or name a folder"
        ) from error


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that transformers will load: the one file if it is there, else those of the index."""
    names: list[object] = [WEIGHTS]
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        weight_map = _read_object(folder / INDEX, remedy="copy the model again").get("weight_map")
        names = list(weight_map.values()) if isinstance(weight_map, dict) else []
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise SettingsError(
                f"{folder / INDEX}: found no usable weight_map, expected names of files beside it; "
                "copy the model again"
            )
    paths = tuple(folder / name for name in sorted(map(str, set(names))))
    for path in paths:
        if not path.is_file():
            raise SettingsError(
                f"{folder}: found no {path.name}, expected the model's weights; copy the model again"
            )
    return paths


@lru_cache(maxsize=64)
def _file_sha256(path: Path, size: int, modified_ns: int) -> str:
    """Hash over a file; size and time are there to forget the hash when the file changes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_object(path: Path, *, remedy: str) -> dict[str, Any]:
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


def _read_card(path: Path) -> Card:
    if not path.exists():
        return Card()
    content = _read_object(path, remedy="correct the card or remove it")
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
    "measured": ("an object of numbers for each kind of phantom", _is_figures),
}
"""What each field of a card holds, in words and as a check."""
