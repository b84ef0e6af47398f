"""A server's answer heard to its end, whole or in events; what is no reply is one clear error."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from medmllm_plugin.errors import ModelError, ReplyError, UnavailableError
from medmllm_plugin.models.chat_answers import Heard
from medmllm_plugin.models.chat_errors import looks_like_html

MOST_BYTES = 64 << 20
"""Longest answer that is read."""


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
class Answer:
    """What a server sent under the status 200."""

    heard: Heard
    first: float | None = None
    """When the first token came, by `time.perf_counter`; None if all came at once."""
    refused: dict[str, Any] | None = None
    """The error that it was instead."""


async def hear(response: httpx2.Response, host: str, tell: Callable[[int], None]) -> Answer:
    """Read an answer.

    Args:
        response: Its body not read yet.
        host: Who sends it, for errors.
        tell: Called with the tokens heard so far.

    Raises:
        FailedForNowError: If it broke off.
        ReplyError: If it is no reply; what came is kept.
    """
    heard, first = Heard(), None
    if "event-stream" in response.headers.get("content-type", ""):
        async for piece in _events(response, host, ended=lambda: heard.finish is not None):
            if _is_error(piece):
                return Answer(heard=heard, refused=piece)
            if piece.get("choices") is None:
                continue  # figures of use, which some servers send beside the reply
            _take(heard, piece, host)
            if heard.text and first is None:
                first = time.perf_counter()
            tell(heard.count)
    else:
        piece = _object(await whole_text(response), host)
        if _is_error(piece):
            return Answer(heard=heard, refused=piece)
        if piece.get("choices") == []:
            raise _no_reply(host, "found an answer without any choice", json.dumps(piece))
        _take(heard, piece, host)
        tell(heard.count)
    _check(heard, host)
    return Answer(heard=heard, first=first)


async def whole_text(response: httpx2.Response) -> str:
    """The body of an answer, as far as it is read."""
    content = b""
    async for part in response.aiter_bytes():
        content += part
        if len(content) > MOST_BYTES:
            break
    return content.decode("utf-8", "replace")


def network_error(host: str, error: httpx2.HTTPError, *, read_timeout: float) -> Exception:
    """What a failure of the network means: for now, or for good."""
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return ModelError(
            f"{host}: its certificate is not trusted here ({reason}); name its issuer's with ca_file"
        )
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        found = f"can't be reached ({reason}); start the server, or correct its address"
        return FailedForNowError(UnavailableError(f"{host}: {found}"))
    if isinstance(error, httpx2.ReadTimeout):
        found = f"sent nothing for {read_timeout:g} s; let it take longer (read_timeout), or see its log"
        return FailedForNowError(UnavailableError(f"{host}: {found}"), slow=True)
    if isinstance(error, httpx2.TransportError):
        return FailedForNowError(_broken_off(host, f" ({reason})"))
    return ModelError(f"{host}: its answer can't be read ({reason}); is this a chat-completions server?")


async def _events(
    response: httpx2.Response, host: str, *, ended: Callable[[], bool]
) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream, each as its object; lines end with a newline and nothing else."""
    rest, count = b"", 0
    async for part in response.aiter_bytes():
        count += len(part)
        if count > MOST_BYTES:
            raise _no_reply(host, "found an endless answer", "")
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield _object(data.decode("utf-8", "replace"), host)
    if not ended():
        raise FailedForNowError(_broken_off(host))


def _take(heard: Heard, piece: dict[str, Any], host: str) -> None:
    choices = piece.get("choices")
    if not isinstance(choices, list) or not all(isinstance(one, dict) for one in choices):
        raise _no_reply(host, "found no choices in its answer", json.dumps(piece))
    for choice in choices[:1]:
        try:
            heard.add(choice)
        except (ValueError, TypeError, AttributeError) as error:
            found = f"found an answer of another form ({error})"
            raise _no_reply(host, found, json.dumps(piece)) from error


def _is_error(piece: dict[str, Any]) -> bool:
    return bool(piece.get("error")) or piece.get("object") == "error"


def _object(said: str, host: str) -> dict[str, Any]:
    try:
        content = json.loads(said)
    except (ValueError, RecursionError) as error:
        if looks_like_html(said):
            found = "found an HTML page for an answer"
            raise _no_reply(host, found, said, "correct the server's address") from error
        found = f"found an answer that is not JSON, or half of it ({' '.join(str(error).split())})"
        raise _no_reply(host, found, said) from error
    if not isinstance(content, dict):
        raise _no_reply(host, f"found a {type(content).__name__} for an answer, expected an object", said)
    return content


def _check(heard: Heard, host: str) -> None:
    """See that there is a reply.

    Raises:
        FailedForNowError: If the server failed while it wrote.
        ReplyError: If nothing was written, or it was withheld.
    """
    if heard.finish == "error":
        raise FailedForNowError(UnavailableError(f"{host}: failed while it wrote its reply; see its log"))
    if heard.finish == "content_filter":
        raise _no_reply(host, "its filter withheld the reply", heard.text, "ask another model")
    if not heard.text.strip():
        if heard.thought:
            found = "found no reply, only what the model thought before it"
            raise _no_reply(host, found, heard.thought, "serve it without thinking")
        raise _no_reply(host, "found an empty reply", heard.text)


def _broken_off(host: str, reason: str = "") -> UnavailableError:
    return UnavailableError(f"{host}: closed the connection before its answer was whole{reason}; see its log")


def _no_reply(host: str, found: str, raw: str, remedy: str = "see the server's log") -> ReplyError:
    return ReplyError(f"{host}: {found}; {remedy}", raw_replies=(raw,))
