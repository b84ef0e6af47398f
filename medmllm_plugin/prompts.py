"""A prompt as typed parts: what a model is asked, before it is tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class VolumePart:
    """Pictures that are the slices of one volume, for a model that sees them as such."""

    number: int
    """Its number among the volumes of the prompt, from 1."""
    pictures: tuple[int, ...]
    """The numbers of the pictures, in the order of its depth."""
    planes: tuple[NDArray[np.uint8], ...]
    """The pictures, each of shape (rows, columns, 3), all of one shape."""
    turned: tuple[bool, bool] = (False, False)
    """Whether rows, and whether columns, run the other way here than in the pictures."""

    def __post_init__(self) -> None:
        shapes = {plane.shape for plane in self.planes}
        if len(shapes) != 1 or len(self.pictures) != len(self.planes):
            raise ValueError(f"a volume is made of pictures of one shape, each with its number, got {shapes}")


Part = TextPart | PicturePart | VolumePart


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
    _hash: list[str] = field(default_factory=list, init=False, repr=False, compare=False)
    """What `sha256` was found to be."""

    def __post_init__(self) -> None:
        roles = [turn.role for turn in self.turns]
        if roles != ["assistant", "user"] * (len(roles) // 2):
            raise ValueError(f"turns are an answer and a question in turn, got {roles}")

    @property
    def pictures(self) -> tuple[PicturePart, ...]:
        """The pictures in the order they are shown."""
        return tuple(part for part in self.parts if isinstance(part, PicturePart))

    @property
    def images(self) -> tuple[PicturePart | VolumePart, ...]:
        """The pictures and volumes in the order they are shown."""
        return tuple(part for part in self.parts if not isinstance(part, TextPart))

    @property
    def text(self) -> str:
        """All words, with `<image_k>` where picture k stands: what `sha256` and tests look at.

        Volume k stands there as `<volume_k>`.
        """
        words = [part.text if isinstance(part, TextPart) else _mark(part) for part in self.parts]
        return "\n".join([self.system, *words, *(f"<{turn.role}> {turn.text}" for turn in self.turns)])

    @property
    def sha256(self) -> str:
        """Hash over the words and the pictures."""
        if not self._hash:
            self._hash.append(self._hashed())
        return self._hash[0]

    def _hashed(self) -> str:
        digest = hashlib.sha256(self.text.encode())
        for part in self.images:
            for plane in (part.pixels,) if isinstance(part, PicturePart) else part.planes:
                digest.update(np.ascontiguousarray(one_channel(plane)).data)
        return digest.hexdigest()


def _mark(part: PicturePart | VolumePart) -> str:
    return f"<image_{part.number}>" if isinstance(part, PicturePart) else f"<volume_{part.number}>"
