"""Vision-language models in the hub's layout, run by vLLM in this process: for a GPU and many studies.

The same folders, families and replies as `models/transformers.py`; vLLM computes prompts together, and keeps
what it computed of a study for the next question on it. vLLM is imported when a model is opened, not before.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medmllm_plugin.errors import ModelError, SettingsError, TooManyPicturesError, TooManyTokensError
from medmllm_plugin.models import LEAST_TOKENS, Ask, Cancel, Capabilities, Progress, Reply
from medmllm_plugin.models.abilities import capabilities, guard_of
from medmllm_plugin.models.families import family_of
from medmllm_plugin.models.families.family import Family
from medmllm_plugin.models.folder import ModelFolder, open_folder
from medmllm_plugin.models.in_folder import InFolder
from medmllm_plugin.models.options import split, typed
from medmllm_plugin.models.vllm_engine import (
    ALTERNATIVES,
    CONTEXT,
    VllmEngine,
    VllmOptions,
    Written,
    check_installed,
    one_line,
    start,
)
from medmllm_plugin.models.weight_files import tensors

if TYPE_CHECKING:
    from medmllm_plugin.models.radfm.front_half import FrontHalf
    from medmllm_plugin.models.schema_bound import Vocabulary


class VllmModel(InFolder):
    """A model that was opened; when several threads ask, one after the other is answered."""

    def __init__(
        self,
        folder: ModelFolder,
        family: Family,
        *,
        able: Capabilities,
        engine: VllmEngine,
        processor: Any,
        front: FrontHalf | None = None,
    ) -> None:
        """Take what `open_model` has started; `front` where vLLM runs the language half only."""
        super().__init__(folder, able=able, guard=guard_of(folder))
        self._front = front
        self._family = family
        self._engine = engine
        self._processor = processor
        self._vocabulary: Vocabulary | None = None
        self._lock = threading.Lock()

    @property
    def dtype(self) -> str:
        """Number type it computes in."""
        return self._engine.dtype

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        """Answer prompts, computed together.

        Raises:
            TooManyPicturesError: If a prompt shows more pictures than it was opened for.
            TooManyTokensError: If a prompt leaves too little room for a reply of what it was opened for.
            ModelError: If vLLM refuses a prompt or a schema, or the memory doesn't suffice.
            CancelledError: If `cancel` said so.
        """
        if not asks:
            return []
        with self._lock:
            started = time.perf_counter()
            lengths = [self._length(ask) for ask in asks]
            room = self._engine.context_tokens
            held_to = [
                dataclasses.replace(ask, max_tokens=min(ask.max_tokens, room - length))
                for ask, length in zip(asks, lengths, strict=True)
            ]
            prompts = [self._prompt(ask) for ask in asks]
            written = self._engine.write(prompts, held_to, progress=progress, cancel=cancel)
            seconds = (time.perf_counter() - started) / len(asks)
            return [
                self._reply(one, ask, held.max_tokens, expected=length, started=started, seconds=seconds)
                for one, ask, held, length in zip(written, asks, held_to, lengths, strict=True)
            ]

    def box_to_picture(self, box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
        """A box by the family's convention as (column_min, row_min, column_max, row_max) of the picture."""
        return self._family.box_to_picture(box, rows=rows, columns=columns, processor=self._processor)

    def _length(self, ask: Ask) -> int:
        """Tokens of the prompt, for which there is room."""
        prompt, able = ask.prompt, self._capabilities
        shown, most = len(prompt.images), able.volumes or able.pictures
        if shown > most:
            raise TooManyPicturesError(
                f"{self.name}: found {shown} pictures, expected {most} at most; show fewer, "
                "or open it with a larger max_pictures or max_model_len",
                limit=most,
            )
        try:
            length = int(self._family.words(self._processor, prompt)["input_ids"].shape[1])
        except ValueError as error:
            raise ModelError(f"{self.name}: these pictures can't be prepared: {one_line(error)}") from error
        room = self._engine.context_tokens
        least = min(ask.max_tokens, LEAST_TOKENS)
        if length + least > room:
            raise TooManyTokensError(
                f"{self.name}: found {length} tokens of prompt and {least} at least for the reply, expected "
                f"{room} at most; show fewer or smaller pictures, or open it with a larger max_model_len",
                found=length + least,
                limit=room,
            )
        return length

    def _prompt(self, ask: Ask) -> Mapping[str, Any]:
        """The prompt as vLLM takes it: the chat template's text, and the pictures; or its embeddings."""
        if self._front is not None:
            import torch

            try:
                made = self._front.embeddings(ask.prompt, kind=getattr(torch, self.dtype))
            except ValueError as error:
                raise ModelError(
                    f"{self.name}: these pictures can't be prepared: {one_line(error)}"
                ) from error
            return {"prompt_embeds": made}
        from PIL import Image

        text = self._family.text(self._processor, ask.prompt)
        pictures = [
            Image.fromarray(np.ascontiguousarray(self._family.fitted(self._processor, part.pixels)))
            for part in ask.prompt.pictures
        ]
        return {"prompt": text} | ({"multi_modal_data": {"image": pictures}} if pictures else {})

    def _reply(
        self, written: Written, ask: Ask, most: int, *, expected: int, started: float, seconds: float
    ) -> Reply:
        if written.reason not in ("stop", "length"):
            raise ModelError(
                f"{self.name}: vLLM gave its reply up ({written.reason or 'no reason told'}); ask for less"
            )
        # vLLM tells the token that ends a reply too.
        said = len(written.tokens) - (written.reason == "stop")
        tokens, places = written.tokens[:said], written.places[:said]
        chances = [math.exp(place[token]) for token, place in zip(tokens, places, strict=True)]
        if not all(map(math.isfinite, chances)):
            raise ModelError(f"{self.name}: its scores in {self.dtype} are not numbers; copy the model again")
        vocabulary = self._tokens()
        texts = vocabulary.texts(tokens)
        found = len(written.prompt)
        notes = []
        if found != expected:
            notes.append(
                f"vLLM cut its pictures in a way of its own: {found} tokens of prompt, not {expected}."
            )
        if most < ask.max_tokens:
            notes.append(f"{self.name} had room for {most} tokens of reply, not for {ask.max_tokens}.")
        return Reply(
            text="".join(texts),
            seconds=seconds,
            token_texts=texts,
            token_probabilities=tuple(chances),
            token_alternatives=tuple(
                tuple((vocabulary.text(one), chance) for one, chance in likeliest(place, token))
                for token, place in zip(tokens, places, strict=True)
            ),
            first_token_seconds=None if written.first_token is None else written.first_token - started,
            finished=written.reason == "stop",
            notes=tuple(notes),
        )

    def _tokens(self) -> Vocabulary:
        if self._vocabulary is None:
            from medmllm_plugin.models.schema_bound import Vocabulary

            tokenizer = self._processor.tokenizer
            self._vocabulary = Vocabulary(
                tokenizer, size=self._engine.vocabulary_size, ends=[tokenizer.eos_token_id]
            )
        return self._vocabulary


