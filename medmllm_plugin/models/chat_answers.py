"""What a chat-completions server answers, whole or token by token, as a `Reply`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medmllm_plugin.models import Reply
from medmllm_plugin.models.chat_manner import TOP

Alternatives = tuple[tuple[str, float], ...]

TOLERANCE = 1e-3
"""By how much probabilities may sum to more than 1, for they are rounded."""


@dataclass(kw_only=True, slots=True)
class Heard:
    """What has come of one answer so far."""

    text: str = ""
    thought: str = ""
    """What the model said to itself before; no part of the reply."""
    tokens: list[tuple[str, float, Alternatives]] = field(default_factory=list)
    """Text, probability and alternatives of each token, where the server tells."""
    pieces: int = 0
    """Pieces that came: tokens, where it tells no tokens."""
    finish: str | None = None
    """Why the answer ended; None if it has not."""

    def add(self, choice: Mapping[str, Any]) -> None:
        """Take a choice of an answer, or of a piece of one.

        Raises:
            ValueError: If it has not the form of a choice.
        """
        said = choice.get("delta") or choice.get("message") or {}
        if not isinstance(said, Mapping):
            raise ValueError("its choice holds no message")
        content = said.get("content")
        thought = said.get("reasoning_content") or said.get("reasoning")
        if not isinstance(content, str | None):
            raise ValueError("its content is no text")
        if content:
            self.text += content
            self.pieces += 1
        if isinstance(thought, str):
            self.thought += thought
        probabilities = choice.get("logprobs")
        if isinstance(probabilities, Mapping):
            self.tokens += [_token(one) for one in probabilities.get("content") or ()]
        finish = choice.get("finish_reason")
        if isinstance(finish, str):
            self.finish = finish

    @property
    def count(self) -> int:
        """Tokens so far."""
        return max(len(self.tokens), self.pieces)

    def reply(self, *, seconds: float, first_token_seconds: float | None, notes: tuple[str, ...]) -> Reply:
        """The reply, once it has ended. Tokens that don't make up its text are left out, all of them."""
        texts = token_texts([one[0] for one in self.tokens], self.text)
        tokens = self.tokens[: len(texts)]
        return Reply(
            text=self.text,
            seconds=seconds,
            token_texts=texts,
            token_probabilities=tuple(one[1] for one in tokens),
            token_alternatives=tuple(one[2] for one in tokens) if all(one[2] for one in tokens) else (),
            first_token_seconds=first_token_seconds,
            finished=self.finish != "length",
            notes=notes,
        )


def token_texts(tokens: Sequence[str], text: str) -> tuple[str, ...]:
    """The text that each token adds, so that joined they are the whole text; empty where they don't fit.

    A character may be cut into several tokens, which a server tells as replacement characters: it is counted
    to the last of them. Tokens beyond the end of the text, such as the one that ends a reply, are left out.

    >>> token_texts(["fin", "e", "<|im_end|>"], "fine")
    ('fin', 'e')
    >>> token_texts(["\ufffd", "\ufffd", "."], "肺.")
    ('', '肺', '.')
    >>> token_texts(["no", "t"], "fine")
    ()
    """
    found: list[str] = []
    at = 0
    for number, token in enumerate(tokens):
        if at == len(text):
            break
        if "\ufffd" in token and not text.startswith(token, at):
            following = next((one for one in tokens[number + 1 :] if one), "")
            if "\ufffd" in following:
                found.append("")
                continue
            end = text.find(following, at) if following else at + 1
            if end < 0:
                end = at + 1
            token = text[at:end]
        elif not text.startswith(token, at):
            return ()
        found.append(token)
        at += len(token)
    return tuple(found) if at == len(text) else ()


def _token(said: Any) -> tuple[str, float, Alternatives]:
    """Text, probability and alternatives that may be, the likeliest first and the one chosen among them."""
    if not isinstance(said, Mapping):
        raise ValueError("a token of its logprobs has no text")
    text, probability = _probability(said)
    others = {other: share for other, share in map(_probability, said.get("top_logprobs") or ()) if share > 0}
    if others:
        others.setdefault(text, probability)
    ranked = sorted(others.items(), key=lambda one: (-one[1], one[0] != text))[:TOP]
    if others and text not in dict(ranked):
        ranked[-1] = (text, probability)
    if sum(share for _, share in ranked) > 1 + TOLERANCE:
        ranked = []  # the chosen one's and the others' are not of one distribution: nothing follows from them
    return text, probability, tuple(ranked)


def _probability(said: Any) -> tuple[str, float]:
    text, logarithm = said.get("token"), said.get("logprob")
    if not isinstance(text, str) or not isinstance(logarithm, int | float) or math.isnan(logarithm):
        raise ValueError("a token of its logprobs has no text or no number")
    return text, math.exp(min(0.0, float(logarithm)))
