"""What a chat-completions server's refusal means, in one line that says what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medmllm_plugin.errors import ModelError, TooManyPicturesError, TooManyTokensError, UnavailableError

FOR_NOW = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses that may be another a moment later; what else is refused is refused for good."""

OF_FIELDS = frozenset({400, 403, 422, 501})
"""Statuses that may mean a field of the request that the server doesn't know."""

_PICTURES = (
    r"at most (\d+) (?:image|picture)",
    r"too many images\D{0,60}(?:max\w*|limit|at most|up to|allowed)\D{0,30}(\d+)",
    r"(?:max\w*|limit|up to|at most)\D{0,40}?(\d+) images?\b",
    r"(?:max\w*|limit|allowed)\w* (?:number of )?images\D{0,30}(\d+)",
)
_LIMIT = (
    r"(?:context length|context size|context window|model length)\D{0,20}?(\d+)",
    r"\((\d+) tokens\)[^()]*$",
)
_FOUND = (
    r"(\d+) (?:input tokens|tokens from the input|in the messages)",
    r"\(length (\d+)\)",
    r"(?:input|request|prompt) \((\d+) tokens\)",
    r"input length \((\d+)\)",
)
_ABOUT_LENGTH = r"context (?:length|size|window)|(?:maximum )?model length|exceed_context_size"


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """An answer that is no reply."""

    host: str
    status: int
    words: str
    """What the server said, one line without keys or pictures."""
    fields: Mapping[str, Any]
    """The fields of its error; empty if it gave none."""
    retry_after: float | None = None
    """Seconds that it asked to be left alone; None if it didn't."""

    def error(self, *, model: str, reply_tokens: int, key_env: str, has_key: bool) -> ModelError:
        """The error to raise, if nothing else helps.

        Args:
            model: The name that was asked for.
            reply_tokens: Most tokens of the reply that was asked for.
            key_env: The environment variable that holds the key.
            has_key: Whether it held one.
        """
        limit = self.picture_limit
        if limit == 0:
            return ModelError(f"{self.host}: its model {model} takes no pictures; serve one that does")
        if limit is not None:
            return TooManyPicturesError(
                f"{self.host} takes {limit} pictures in one prompt at most; show fewer, or let it take more "
                "(vLLM: --limit-mm-per-prompt)",
                limit=limit,
            )
        tokens = self.token_limit
        if tokens is not None:
            prompt, most = tokens
            length = "a longer prompt" if prompt is None else f"{prompt} tokens of prompt"
            return TooManyTokensError(
                f"{self.host}: found {length} and {reply_tokens} for the reply, expected {most} at most; "
                "show fewer or smaller pictures",
                found=None if prompt is None else prompt + reply_tokens,
                limit=most,
            )
        means = f"{self.host}: {self._means(model, key_env, has_key)}"
        return UnavailableError(means) if self.status in FOR_NOW else ModelError(means)

    @property
    def picture_limit(self) -> int | None:
        """How many pictures it takes, if it refused more."""
        number = _first(_PICTURES, self.words)
        return None if self.status in FOR_NOW else number

    @property
    def token_limit(self) -> tuple[int | None, int] | None:
        """(tokens of the prompt, tokens it takes), if the prompt was too long for it."""
        if self.status in FOR_NOW - {500} or not re.search(_ABOUT_LENGTH, self.words, re.IGNORECASE):
            return None
        limit, found = self.fields.get("n_ctx"), self.fields.get("n_prompt_tokens")
        limit = limit if isinstance(limit, int) else _first(_LIMIT, self.words)
        found = found if isinstance(found, int) else _first(_FOUND, self.words)
        return None if limit is None else (found, limit)

    @property
    def room_for_reply(self) -> int | None:
        """Tokens that are left for a reply, if only prompt and reply together were too long."""
        tokens = self.token_limit
        return None if tokens is None or tokens[0] is None else tokens[1] - tokens[0]

    @property
    def may_be_of_fields(self) -> bool:
        """Whether a field of the request may be what it refused."""
        return self.status in OF_FIELDS and self.picture_limit is None and self.token_limit is None

    def _means(self, model: str, key_env: str, has_key: bool) -> str:
        said = f" ({self.words})" if self.words else ""
        if self.status in (401, 403):
            held = f"the key in {key_env}" if has_key else f"a request without a key: {key_env} is not set"
            return f"refused {held}{said}; put its key into that environment variable"
        if self.status == 404:
            return f"found no model {model!r} or no chat completions at this address{said}"
        if self.status == 413:
            return f"found the request too large{said}; show fewer or smaller pictures"
        if 300 <= self.status < 400:
            return (
                f"sends requests on to another address ({self.status}{said}), which is not followed, so that "
                "pictures go nowhere else; name that address itself"
            )
        if self.status == 429:
            return f"is asked too often or too much (429{said}); try again later"
        if self.status >= 500:
            return f"failed ({self.status}{said}); see the server's log"
        return f"refused the request ({self.status}{said})"


def refusal(host: str, status: int, body: str, *, location: str = "", secret: str = "") -> Refusal:
    """What an answer that is no reply says.

    Args:
        host: Who answered.
        status: HTTP status.
        body: Its text.
        location: Where a redirect leads.
        secret: The key that was sent, which some servers repeat.

    >>> refusal("gpu:8000", 400, '{"error": {"message": "At most 8 image(s) may be provided"}}').picture_limit
    8
    """
    fields: Mapping[str, Any] = {}
    words = body
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        if looks_like_html(body):
            words = "an HTML page"
    else:
        words, fields = _message(content)
    if location:
        words = f"to {location.partition('?')[0]}"
    if secret:
        words = words.replace(secret, "***")
    return Refusal(host=host, status=status, words=in_one_line(words), fields=fields)


def in_one_line(words: str) -> str:
    """Words of a server for a user to read: short, printable, and without pictures."""
    plain = re.sub(r"data:image/[^\s\"']*", "(a picture)", words)
    line = " ".join("".join(one if one.isprintable() else " " for one in plain).split())
    return line if len(line) <= 300 else f"{line[:297]}..."


def looks_like_html(text: str) -> bool:
    """Whether a text is a web page.

    >>> looks_like_html("<!DOCTYPE html><html>")
    True
    """
    return bool(re.match(r"\s*<(?:!doctype|html|head|\?xml)", text, re.IGNORECASE))


def _message(content: Any) -> tuple[str, Mapping[str, Any]]:
    """The words and the fields of an error, in any of the forms that servers have for it."""
    error = content.get("error", content) if isinstance(content, dict) else content
    if not isinstance(error, dict):
        return str(error), {}
    for key in ("message", "detail", "error", "msg"):
        if error.get(key):
            said = error[key]
            return said if isinstance(said, str) else json.dumps(said), error
    return json.dumps(error), error


def _first(patterns: tuple[str, ...], words: str) -> int | None:
    for pattern in patterns:
        found = re.search(pattern, words, re.IGNORECASE)
        if found:
            return int(found[1])
    return None
