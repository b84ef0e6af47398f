"""RadFM's folder as it is published: a pickled checkpoint, the tokenizer in a folder beside it, no sizes."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models.card import CARD, read_card, read_object
from medmllm_plugin.models.folder import CONFIG, ModelFolder
from medmllm_plugin.models.radfm.sizes import LANGUAGE, TYPE, VisionSizes

CHECKPOINT = "pytorch_model.bin"
"""The published weights."""

TOKENIZER_FOLDER = "Language_files"
"""Where the tokenizer is."""


def is_published(path: Path) -> bool:
    """Whether a folder is RadFM as it was downloaded."""
    return (path / CHECKPOINT).is_file() and (path / TOKENIZER_FOLDER).is_dir()


def published_folder(path: Path) -> ModelFolder:
    """The folder as other models' folders are described.

    Its sizes are as published, unless a `config.json` of type `radfm` lies in it and says others.

    Raises:
        SettingsError: If it is none, or sizes are no sizes.
    """
    if not is_published(path):
        raise SettingsError(
            f"{path}: found no {CHECKPOINT} beside {TOKENIZER_FOLDER}/, expected RadFM as it is published; "
            "name the folder it was downloaded to"
        )
    said: dict[str, Any] = {}
    if (path / CONFIG).is_file():
        said = read_object(path / CONFIG, remedy="remove it or correct it")
        if said.get("model_type") != TYPE:
            raise SettingsError(
                f"{path / CONFIG}: found model_type {said.get('model_type')!r}, expected {TYPE!r}; remove it"
            )
    sizes, language = sizes_of(said, where=path / CONFIG)
    card = read_card(path / CARD)
    return ModelFolder(
        path=path,
        name=card.name or "RadFM",
        version=card.version or "",
        config={"model_type": TYPE, "vision_config": asdict(sizes), "text_config": language},
        card=card,
        weights=(path / CHECKPOINT,),
    )


def tokenizer_place(folder: ModelFolder) -> Path:
    """Where the tokenizer of a folder is, after seeing that it can be read here.

    Raises:
        SettingsError: If it is the file that its authors saved, and what reads that is not installed.
    """
    inside = folder.path / TOKENIZER_FOLDER
    place = inside if inside.is_dir() else folder.path
    packages = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}
    if (place / "tokenizer.model").is_file() and not (place / "tokenizer.json").is_file():
        missing = [name for name, module in packages.items() if not _is_there(module)]
        if missing:
            raise SettingsError(
                f"{place}: to read tokenizer.model needs {' and '.join(missing)}, not installed here; run: "
                f"pip install {' '.join(missing)}, or put the tokenizer.json of LLaMA-13B there"
            )
    return place


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def sizes_of(config: dict[str, Any], *, where: object) -> tuple[VisionSizes, dict[str, Any]]:
    """The sizes of both halves that a config.json says; as published where it says none.

    Args:
        config: Its content.
        where: What the error begins with.

    Raises:
        SettingsError: If they are no sizes.
    """
    try:
        vision = VisionSizes(**(config.get("vision_config") or {}))
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{where}: vision_config: {error}; copy the model again") from error
    return vision, {**LANGUAGE, **(config.get("text_config") or {})}
