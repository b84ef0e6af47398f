"""Binds what a model writes to a JSON schema, token by token, and keeps what it wrote with its probabilities.

At each step llguidance says which tokens can still lead to JSON that satisfies the schema; all others are
made impossible before the model chooses. Imported late: it needs torch and llguidance.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import torch

from medmllm_plugin.errors import ModelError
from medmllm_plugin.models import Progress


class Vocabulary:
    """A model's tokens as bytes, which is what grammars are about; made once for each model."""

    def __init__(self, tokenizer: Any, *, size: int, ends: Sequence[int]) -> None:
        """Take the tokens over from a tokenizer; about two seconds for 150,000 of them.

        Args:
            tokenizer: A fast tokenizer of transformers.
            size: How many scores the model gives, which may be more than the tokenizer has tokens.
            ends: Tokens that end a reply.
        """
        self.size = size
        self.ends = tuple(ends)
        self.tokens: Any = llguidance.hf.from_tokenizer(tokenizer, n_vocab=size, eos_token=list(ends))

    def texts(self, tokens: Sequence[int]) -> tuple[str, ...]:
        """The text that each token adds.

        A character may be cut into several tokens, none of which is text by itself; it is counted to the last
        of them, and those before add nothing. So the texts joined are always the text of all tokens.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        last = len(tokens) - 1
        return tuple(
            decoder.decode(self.tokens.decode_bytes([token]), final=position == last)
            for position, token in enumerate(tokens)
        )


class SchemaBound:
    """A logits processor for one greedy `generate` call with one prompt; the next call needs a new one."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        schema: dict[str, Any],
        *,
        max_tokens: int,
        progress: Progress | None = None,
    ) -> None:
        """Compile the schema.

        Args:
            vocabulary: The model's tokens.
            schema: The JSON schema the reply must satisfy; no white space is written around its parts.
            max_tokens: The most tokens a reply may have, for `progress`.
            progress: Called after each token but the last.

        Raises:
            ModelError: If the schema asks for something that a grammar can't.
        """
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                schema, defaults={"whitespace_flexible": False}
            )
            self._matcher = llguidance.LLMatcher(vocabulary.tokens, grammar)
        except ValueError as error:
            raise ModelError(
                f"replies can't be bound to this schema: {_one_line(error)}; simplify the task"
            ) from error
        self._check()
        self._ends = list(vocabulary.ends)
        self._max_tokens = max_tokens
        self._progress = progress
        self._bits = np.zeros((vocabulary.size + 31) // 32, np.int32)
        self._probabilities: list[torch.Tensor] = []

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The probability of each token chosen, among those the schema allowed there, 0 to 1."""
        return tuple(torch.stack(self._probabilities).tolist()) if self._probabilities else ()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores with every token that would break the schema made impossible.

        Args:
            input_ids: Shape (1, tokens): the prompt and what has been written so far.
            scores: Shape (1, vocabulary).

        Raises:
            ModelError: If the matcher gives up, which it does rather than let anything through.
        """
        written = len(self._probabilities)
        if written and not self._matcher.is_stopped():
            self._matcher.consume_token(int(input_ids[0, -1]))
            self._check()
        if written and self._progress is not None:
            self._progress(written, self._max_tokens)
        bound = scores.masked_fill(~self._allowed(scores), -torch.inf)
        self._probabilities.append(bound[0].float().softmax(-1).max())
        return bound

    def _allowed(self, scores: torch.Tensor) -> torch.Tensor:
        """Which tokens may follow: booleans of shape (vocabulary)."""
        size = scores.shape[-1]
        if self._matcher.is_stopped():
            allowed = torch.zeros(size, dtype=torch.bool)
            allowed[self._ends] = True
        else:
            self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
            self._check()
            flags = np.unpackbits(self._bits.view(np.uint8), bitorder="little", count=size)
            allowed = torch.from_numpy(flags.view(np.bool_))
        return allowed.to(scores.device)

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = _one_line(self._matcher.get_error())
            raise ModelError(f"the reply can't be kept to its schema: {reason}; simplify the task")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200]
