"""Words in the pixels of pictures, found before the pictures leave this machine.

What a model is sent is a picture without a header, so only what is burned into its pixels can name anybody.
Where rapidocr is installed, each picture for a model on another machine is read first, and one with words in
it goes nowhere. Side letters and other marks of one or two characters are no words.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.dicom_bridge.node_settings import BurnedIn
from medmllm_plugin.errors import BurnedInTextError, SettingsError
from medmllm_plugin.models import Ask, Cancel, Model, Progress, Reply
from medmllm_plugin.models.wrapped import Wrapped

SHORTEST = 3
"""Letters and digits of what counts as a word."""
LEAST = 0.5
"""Of the score that the reader gives what it read, 0 to 1."""

_REMEMBERED = 4096
"""Pictures whose words are known: a second question shows the same ones."""


def can_look() -> bool:
    """Whether what reads words is installed."""
    return find_spec("rapidocr") is not None and find_spec("onnxruntime") is not None


def screened(model: Model, policy: BurnedIn) -> Model:
    """The model itself where pictures stay on this machine, else one that looks at them first.

    Args:
        model: Any.
        policy: What is done about words, and where nobody can look.

    Raises:
        SettingsError: If pictures would leave, words are to be refused, and nothing is there to read them.
    """
    away = model.capabilities.sends_to
    if not away:
        return model
    if not can_look() and policy is BurnedIn.REFUSE:
        raise SettingsError(
            f"node.burned_in: {model.name} sends pictures to {', '.join(away)} and nobody can look for names "
            'in them; run: pip install "medmllm-plugin[ocr]", or say burned_in = "warn"'
        )
    return Screened(model, policy, Reader() if can_look() else None)


class Reader:
    """Reads the words in pictures, from any thread."""

    def __init__(self) -> None:
        """Load what reads; its models come with the package, and nothing is fetched."""
        from rapidocr import RapidOCR

        self._engine = RapidOCR(params={"Global.log_level": "error"})
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def words(self, pixels: NDArray[np.uint8]) -> int:
        """How many words there are; what they say is told to nobody.

        Args:
            pixels: Shape (rows, columns, 3).
        """
        picture = np.ascontiguousarray(pixels)
        key = blake2b(picture.tobytes(), digest_size=16, salt=b"%d" % picture.shape[0]).digest()
        with self._lock:
            if key not in self._known:
                self._known[key] = _count(self._engine(picture))
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
            return self._known[key]


class Screened(Wrapped):
    """A model on another machine, whose pictures are looked at before they are sent."""

    def __init__(self, model: Model, policy: BurnedIn, reader: Reader | None) -> None:
        """Take a model.

        Args:
            model: Who is asked.
            policy: What is done about words.
            reader: Who looks; None if nobody can.
        """
        super().__init__(model)
        self._policy, self._reader = policy, reader

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        """As `Model.replies`.

        Raises:
            BurnedInTextError: If a picture has words in it and those are refused; none was sent.
        """
        note = self._looked(asks)
        said = self._model.replies(asks, progress=progress, cancel=cancel)
        return said if note is None else [_noted(one, note) for one in said]

    def _looked(self, asks: Iterable[Ask]) -> str | None:
        """What the report must say of what was found."""
        if self._reader is None:
            return "nobody looked for words in the pictures that were sent to another machine"
        shown = {part.number: part.pixels for ask in asks for part in ask.prompt.pictures}
        found = [number for number, pixels in sorted(shown.items()) if self._reader.words(pixels)]
        if not found:
            return None
        pictures = f"{len(found)} of {len(shown)} pictures"
        if self._policy is BurnedIn.REFUSE:
            raise BurnedInTextError(
                f"found words in the pixels of {pictures}, expected none in what leaves this machine; read "
                "the study with a model on this machine"
            )
        return f"{pictures} that were sent to another machine have words in their pixels"


def _noted(reply: Reply, note: str) -> Reply:
    return replace(reply, notes=(*reply.notes, note))


def _count(result: Any) -> int:
    texts, scores = result.txts or (), result.scores or ()
    return sum(
        score >= LEAST and sum(map(str.isalnum, text)) >= SHORTEST
        for text, score in zip(texts, scores, strict=True)
    )
