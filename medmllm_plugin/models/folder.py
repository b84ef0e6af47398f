"""A model's folder: what is in it, looked at and checked before anything is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models.card import CARD, Card, read_card, read_object
from medmllm_plugin.models.weight_files import ADAPTER, files_sha256, weight_files

CONFIG = "config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "merges.txt", "*.model", "*.npz")
"""What is fetched of a model on the hub: no code, no pickled weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter:
    """A folder with a LoRA adapter, as peft saves it."""

    path: Path
    rank: int
    """Largest rank of its matrices."""
    config: dict[str, Any]
    """The content of `adapter_config.json`."""

    @property
    def weights(self) -> Path:
        """Its weight file."""
        return self.path / ADAPTER_WEIGHTS


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFolder:
    """A folder in the layout of the public model hub."""

    path: Path
    name: str
    """The card's name, else the hub id, else the folder's name; with an adapter `+` and its folder's name."""
    version: str
    """The card's version, else the commit on the hub, else the empty string."""
    config: dict[str, Any]
    """The content of `config.json`."""
    card: Card
    weights: tuple[Path, ...]
    """The weight files, sorted by name; all there."""
    adapter: Adapter | None = None

    @property
    def model_type(self) -> str:
        """The family's name in `config.json`."""
        return str(self.config.get("model_type", ""))

    @property
    def weights_bytes(self) -> int:
        """Size of all weight files of the model."""
        return sum(path.stat().st_size for path in self.weights)

    def weights_sha256(self) -> str:
        """Hash over the weights, of an adapter too; see `weight_files.files_sha256`."""
        return files_sha256([*self.weights, *([] if self.adapter is None else [self.adapter.weights])])


def open_folder(spec: str, *, adapter: str | None = None, local_files_only: bool = False) -> ModelFolder:
    """The model's folder that `spec` names.

    Args:
        spec: A folder, or a hub id `ORGANISATION/MODEL[@REVISION]`, which is fetched into the local cache if
            it isn't there, unless the environment variable HF_HUB_OFFLINE is set.
        adapter: The folder of a LoRA adapter for it.
        local_files_only: True: the hub is not asked.

    Raises:
        SettingsError: If there is no such folder, or it lacks something that a model has.
    """
    path = Path(spec).expanduser()
    if path.is_dir():
        name, version = path.resolve().name, ""
    else:
        path = _fetch(spec, local_files_only=local_files_only)
        name, version = spec.partition("@")[0], path.name
    config = read_object(path / CONFIG, remedy=_where_else(path))
    card = read_card(path / CARD)
    added = None if adapter is None else _open_adapter(Path(adapter).expanduser())
    weights = weight_files(path)
    if card.closer is not None:
        weights = (*weights, *weight_files(path / card.closer["folder"]))
    return ModelFolder(
        path=path,
        name=(card.name or name) + ("" if added is None else f"+{added.path.resolve().name}"),
        version=card.version or version,
        config=config,
        card=card if added is None else _of_base_only(card),
        weights=weights,
        adapter=added,
    )


def _open_adapter(path: Path) -> Adapter:
    if not path.is_dir():
        raise SettingsError(f"adapter={path}: found no such folder, expected a LoRA adapter; check the name")
    remedy = "name the folder that peft saved the adapter in"
    config = read_object(path / ADAPTER, remedy=remedy)
    kind, rank = config.get("peft_type"), config.get("r")
    if kind != "LORA" or not isinstance(rank, int) or rank < 1:
        raise SettingsError(
            f"{path / ADAPTER}: found peft_type {kind!r}, r {rank!r}, expected LORA; {remedy}"
        )
    adapter = Adapter(path=path, rank=max(rank, *_ranks(config.get("rank_pattern"))), config=config)
    if not adapter.weights.is_file():
        raise SettingsError(f"{path}: found no {ADAPTER_WEIGHTS}, expected the adapter's weights; {remedy}")
    return adapter


def _ranks(pattern: object) -> list[int]:
    ranks = pattern.values() if isinstance(pattern, dict) else ()
    return [rank for rank in ranks if isinstance(rank, int)] or [0]


def _of_base_only(card: Card) -> Card:
    """The card without what was measured of the model: an adapter makes another one of it."""
    return replace(card, measured=None, calibration=None)


def _where_else(path: Path) -> str:
    """What to do about a folder without a model, by what is in the folders inside."""
    inside = next(
        (one.parent for depth in ("*", "*/*") for one in sorted(path.glob(f"{depth}/{CONFIG}"))), None
    )
    remedy = "name the folder that holds a model's config.json and weights"
    return remedy if inside is None else f"{remedy}, such as {inside}"


def _fetch(spec: str, *, local_files_only: bool) -> Path:
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
                local_files_only=local_files_only or constants.HF_HUB_OFFLINE,
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
        if local_files_only:
            why = "local_files_only is set"
        raise SettingsError(
            f"{spec}: found neither such a folder here nor such a model in the hub's local cache, and {why}; "
            "check the name, or name a folder"
        ) from error
