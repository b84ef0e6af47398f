"""A prompt as typed parts: what a model is asked, before it is tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.pictures import one_channel


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPart:
    """Words."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PicturePart:
    """A picture, shape (rows, columns, 3)."""

    number: int
    """Its number, from 1, by which the reply cites it."""
    pixels: NDArray[np.uint8]


Part = TextPart | PicturePart


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What was said after the first message."""

    role: Literal["assistant", "user"]
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What a model is asked: a system text, then a message of parts in the order they are shown.

    A later question on the same study begins with the very same message, so that what a model has computed of
    it can be kept.
    """

    system: str
    parts: tuple[Part, ...]
    """The first message of the user."""
    turns: tuple[Turn, ...] = ()
    """What followed it: answers and questions in turn, from an answer to a question."""

    def __post_init__(self) -> None:
        roles = [turn.role for turn in self.turns]
        if roles != ["assistant", "user"] * (len(roles) // 2):
            raise ValueError(f"turns are an answer and a question in turn, got {roles}")

    @property
    def pictures(self) -> tuple[PicturePart, ...]:
        """The pictures in the order they are shown."""
        return tuple(part for part in self.parts if isinstance(part, PicturePart))

    @property
    def text(self) -> str:
        """All words, with `<image_k>` where picture k stands: what `sha256` and tests look at."""
        words = [part.text if isinstance(part, TextPart) else f"<image_{part.number}>" for part in self.parts]
        return "\n".join([self.system, *words, *(f"<{turn.role}> {turn.text}" for turn in self.turns)])

    @property
    def sha256(self) -> str:
        """Hash over the words and the pictures."""
        digest = hashlib.sha256(self.text.encode())
        for part in self.pictures:
            digest.update(np.ascontiguousarray(one_channel(part.pixels)).data)
        return digest.hexdigest()
