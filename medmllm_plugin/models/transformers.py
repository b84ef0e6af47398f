"""Vision-language models in the hub's layout, run in this process: Qwen2.5-VL, and so Lingshu, first.

Several prompts are computed together, each reply bound to its own schema; what was computed of a study is
kept for the next question on it. At temperature 0 the same prompt gets the same reply, alone or beside
others. torch and transformers are imported when a model is opened, not before.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from medmllm_plugin.errors import (
    CancelledError,
    LostDeviceError,
    ModelError,
    SettingsError,
    TooLittleMemoryError,
    TooManyPicturesError,
    TooManyTokensError,
)
from medmllm_plugin.models import LEAST_TOKENS, Ask, Cancel, Closer, Progress, Reply
from medmllm_plugin.models.abilities import capabilities, guard_of
from medmllm_plugin.models.folder import ModelFolder, open_folder
from medmllm_plugin.models.in_folder import InFolder
from medmllm_plugin.models.loading import Loaded, check_engine, load, one_line
from medmllm_plugin.models.options import TransformersOptions, split, typed
from medmllm_plugin.models.radfm.published import is_published, published_folder
from medmllm_plugin.sliceset import SliceSet

if TYPE_CHECKING:
    from medmllm_plugin.models.batches import Prepared
    from medmllm_plugin.models.schema_bound import Row, Vocabulary

SINGLE_THREAD_BYTES = 64 << 20
"""Weights up to this size are computed by one thread on a CPU: measured three times faster than by two."""

WAIT_SECONDS = 0.2
"""How often `cancel` is looked at while another thread's question is answered."""