def likeliest(place: Mapping[int, float], token: int) -> list[tuple[int, float]]:
    """The likeliest tokens of a place with their probabilities, falling, and the chosen one among them.

    Args:
        place: Natural logarithms of the probabilities, by token; of impossible ones minus infinity.
        token: The chosen one, which is among them.

    >>> likeliest({7: -0.5, 3: -1.0, 5: -math.inf}, 3)
    [(7, 0.6065306597126334), (3, 0.36787944117144233)]
    """
    falling = sorted(((one, math.exp(chance)) for one, chance in place.items()), key=lambda one: -one[1])
    kept = falling[:ALTERNATIVES]
    if token not in dict(kept):
        kept[-1] = (token, math.exp(place[token]))
    return [one for one in kept if one[1] > 0]


def open_model(spec: str) -> VllmModel:
    """A local folder or a hub id of a vision-language model, run by vLLM in this process: `vllm:SPEC`.

    Raises:
        SettingsError: If vLLM or a device for it is not there, or `spec` names no model of a family of ours.
        ModelError: If the model is there but vLLM can't open it.
    """
    place, settings = split(spec)
    options = typed(VllmOptions, settings, where=f"vllm:{spec}")
    if not place:
        raise SettingsError("vllm: found no model, expected vllm:FOLDER or vllm:HUB_ID")
    check_installed()
    folder = open_folder(place, adapter=options.adapter, local_files_only=options.local_files_only)
    family = family_of(folder.model_type, where=place)
    for path in folder.weights:
        deque(tensors(path), maxlen=0)  # damaged ones are told in our words
    processor = _processor(folder)
    context = options.max_model_len or min(_context(folder.config), CONTEXT)
    able = capabilities(folder, family, processor=processor, context_tokens=context)
    if options.max_pictures is not None:
        able = dataclasses.replace(able, pictures=options.max_pictures)
    if not family.volumes:
        engine = start(folder, options, context=context, pictures=able.pictures, cutting=family.cutting())
        return VllmModel(folder, family, able=able, engine=engine, processor=processor)
    from medmllm_plugin.models.radfm.front_half import FrontHalf, language_half

    front = FrontHalf(folder, processor)
    with language_half(folder) as language:
        engine = start(language, options, context=context, pictures=0, cutting={}, embeddings=True)
    return VllmModel(folder, family, able=able, engine=engine, processor=processor, front=front)


def _processor(folder: ModelFolder) -> Any:
    from medmllm_plugin.models.loading import load_processor

    return load_processor(folder)


def _context(config: Mapping[str, Any]) -> int:
    """How many tokens the model was made for; what we take at most where its config.json doesn't say."""
    text = config.get("text_config")
    for one in (text if isinstance(text, dict) else {}, config):
        if isinstance(most := one.get("max_position_embeddings"), int):
            return most
    return CONTEXT
