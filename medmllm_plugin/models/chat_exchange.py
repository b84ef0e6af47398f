"""One question to a chat-completions server and its answer: sent, tried again, heard to its end."""

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
from typing import Any

import httpx2

from medmllm_plugin.errors import ModelError, ReplyError
from medmllm_plugin.models import Ask, Reply
from medmllm_plugin.models.chat_answers import Heard
from medmllm_plugin.models.chat_endpoints import Endpoint, Endpoints
from medmllm_plugin.models.chat_errors import FOR_NOW, Refusal, looks_like_html, refusal
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

MOST_BYTES = 64 << 20
"""Longest answer that is read."""

LEAST_TOKENS = 256
"""A reply is held to fewer tokens than asked for, so that it fits, if at least these are left for it."""


class FailedForNowError(Exception):
    """A request failed in a way that may be another a moment later."""

    def __init__(self, error: ModelError, *, rest: float | None = None, slow: bool = False) -> None:
        """Take what to raise if nothing else helps.

        Args:
            error: For the user.
            rest: Seconds that the server asked to be left alone; None if it didn't say.
            slow: Whether it may still be at work on the request, so that it should not get it again.
        """
        self.error = error
        self.rest = rest
        self.slow = slow
        super().__init__(str(error))


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
                    raise failure or ModelError(f"{self._served.name}: its servers rest for {wait:.0f} s")
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
        named = self._options.pictures == "uuid" and any(
            one.sha256 in endpoint.has for one in pictures.values()
        )
        with ExitStack() as stack:
            while True:
                manner = endpoint.manner
                place = self._place(endpoint, stack) if pictures else whole
                body = self._body(ask, pictures, place, endpoint, most)
                heard, refused, first = await self._send(client, endpoint, body, tell)
                if refused is None:
                    now = time.perf_counter()
                    return heard.reply(
                        seconds=now - started,
                        first_token_seconds=None if first is None else first - started,
                        notes=(*notes, *manner.notes(host, bound=ask.schema is not None)),
                    )
                if named and refused.speaks_of("cache miss", "uuid"):
                    self._endpoints.forget(endpoint)
                    named = False
                    continue
                if refused.status in FOR_NOW:
                    raise FailedForNowError(self._error(refused), rest=refused.retry_after)
                room = refused.room_for_reply
                if room is not None and LEAST_TOKENS <= room < most:
                    most = room
                    notes.append(f"{host} had room for {most} tokens of reply, not for {ask.max_tokens}.")
                    continue
                less = manner.without(refused.words) if refused.may_be_of_fields else None
                if less is None:
                    raise self._error(refused)
                self._endpoints.learn(endpoint, less)

    def _place(self, endpoint: Endpoint, stack: ExitStack) -> PicturePlace:
        if self._options.pictures == "uuid":
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
    ) -> tuple[Heard, Refusal | None, float | None]:
        """(what was heard, the refusal if it is one, when the first token came)."""
        heard, first = Heard(), None
        async with self._answer(client, endpoint, body) as answer:
            if answer.status_code != 200:
                said = (await _read(answer)).decode("utf-8", "replace")
                return heard, self._refusal(endpoint, answer, said), None
            if "event-stream" in answer.headers.get("content-type", ""):
                async for piece in _pieces(answer, endpoint):
                    if "error" in piece:
                        return heard, self._refusal(endpoint, answer, json.dumps(piece), piece), None
                    self._take(heard, piece, endpoint, whole_answer=False)
                    if heard.text and first is None:
                        first = time.perf_counter()
                    tell(heard.count)
            else:
                said = (await _read(answer)).decode("utf-8", "replace")
                piece = _parsed(said, endpoint)
                if piece.get("error") or piece.get("object") == "error":
                    return heard, self._refusal(endpoint, answer, said, piece), None
                self._take(heard, piece, endpoint, whole_answer=True)
                tell(heard.count)
        _check(heard, endpoint)
        return heard, None, first

    def _take(self, heard: Heard, piece: dict[str, Any], endpoint: Endpoint, *, whole_answer: bool) -> None:
        choices = piece.get("choices")
        if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
            raise _no_reply(endpoint, "found no choices in its answer", json.dumps(piece))
        if whole_answer and not choices:
            raise _no_reply(endpoint, "found an answer without any choice", json.dumps(piece))
        for choice in choices[:1]:
            try:
                heard.add(choice)
            except (ValueError, TypeError, AttributeError) as error:
                raise _no_reply(
                    endpoint, f"found an answer of another form ({error})", json.dumps(piece)
                ) from error

    def _refusal(
        self,
        endpoint: Endpoint,
        answer: httpx2.Response,
        said: str,
        piece: dict[str, Any] | None = None,
    ) -> Refusal:
        """The refusal that an answer is; one inside of a 200 says its status in its words."""
        inside = piece.get("error") if piece is not None else None
        code = (inside if isinstance(inside, dict) else piece or {}).get("code")
        status = answer.status_code
        if status == 200:
            status = code if isinstance(code, int) and 400 <= code < 600 else 500
        found = refusal(
            endpoint.address.host,
            status,
            said,
            location=answer.headers.get("location", ""),
            secret=self._served.key,
        )
        return replace(found, retry_after=_seconds(answer.headers.get("retry-after", "")))

    def _error(self, refused: Refusal) -> ModelError:
        return refused.error(
            model=self._served.name, key_env=self._options.api_key_env, has_key=bool(self._served.key)
        )

    @asynccontextmanager
    async def _answer(
        self, client: httpx2.AsyncClient, endpoint: Endpoint, body: bytes
    ) -> AsyncIterator[httpx2.Response]:
        """The answer to a request, its body yet to be read; failures of the network as ours."""
        host = endpoint.address.host
        try:
            async with client.stream(
                "POST", f"{endpoint.address.base}/chat/completions", content=body
            ) as answer:
                yield answer
        except httpx2.HTTPError as error:
            raise network_error(host, error, read_timeout=self._options.read_timeout) from error