class TransformersModel(InFolder):
    """A model that was opened; one batch is computed at a time, also when several threads ask."""

    def __init__(self, folder: ModelFolder, loaded: Loaded, options: TransformersOptions) -> None:
        """Take what `open_model` has loaded."""
        from medmllm_plugin.models.batches import Batches
        from medmllm_plugin.models.prefix_memory import Memory
        from medmllm_plugin.models.room import Room

        self._model = loaded.model
        self._processor = loaded.processor
        self._family = loaded.family
        self._context_tokens = int(loaded.model.config.get_text_config().max_position_embeddings)
        able = capabilities(
            folder,
            loaded.family,
            processor=loaded.processor,
            context_tokens=self._context_tokens,
            options=options,
        )
        super().__init__(folder, able=able, guard=guard_of(folder))
        self._room = Room(loaded.model, batch=options.batch, memory=options.memory)
        self._batches = Batches(loaded, options, memory=Memory(self._room.memory_bytes()))
        self._vocabulary: Vocabulary | None = None
        self._lock = threading.Lock()

    @property
    def dtype(self) -> str:
        """Number type it computes in."""
        return str(self._model.dtype).removeprefix("torch.")

    def box_to_picture(self, box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
        """A box by the family's convention as (column_min, row_min, column_max, row_max) of the picture."""
        return self._family.box_to_picture(box, rows=rows, columns=columns, processor=self._processor)

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        """Answer prompts with JSON that satisfies their schemas, unless `max_tokens` cuts it short.

        They are computed together as far as there is room. At a temperature above 0 tokens are drawn, by each
        ask's own seed.

        Raises:
            TooManyPicturesError: If a prompt shows more pictures than the model takes.
            TooManyTokensError: If a prompt leaves too little room for a reply of what the model takes.
            TooLittleMemoryError: If the memory doesn't suffice for one of them alone.
            LostDeviceError: If the device that it computes on failed.
            ModelError: If a picture can't be shown, or a schema can't bind.
            CancelledError: If `cancel` said so.
        """
        if not asks:
            return []
        import torch

        work = _Work(progress=progress, cancel=cancel, most=max(ask.max_tokens for ask in asks))
        found: dict[int, Reply] = {}
        with self._turn(work), _threads_for(self._folder), torch.inference_mode():
            prepared = [self._prepared(ask) for ask in asks]
            order = sorted(range(len(asks)), key=lambda number: len(prepared[number]))
            for size in self._room.groups([prepared[number] for number in order]):
                group, order = order[:size], order[size:]
                replies = self._answered([prepared[number] for number in group], work)
                found |= dict(zip(group, replies, strict=True))
        return [self._held(found[number], ask, prepared[number].ask) for number, ask in enumerate(asks)]

    def _held(self, reply: Reply, ask: Ask, put: Ask) -> Reply:
        """The reply, saying so if it was held to the tokens that its prompt left."""
        if put.max_tokens == ask.max_tokens:
            return reply
        note = f"{self.name} had room for {put.max_tokens} tokens of reply, not for {ask.max_tokens}."
        return replace(reply, notes=(*reply.notes, note))

    def closer(self, slices: SliceSet) -> Closer | None:
        """The model for close looks that its card names, opened when it is first asked for."""
        return self._closer

    @cached_property
    def _closer(self) -> Closer | None:
        said = self._folder.card.closer
        if said is None:
            return None
        model = open_model(str(self._folder.path / said["folder"]))
        return Closer(model=model, findings=tuple(said["findings"]))

    def forget(self) -> None:
        """Forget the studies that were read, as when the last question on them was answered."""
        with self._lock:
            self._batches.memory.forget()
        near = self.__dict__.get("_closer")
        if near is not None:
            near.model.forget()

    @contextmanager
    def _turn(self, work: _Work) -> Iterator[None]:
        """Wait until no other thread's question is being answered."""
        while not self._lock.acquire(timeout=WAIT_SECONDS):
            work.check()
        try:
            work.check()
            yield
        finally:
            self._lock.release()

    def _prepared(self, ask: Ask) -> Prepared:
        able = self._capabilities
        volumes = able.volumes > 0
        found = len(ask.prompt.images if volumes else ask.prompt.pictures)
        limit = able.volumes if volumes else able.pictures
        if found > limit:
            what = "images and volumes" if volumes else "pictures"
            raise TooManyPicturesError(
                f"{self.name}: found {found} {what}, expected {limit} at most; show fewer", limit=limit
            )
        try:
            prepared = self._batches.prepare(ask)
        except ValueError as error:
            raise ModelError(f"{self.name}: these pictures can't be prepared: {one_line(error)}") from error
        least, limit = min(ask.max_tokens, LEAST_TOKENS), self._context_tokens
        if len(prepared) + least > limit:
            raise TooManyTokensError(
                f"{self.name}: found {len(prepared)} tokens of prompt and {least} at least for the reply, "
                f"expected {limit} at most; show fewer or smaller pictures",
                found=len(prepared) + least,
                limit=limit,
            )
        held = min(ask.max_tokens, limit - len(prepared))
        return replace(prepared, ask=replace(ask, max_tokens=held))

    def _answered(self, rows: Sequence[Prepared], work: _Work, *, again: bool = True) -> list[Reply]:
        """The replies to prompts computed together; in halves where the memory doesn't suffice for all."""
        try:
            return self._generated(rows, work)
        except RuntimeError as error:
            if _is_lost_device(error):
                raise LostDeviceError(
                    f"{self.name}: the device {self._model.device} failed ({one_line(error)}); see whether "
                    "it is well, and start the program again if it doesn't come back"
                ) from error
            if not _is_lack_of_memory(error):
                raise
        kept = self._batches.memory.held
        self._batches.memory.forget()
        _give_back()
        if len(rows) > 1:
            half = len(rows) // 2
            return self._answered(rows[:half], work) + self._answered(rows[half:], work)
        if kept and again:
            return self._answered(rows, work, again=False)
        raise TooLittleMemoryError(
            f"{self.name}: found too little memory for {len(rows[0].ask.prompt.images)} pictures "
            f"({len(rows[0])} tokens); show fewer or smaller pictures"
        )

    def _generated(self, rows: Sequence[Prepared], work: _Work) -> list[Reply]:
        from medmllm_plugin.models.schema_bound import Chooser, NotNumbersError

        begun = time.perf_counter()
        asks = [row.ask for row in rows]
        most = max(ask.max_tokens for ask in asks)
        chooser = Chooser(self._words(), asks, step=work.written)
        inputs = self._batches.inputs(rows, room=self._room.reply_tokens(most), check=work.check)
        try:
            self._model.generate(
                **inputs,
                logits_processor=[chooser],
                stopping_criteria=[chooser.ended],
                max_new_tokens=most,
            )
        except NotNumbersError as error:
            raise ModelError(
                f"{self.name}: its scores in {self.dtype} are not numbers; copy the model again"
            ) from error
        share = (time.perf_counter() - begun) / len(rows)
        first = None if chooser.first_choice is None else chooser.first_choice - work.started
        return [self._reply(row, seconds=share, first=first) for row in chooser.rows]

    def _reply(self, row: Row, *, seconds: float, first: float | None) -> Reply:
        words = self._words()
        texts = words.texts(row.tokens)
        alternatives = (
            tuple((said if token == chosen else words.text(token), chance) for token, chance in places)
            for said, chosen, places in zip(texts, row.tokens, row.alternatives, strict=True)
        )
        return Reply(
            text="".join(texts),
            seconds=seconds,
            token_texts=texts,
            token_probabilities=tuple(row.probabilities),
            token_alternatives=tuple(alternatives),
            first_token_seconds=first,
            finished=row.finished,
        )

    def _words(self) -> Vocabulary:
        """The vocabulary, made when first needed."""
        if self._vocabulary is None:
            from medmllm_plugin.models.schema_bound import Vocabulary

            self._vocabulary = Vocabulary(
                self._processor.tokenizer,
                size=self._model.get_output_embeddings().out_features,
                ends=self._model.generation_config.eos_token_id,
            )
        return self._vocabulary


class _Work:
    """One call of `replies`: since when, who is told of its progress, and who may stop it."""

    def __init__(self, *, progress: Progress | None, cancel: Cancel | None, most: int) -> None:
        self.started = time.perf_counter()
        self._progress = progress
        self._cancel = cancel
        self._most = most
        self._told = 0

    def check(self) -> None:
        """Stop if that was asked for."""
        if self._cancel is not None and self._cancel():
            raise CancelledError("stopped while the model was answering")

    def written(self, tokens: int) -> None:
        """Tell how many tokens the longest reply has, and stop if that was asked for."""
        self.check()
        if self._progress is not None and tokens > self._told:
            self._told = tokens
            self._progress(tokens, self._most)


def open_model(spec: str, *, only: str | None = None) -> TransformersModel:
    """A local folder or a hub id, such as that of Lingshu-7B: `transformers:PLACE?key=value&key=value`.

    See `options.TransformersOptions` for the keys and `families.FAMILIES` for what can be opened.

    Args:
        spec: The place and its options.
        only: The `model_type` that it must be of; None for any of ours.

    Raises:
        SettingsError: If the engine is not installed, an option is not one, or there is no such model of a
            supported family.
        ModelError: If the model is there but can't be loaded.
    """
    check_engine()
    place, settings = split(spec)
    if not place:
        raise SettingsError(
            "transformers: found no model, expected transformers:FOLDER or transformers:HUB_ID"
        )
    options = typed(TransformersOptions, settings, where=place)
    published = Path(place).expanduser()
    if options.adapter is None and is_published(published):
        folder = published_folder(published)
    else:
        folder = open_folder(place, adapter=options.adapter, local_files_only=options.local_files_only)
    if only not in (None, folder.model_type):
        raise SettingsError(
            f"{place}: found a model of type {folder.model_type!r}, expected {only!r}; name it as it is"
        )
    return TransformersModel(folder, load(folder, options), options)


@contextmanager
def _threads_for(folder: ModelFolder) -> Iterator[None]:
    """One thread while a very small model computes: its steps are too short to be shared."""
    import torch

    threads = torch.get_num_threads()
    if folder.weights_bytes > SINGLE_THREAD_BYTES or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _is_lack_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU or the computer has too little memory; torch has no type of its own for the latter."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _is_lost_device(error: RuntimeError) -> bool:
    """Whether the device itself failed; a lack of memory is none of that."""
    import torch

    return isinstance(error, torch.AcceleratorError) and not _is_lack_of_memory(error)


def _give_back() -> None:
    """Free what nobody holds any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
