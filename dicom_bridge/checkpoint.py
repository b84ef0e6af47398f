"""What a model said, kept at once: a reading that was cut short goes on where it was, in the same words."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import OutputError
from medmllm_plugin.models import Ask, Cancel, Model, Progress, Reply
from medmllm_plugin.models.wrapped import Wrapped


class Remembering(Wrapped):
    """A model whose replies are kept in a folder, and that never asks twice what it was told."""

    def __init__(self, model: Model, folder: Path, *, asks: bool = True) -> None:
        """Take a model.

        Args:
            model: Who is asked.
            folder: Where replies are kept, one file each; made when there is one.
            asks: Whether the model is asked for what isn't kept; else that is an error.
        """
        super().__init__(model)
        self._folder, self._asks = folder, asks

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        """As `Model.replies`; each is on disk before it is given.

        Raises:
            OutputError: If a reply can't be kept, or isn't kept and the model is not to be asked.
        """
        paths = [self._folder / f"{self._key(one)}.json" for one in asks]
        known = {path: reply for path in paths if (reply := _read(path)) is not None}
        open_asks = {path: one for path, one in zip(paths, asks, strict=True) if path not in known}
        if open_asks and not self._asks:
            raise OutputError(
                f"{self._folder}: found no reply to one of {len(paths)} questions, expected all"
            )
        if open_asks:
            said = self._model.replies(list(open_asks.values()), progress=progress, cancel=cancel)
            for path, reply in zip(open_asks, said, strict=True):
                _write(path, reply)
                known[path] = reply
        return [known[path] for path in paths]

    def beside(self, model: Model) -> Remembering:
        """Another model whose replies are kept in the same folder, told apart by its name and weights."""
        return Remembering(model, self._folder, asks=self._asks)

    def forget(self) -> None:
        """Ask anew from here on."""
        forget(self._folder)

    def _key(self, ask: Ask) -> str:
        """What two asks share only if the same model is asked the same."""
        model = self._model
        parts = (
            *(model.name, model.version, model.weights_sha256, model.dtype, ask.prompt.sha256),
            *(json.dumps(ask.schema, sort_keys=True), str(ask.seed), str(ask.max_tokens)),
            str(ask.temperature),
        )
        return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def forget(folder: Path) -> None:
    """Delete the replies that are kept in a folder."""
    shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> Reply | None:
    try:
        said: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: a kept reply can't be read ({error}); delete it to ask again") from error
    alternatives = tuple(tuple((text, odds) for text, odds in place) for place in said["token_alternatives"])
    tuples = {name: tuple(said[name]) for name in ("token_texts", "token_probabilities", "notes")}
    return Reply(**{**said, **tuples, "token_alternatives": alternatives})


def _write(path: Path, reply: Reply) -> None:
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            json.dump(asdict(reply), file)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise OutputError(f"{path}: a reply can't be kept ({error.strerror}); make room") from error
