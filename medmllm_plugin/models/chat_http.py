"""Models behind any chat-completions server: `vllm serve`, SGLang, llama.cpp, or a hosted one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from medmllm_plugin.errors import CancelledError, ModelError, SettingsError, TooManyPicturesError
from medmllm_plugin.models import Ask, Cancel, Capabilities, Progress, Reply
from medmllm_plugin.models.chat_options import ChatOptions, addresses
from medmllm_plugin.models.options import split, typed
from medmllm_plugin.sliceset import SliceSet

if TYPE_CHECKING:
    from medmllm_plugin.models.chat_server import Opened

T = TypeVar("T")

PICTURES = 16
"""Most pictures in one prompt, where neither settings nor family say; a server that takes fewer says so."""

LOOK = 0.05
"""Seconds between two looks at whether to stop, and two tellings of progress."""


class ChatModel:
    """A model that a server, or several servers alike, answer for."""

    weights_sha256 = ""
    dtype = "as served"

    def __init__(self, opened: Opened, options: ChatOptions, capabilities: Capabilities) -> None:
        """Take what `open_model` has found."""
        self.name = opened.name
        self.version = opened.version
        self._opened = opened
        self._options = options
        self._capabilities = capabilities

    @property
    def capabilities(self) -> Capabilities:
        """What its settings and family say, less what its servers turned out not to take."""
        manners = [one.manner for one in self._opened.endpoints.all]
        return replace(
            self._capabilities,
            schema_bound=all(one.form == "json_schema" for one in manners),
            probabilities=all(one.logprobs for one in manners),
        )

    def outside_domain(self, slices: SliceSet) -> str | None:
        """None: what a served model was made for is not known here."""
        return None

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        """Replies in the order of the asks, as many at once as the servers take.

        Raises:
            TooManyPicturesError: If a prompt shows more pictures than the server takes.
            TooManyTokensError: If a prompt is longer than the server takes.
            ReplyError: If an answer is no reply; it is kept in the error.
            ModelError: If no server answers, or one refuses.
            CancelledError: If `cancel` said so; requests under way are closed, which ends them there too.
        """
        if not asks:
            return []
        most = self._capabilities.pictures
        for ask in asks:
            if len(ask.prompt.pictures) > most:
                raise TooManyPicturesError(
                    f"{self.name}: found {len(ask.prompt.pictures)} pictures, expected {most} at most; show "
                    "fewer",
                    limit=most,
                )
        try:
            return _run(self._together(asks, progress, cancel))
        except TooManyPicturesError as error:
            self._capabilities = replace(self._capabilities, pictures=error.limit)
            raise

    def box_to_picture(self, box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
        """A box by the family's convention as (column_min, row_min, column_max, row_max) of the picture.

        Raises:
            ModelError: If the family is not known, for then nobody knows what a box means.
        """
        if self._opened.family is None:
            raise ModelError(
                f"{self.name}: its boxes can't be placed, for its family is not known; see family"
            )
        limits = (self._options.min_pixels, self._options.max_pixels)
        return self._opened.family.box_to_picture(box, rows=rows, columns=columns, limits=limits)

    async def _together(
        self, asks: Sequence[Ask], progress: Progress | None, cancel: Cancel | None
    ) -> list[Reply]:
        loop = asyncio.get_running_loop()
        exchange, started = self._opened.exchange, loop.time()
        room = asyncio.Semaphore(self._options.concurrency * len(self._opened.endpoints.all))
        counts = [0] * len(asks)

        async def one(number: int) -> Reply:
            def tell(count: int) -> None:
                counts[number] = max(counts[number], count)

            async with room:
                return await exchange.reply(client, asks[number], tell)

        async with self._opened.client() as client:
            tasks = [asyncio.create_task(one(number)) for number in range(len(asks))]
            watch = asyncio.create_task(self._watch(counts, asks, progress, cancel))
            try:
                pending: set[asyncio.Task[Any]] = {*tasks, watch}
                while pending != {watch}:
                    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for task in (watch, *tasks):
                        if task in done:
                            task.result()
            finally:
                for task in (*tasks, watch):
                    task.cancel()
                await asyncio.gather(*tasks, watch, return_exceptions=True)
        replies = [task.result() for task in tasks]
        if progress is not None:
            longest = max(ask.max_tokens for ask in asks)
            progress(min(max(1, *counts), longest), longest)
        own = sum(reply.seconds for reply in replies)
        share = (loop.time() - started) / own if len(asks) > 1 and own else 1.0
        return [replace(reply, seconds=reply.seconds * share) for reply in replies]

    async def _watch(
        self, counts: list[int], asks: Sequence[Ask], progress: Progress | None, cancel: Cancel | None
    ) -> None:
        """Tell the progress of the longest reply, and stop all when the user says so."""
        longest, told = max(ask.max_tokens for ask in asks), 0
        while True:
            if cancel is not None and cancel():
                raise CancelledError(f"{self.name}: stopped before its reply")
            if progress is not None and max(counts) > told:
                told = min(max(counts), longest)
                progress(told, longest)
            await asyncio.sleep(LOOK)


def open_model(spec: str) -> ChatModel:
    """A model behind a chat-completions server, such as vLLM: `chat:URL`, `chat:URL,URL?model=NAME`.

    The servers are asked what they serve; pictures leave this machine with the first question, not before.

    Raises:
        SettingsError: If `httpx2` is not installed, or the address, an option or the model's name is wrong.
        ModelError: If no server can be reached or lets us in.
    """
    place, settings = split(spec)
    if "api_key" in settings:
        raise SettingsError(
            "chat: found the option api_key; put the key into the environment variable MEDMLLM_API_KEY, or "
            "name another with api_key_env"
        )
    options = typed(ChatOptions, settings, where="chat")
    found = addresses(place, insecure=options.insecure)
    try:
        from medmllm_plugin.models.chat_server import open_servers
    except ModuleNotFoundError as error:
        if error.name != "httpx2":
            raise
        raise SettingsError(
            'chat: needs httpx2, not installed here; run: pip install "medmllm-plugin[http]"'
        ) from error
    opened = open_servers(found, options)
    return ChatModel(opened, options, _capabilities(opened, options))


def _run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine; in a thread of its own where this one runs a loop, as in notebooks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def _capabilities(opened: Opened, options: ChatOptions) -> Capabilities:
    """What the settings say, else what the family can."""
    from medmllm_plugin.calibration import Calibration
    from medmllm_plugin.transforms.recipes import settings_of

    family = opened.family
    said: dict[str, Any] = {
        "languages": options.languages,
        "domain": options.domain,
        "free_text": options.free_text,
        "plan": None if options.plan is None else settings_of(options.plan),
        "calibration": None
        if options.calibration is None
        else Calibration.load(Path(options.calibration).expanduser()),
    }
    known: dict[str, Any] = {"boxes": False}
    if family is not None:
        known = {
            "boxes": family.boxes,
            "box_limit": family.box_limit,
            "box_words": family.box_words,
            "languages": family.languages,
            "free_text": family.free_text,
            "plan": dict(family.plan),
        }
    known |= {key: value for key, value in said.items() if value is not None}
    usual = family.pictures if family is not None else PICTURES
    return Capabilities(
        pictures=options.most_pictures or usual,
        schema_bound=True,
        probabilities=True,
        text_only=True,
        context_tokens=opened.context_tokens,
        sends_to=tuple(one.address.host for one in opened.endpoints.all if not one.address.loopback),
        **known,
    )
