"""Several small models as one: each reads one kind of study, and what a study looks like says whose it is.

A folder of them has a card with a name and `specialists`: a folder inside for each kind, which is a model's
folder by itself, with a card and a guard of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.guard import Guard, Likeness
from medmllm_plugin.models import Ask, Cancel, Closer, Progress, Reply, transformers
from medmllm_plugin.models.abilities import capabilities, guard_of
from medmllm_plugin.models.card import CARD, Card, read_card
from medmllm_plugin.models.families import family_of
from medmllm_plugin.models.folder import ModelFolder, open_folder
from medmllm_plugin.models.in_folder import InFolder
from medmllm_plugin.sliceset import SliceSet


class Specialists(InFolder):
    """Models of one family and vocabulary, each opened when the first study of its kind is read."""

    def __init__(self, folder: ModelFolder, parts: dict[str, ModelFolder], guard: Guard) -> None:
        """Take what `open_specialists` has found.

        Args:
            folder: What the cards say together, and the weights of all.
            parts: The folder of each, by kind.
            guard: Knows what each kind looks like.
        """
        able = capabilities(
            folder,
            family_of(folder.model_type, where=folder.path),
            processor=None,
            context_tokens=int(folder.config["text_config"]["max_position_embeddings"]),
        )
        super().__init__(folder, able=able, guard=guard)
        self._parts, self._likenesses = parts, guard.likenesses
        self._opened: dict[str, transformers.TransformersModel] = {}
        self._lock = threading.Lock()

    @property
    def dtype(self) -> str:
        """Number type they compute in."""
        return self._any().dtype

    def box_to_picture(self, box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
        """A box by the family's convention as (column_min, row_min, column_max, row_max) of the picture."""
        return self._any().box_to_picture(box, rows=rows, columns=columns)

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        """Each ask answered by the one whose kind its pictures are most like; see `TransformersModel`."""
        kinds = [self._kind_of([one.pixels for one in ask.prompt.pictures]) for ask in asks]
        found: dict[int, Reply] = {}
        for kind in dict.fromkeys(kinds):
            numbers = [number for number, its in enumerate(kinds) if its == kind]
            given = self._open(kind).replies(
                [asks[number] for number in numbers], progress=progress, cancel=cancel
            )
            found |= dict(zip(numbers, given, strict=True))
        return [found[number] for number in range(len(asks))]

    def closer(self, slices: SliceSet) -> Closer | None:
        """Of the one whose kind the pictures are most like; see `TransformersModel`."""
        kind = self._kind_of([one.pixels for one in slices.slices])
        return None if self._parts[kind].card.closer is None else self._open(kind).closer(slices)

    def forget(self) -> None:
        """Forget the studies that were read, as when the last question on them was answered."""
        for one in list(self._opened.values()):
            one.forget()

    def _kind_of(self, pictures: Sequence[NDArray[np.uint8]]) -> str:
        """Of those that take so many pictures the one whose kind they are most like."""
        most = {kind: part.card.pictures or 0 for kind, part in self._parts.items()}
        fit = tuple(one for one in self._likenesses if most[one.kind] >= len(pictures))
        return Guard(likenesses=fit or self._likenesses).look(pictures).kind

    def _open(self, kind: str) -> transformers.TransformersModel:
        with self._lock:
            if kind not in self._opened:
                self._opened[kind] = transformers.open_model(str(self._parts[kind].path))
            return self._opened[kind]

    def _any(self) -> transformers.TransformersModel:
        return next(iter(self._opened.values()), None) or self._open(next(iter(self._parts)))


def open_specialists(path: Path) -> Specialists:
    """The models in a folder whose card names their kinds (`specialists`); none is loaded yet.

    Raises:
        SettingsError: If a card doesn't say what they need, or a folder or a guard isn't there.
    """
    card = read_card(path / CARD)
    parts = {kind: open_folder(str(path / kind)) for kind in card.specialists or ()}
    if not parts or card.name is None:
        raise SettingsError(
            f"{path / CARD}: found no name or no specialists, expected both; copy the model again"
        )
    likenesses: list[Likeness] = []
    for kind, part in parts.items():
        guard = guard_of(part)
        found = () if guard is None else guard.kinds
        if guard is None or found != (kind,) or part.card.pictures is None:
            raise SettingsError(
                f"{part.path / CARD}: found a guard of {', '.join(found) or 'nothing'}, expected pictures "
                f"and a guard of {kind}; copy the model again"
            )
        likenesses += guard.likenesses
    folder = ModelFolder(
        path=path,
        name=card.name,
        version=card.version or "",
        config=next(iter(parts.values())).config,
        card=_together(card, {kind: part.card for kind, part in parts.items()}),
        weights=tuple(weight for part in parts.values() for weight in part.weights),
    )
    return Specialists(folder, parts, Guard(likenesses=tuple(likenesses)))


def _together(card: Card, parts: Mapping[str, Card]) -> Card:
    """What can be said of all: findings and plans of any, tasks of each."""
    cards = list(parts.values())
    return replace(
        card,
        findings=_all(one.findings for one in cards),
        sites=_all(one.sites for one in cards),
        tasks=tuple(task for task in cards[0].tasks or () if all(task in (one.tasks or ()) for one in cards)),
        terse=all(one.terse for one in cards),
        boxes=all(one.boxes for one in cards),
        box_limit=max(one.box_limit or 0 for one in cards) or None,
        pictures=max(one.pictures or 0 for one in cards),
        plan=cards[0].plan,
        plans=tuple(plan for one in cards for plan in one.plans or ()),
        phantoms=_all(one.phantoms for one in cards),
        measured={kind: figures for one in cards for kind, figures in (one.measured or {}).items()},
    )


def _all(said: Iterable[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(key for keys in said for key in keys or ())) or None
