"""A prompt as messages of a chat-completions request, and pictures as such servers take them."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medmllm_plugin.models.families.family import Family, harmless
from medmllm_plugin.pictures import one_channel, png_bytes
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart

KEPT_BYTES = 128 << 20
"""Encoded pictures kept for the next question on them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """A picture as a PNG file."""

    sha256: str
    """Over its pixels and shape: what a server knows it by."""
    png: bytes

    @property
    def data_url(self) -> str:
        """The whole picture as an address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


class Encoder:
    """Encodes pictures and keeps the latest, so that a second question on a study encodes none again."""

    def __init__(self, *, most_bytes: int = KEPT_BYTES) -> None:
        """Begin with none."""
        self._kept: OrderedDict[str, Encoded] = OrderedDict()
        self._bytes = 0
        self._most = most_bytes
        self._lock = threading.Lock()

    def __call__(self, picture: PicturePart) -> Encoded:
        """The picture as a PNG file, without loss."""
        pixels = np.ascontiguousarray(one_channel(picture.pixels))
        digest = hashlib.sha256(repr(pixels.shape).encode())
        digest.update(pixels.data)
        sha256 = digest.hexdigest()
        with self._lock:
            if sha256 in self._kept:
                self._kept.move_to_end(sha256)
                return self._kept[sha256]
        encoded = Encoded(sha256=sha256, png=png_bytes(picture.pixels))
        with self._lock:
            if sha256 not in self._kept:
                self._kept[sha256] = encoded
                self._bytes += len(encoded.png)
            while self._bytes > self._most and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1].png)
        return encoded


CONTROLS = ("<|", "<image>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]")
"""Words that have a meaning of their own for models of families that are not known."""

PicturePlace = Callable[[Encoded], dict[str, Any]]
"""A picture as a part of a message."""


def whole(picture: Encoded) -> dict[str, Any]:
    """The picture itself, as any server takes it."""
    return {"type": "image_url", "image_url": {"url": picture.data_url}}


def by_hash(known: Collection[str]) -> PicturePlace:
    """Pictures that a vLLM server has been sent are named by their hash, others are sent with it.

    vLLM takes a `uuid` beside `image_url`, and then the `uuid` alone as long as it keeps the picture.

    Args:
        known: Hashes of the pictures that it has.
    """

    def place(picture: Encoded) -> dict[str, Any]:
        if picture.sha256 in known:
            return {"type": "image_url", "image_url": None, "uuid": picture.sha256}
        return {**whole(picture), "uuid": picture.sha256}

    return place


def by_file(folder: Path) -> PicturePlace:
    """Pictures are put into a folder that the server reads, and named by their place there."""

    def place(picture: Encoded) -> dict[str, Any]:
        path = folder / f"{picture.sha256}.png"
        if not path.exists():
            path.write_bytes(picture.png)
        return {"type": "image_url", "image_url": {"url": path.as_uri()}}

    return place


def messages(
    prompt: Prompt,
    pictures: Mapping[int, Encoded],
    place: PicturePlace,
    *,
    family: Family | None = None,
    schema: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The messages of a prompt, in their order; no words in them can pose as the server's control tokens.

    Args:
        prompt: What is asked.
        pictures: Its pictures by number, encoded.
        place: How a picture stands in a message.
        family: Of the model, whose order of words and pictures is kept to; None if that is not known.
        schema: Told in words at the end, for a server that doesn't bind replies to it.

    >>> prompt = Prompt(system="You read.", parts=(TextPart(text="What is it? <|im_end|>"),))
    >>> messages(prompt, {}, whole)
    [{'role': 'system', 'content': 'You read.'},
     {'role': 'user', 'content': [{'type': 'text', 'text': 'What is it? < |im_end|>'}]}]
    """
    controls = family.controls if family is not None else CONTROLS

    def text(words: str) -> dict[str, Any]:
        return {"type": "text", "text": harmless(words, controls)}

    parts = prompt.parts if family is None else family.arranged(prompt.parts)
    told: list[dict[str, Any]] = [
        {
            "role": "user",
            "content": [
                text(part.text) if isinstance(part, TextPart) else place(pictures[part.number])
                for part in parts
            ],
        },
        *({"role": turn.role, "content": [text(turn.text)]} for turn in prompt.turns),
    ]
    if schema is not None:
        words = "Your answer must be one JSON object that satisfies this JSON schema, and nothing else:\n"
        told[-1]["content"].append(text(words + json.dumps(schema, ensure_ascii=False)))
    system = [{"role": "system", "content": harmless(prompt.system, controls)}] if prompt.system else []
    return [*system, *told]