def network_error(host: str, error: httpx2.HTTPError, *, read_timeout: float) -> Exception:
    """What a failure of the network means: for now, or for good."""
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return ModelError(
            f"{host}: its certificate is not trusted here ({reason}); have its issuer trusted by this system"
        )
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        found = f"can't be reached ({reason}); start the server, or correct its address"
        return FailedForNowError(ModelError(f"{host}: {found}"))
    if isinstance(error, httpx2.ReadTimeout):
        found = f"sent nothing for {read_timeout:g} s; let it take longer (read_timeout), or see its log"
        return FailedForNowError(ModelError(f"{host}: {found}"), slow=True)
    if isinstance(error, httpx2.TransportError):
        return FailedForNowError(
            ModelError(f"{host}: closed the connection before its answer was whole ({reason}); see its log")
        )
    return ModelError(f"{host}: its answer can't be read ({reason}); is this a chat-completions server?")


async def _read(answer: httpx2.Response) -> bytes:
    content = b""
    async for part in answer.aiter_bytes():
        content += part
        if len(content) > MOST_BYTES:
            break
    return content


async def _pieces(answer: httpx2.Response, endpoint: Endpoint) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream, each as its object; lines end with a newline and nothing else."""
    rest, count, ended = b"", 0, False
    async for part in answer.aiter_bytes():
        count += len(part)
        if count > MOST_BYTES:
            raise _no_reply(endpoint, "found an endless answer", "")
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            piece = _parsed(data.decode("utf-8", "replace"), endpoint)
            ended = ended or any(
                isinstance(one, dict) and one.get("finish_reason") for one in piece.get("choices") or ()
            )
            yield piece
    if not ended:
        host = endpoint.address.host
        raise FailedForNowError(
            ModelError(f"{host}: closed the connection before its answer was whole; see its log")
        )


def _parsed(said: str, endpoint: Endpoint) -> dict[str, Any]:
    try:
        content = json.loads(said)
    except (ValueError, RecursionError) as error:
        if looks_like_html(said):
            found = "found an HTML page for an answer"
            raise _no_reply(endpoint, found, said, "correct the server's address") from error
        found = f"found an answer that is not JSON, or half of it ({' '.join(str(error).split())})"
        raise _no_reply(endpoint, found, said) from error
    if not isinstance(content, dict):
        raise _no_reply(endpoint, f"found a {type(content).__name__} for an answer, expected an object", said)
    return content


def _check(heard: Heard, endpoint: Endpoint) -> None:
    if heard.finish == "error":
        failed = "failed while it wrote its reply; see its log"
        raise FailedForNowError(ModelError(f"{endpoint.address.host}: {failed}"))
    if heard.finish == "content_filter":
        raise _no_reply(endpoint, "its filter withheld the reply", heard.text, "ask another model")
    if not heard.text.strip():
        if heard.thought:
            found = "found no reply, only what the model thought before it"
            raise _no_reply(endpoint, found, heard.thought, "serve it without thinking")
        raise _no_reply(endpoint, "found an empty reply", heard.text)


def _no_reply(endpoint: Endpoint, found: str, raw: str, remedy: str = "see the server's log") -> ReplyError:
    return ReplyError(f"{endpoint.address.host}: {found}; {remedy}", raw_replies=(raw,))


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
