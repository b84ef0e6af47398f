"""One question to a chat-completions server: sent, tried again elsewhere or for less, and answered."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from medmllm_plugin.errors import ModelError, UnavailableError
from medmllm_plugin.models import LEAST_TOKENS, Ask, Reply
from medmllm_plugin.models.chat_endpoints import Endpoint, Endpoints
from medmllm_plugin.models.chat_errors import FOR_NOW, Refusal, refusal
from medmllm_plugin.models.chat_hearing import Answer, FailedForNowError, hear, network_error, whole_text
from medmllm_plugin.models.chat_messages import (
    Encoded,
    Encoder,
    PicturePlace,
    by_file,
    by_hash,
    messages,
    whole,
)
from medmllm_plugin.models.chat_options import ChatOptions
from medmllm_plugin.models.families.family import Family


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A model as a server serves it."""

    name: str
    """As requests name it."""
    key: str
    """Sent with each request; empty for none."""
    family: Family | None
    context_tokens: int | None
    """Most tokens of a prompt and its reply."""


class Exchange:
    """Puts questions to the servers of a model."""

    def __init__(self, served: Served, endpoints: Endpoints, options: ChatOptions) -> None:
        """Take what was found when the model was opened."""
        self._served = served
        self._endpoints = endpoints
        self._options = options
        self._encoder = Encoder()

    async def reply(self, client: httpx2.AsyncClient, ask: Ask, tell: Callable[[int], None]) -> Reply:
        """The reply of the server that is free first, or of another if that one fails.

        Args:
            client: Sends the requests.
            ask: What is asked.
            tell: Called with the tokens heard so far.

        Raises:
            ModelError: If none answers, or one refuses for good.
            ReplyError: If what one answers is no reply.
        """
        pictures = await asyncio.to_thread(self._encoded, ask)
        hashes = [one.sha256 for one in pictures.values()]
        deadline, started, failures = None, time.perf_counter(), 0
        failure: ModelError | None = None
        while True:
            endpoint, wait = self._endpoints.take(hashes)
            now = asyncio.get_running_loop().time()
            if endpoint is None:
                if now + wait > (deadline or now + self._options.timeout):
                    raise failure or UnavailableError(
                        f"{self._served.name}: its servers rest for {wait:.0f} s"
                    )
                await asyncio.sleep(wait)
                continue
            if deadline is None:
                deadline, started = now + self._options.timeout, time.perf_counter()
            try:
                async with asyncio.timeout_at(deadline):
                    said = await self._put(client, endpoint, ask, pictures, tell, started)
                self._endpoints.well(endpoint, hashes)
                return said
            except TimeoutError:
                raise ModelError(
                    f"{endpoint.address.host}: found no whole reply within {self._options.timeout:g} s; "
                    "let it take longer (timeout), or show fewer pictures"
                ) from None
            except FailedForNowError as error:
                self._endpoints.failed(endpoint, rest=error.rest)
                failure, failures = error.error, failures + 1
                if failures > self._options.retries or (error.slow and len(self._endpoints.all) == 1):
                    raise failure from error
            finally:
                self._endpoints.give_back(endpoint)

    def _encoded(self, ask: Ask) -> dict[int, Encoded]:
        return {part.number: self._encoder(part) for part in ask.prompt.pictures}

    async def _put(
        self,
        client: httpx2.AsyncClient,
        endpoint: Endpoint,
        ask: Ask,
        pictures: dict[int, Encoded],
        tell: Callable[[int], None],
        started: float,
    ) -> Reply:
        """Ask one server, for less where it can't do all of it."""
        host, context = endpoint.address.host, self._served.context_tokens
        most = ask.max_tokens if context is None else max(1, min(ask.max_tokens, context - 1))
        notes = [f"{'Pictures were' if pictures else 'The question was'} sent to {host}."]
        named = endpoint.manner.keeps_pictures and any(
            one.sha256 in endpoint.has for one in pictures.values()
        )
        with ExitStack() as stack:
            while True:
                manner = endpoint.manner
                place = self._place(endpoint, stack) if pictures else whole
                body = self._body(ask, pictures, place, endpoint, most)
                answer = await self._send(client, endpoint, body, tell)
                if isinstance(answer, Answer):
                    return answer.heard.reply(
                        seconds=time.perf_counter() - started,
                        first_token_seconds=None if answer.first is None else answer.first - started,
                        notes=(*notes, *manner.notes(host, bound=ask.schema is not None)),
                    )
                refused = answer
                if named and (refused.may_be_of_fields or "cache miss" in refused.words.lower()):
                    self._endpoints.forget(endpoint)
                    named = False
                    continue
                if refused.status in FOR_NOW:
                    raise FailedForNowError(self._error(refused, most), rest=refused.retry_after)
                room = refused.room_for_reply
                if room is not None and LEAST_TOKENS <= room < most:
                    most = room
                    notes.append(f"{host} had room for {most} tokens of reply, not for {ask.max_tokens}.")
                    continue
                less = manner.without(refused.words) if refused.may_be_of_fields else None
                if less is None:
                    raise self._error(refused, most)
                self._endpoints.learn(endpoint, less)

    def _place(self, endpoint: Endpoint, stack: ExitStack) -> PicturePlace:
        if endpoint.manner.keeps_pictures:
            return by_hash(frozenset(endpoint.has))
        if self._options.pictures == "file":
            try:
                folder = TemporaryDirectory(prefix="medmllm-", dir=self._options.picture_folder)
            except OSError as error:
                raise ModelError(
                    f"{self._options.picture_folder}: pictures can't be put there: {error.strerror}; name "
                    "another picture_folder"
                ) from error
            return by_file(Path(stack.enter_context(folder)).resolve())
        return whole

    def _body(
        self, ask: Ask, pictures: dict[int, Encoded], place: PicturePlace, endpoint: Endpoint, most: int
    ) -> bytes:
        manner = endpoint.manner
        told = ask.schema if manner.form != "json_schema" else None
        content = {
            "model": self._served.name,
            "messages": messages(ask.prompt, pictures, place, family=self._served.family, schema=told),
            **manner.fields(schema=ask.schema, max_tokens=most, seed=ask.seed, temperature=ask.temperature),
        }
        return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")

    async def _send(
        self, client: httpx2.AsyncClient, endpoint: Endpoint, body: bytes, tell: Callable[[int], None]
    ) -> Answer | Refusal:
        async with self._response(client, endpoint, body) as response:
            if response.status_code != 200:
                said = await whole_text(response)
                return self._refusal(endpoint, response, said, status=response.status_code)
            answer = await hear(response, endpoint.address.host, tell)
            if answer.refused is None:
                return answer
            inside = answer.refused.get("error")
            code = (inside if isinstance(inside, dict) else answer.refused).get("code")
            status = code if isinstance(code, int) and 400 <= code < 600 else 500
            return self._refusal(endpoint, response, json.dumps(answer.refused), status=status)

    def _refusal(self, endpoint: Endpoint, response: httpx2.Response, said: str, *, status: int) -> Refusal:
        found = refusal(
            endpoint.address.host,
            status,
            said,
            location=response.headers.get("location", ""),
            secret=self._served.key,
        )
        return replace(found, retry_after=_seconds(response.headers.get("retry-after", "")))

    def _error(self, refused: Refusal, most: int) -> ModelError:
        return refused.error(
            model=self._served.name,
            reply_tokens=most,
            key_env=self._options.api_key_env,
            has_key=bool(self._served.key),
        )

    @asynccontextmanager
    async def _response(
        self, client: httpx2.AsyncClient, endpoint: Endpoint, body: bytes
    ) -> AsyncIterator[httpx2.Response]:
        """The answer to a request, its body yet to be read; failures of the network as ours."""
        host = endpoint.address.host
        try:
            async with client.stream(
                "POST", f"{endpoint.address.base}/chat/completions", content=body
            ) as response:
                yield response
        except httpx2.HTTPError as error:
            raise network_error(host, error, read_timeout=self._options.read_timeout) from error


def _seconds(said: str) -> float | None:
    """Retry-After in seconds from now, whichever way it is written.

    >>> _seconds("120"), _seconds("soon")
    (120.0, None)
    """
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        at = email.utils.parsedate_to_datetime(said)
    except ValueError:
        return None
    return max(0.0, (at - datetime.now(UTC)).total_seconds()) if at.tzinfo is not None else None
