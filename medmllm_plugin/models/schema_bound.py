"""Chooses the next tokens of several replies at once, each bound to its own JSON schema.

At each step llguidance says which tokens can still lead to JSON that satisfies a row's schema; all others
are made impossible before a token is chosen. The likeliest tokens and their probabilities are kept. Imported
late: it needs torch and llguidance.
"""

from __future__ import annotations

import codecs
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import torch
from numpy.typing import NDArray

from medmllm_plugin.errors import ModelError
from medmllm_plugin.models import Ask

ALTERNATIVES = 8
"""How many of the likeliest tokens are kept for each place."""


class NotNumbersError(ArithmeticError):
    """A model's scores are not numbers: its weights are damaged, or its number type too small."""


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
        self.known = min(size, len(tokenizer))
        """How many of the scores stand for a token."""
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
            decoder.decode(self._bytes(token), final=position == last)
            for position, token in enumerate(tokens)
        )

    def text(self, token: int) -> str:
        """The text of one token by itself; what is no text is marked."""
        return self._bytes(token).decode("utf-8", errors="replace")

    def _bytes(self, token: int) -> bytes:
        """Nothing for control tokens, which are no text."""
        return b"" if self.tokens.is_special_token(token) else bytes(self.tokens.decode_bytes([token]))


class Grammar:
    """What a reply that satisfies a schema may go on with."""

    def __init__(self, vocabulary: Vocabulary, schema: dict[str, Any]) -> None:
        """Compile the schema; no white space is written around the parts of the JSON.

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

    @property
    def stopped(self) -> bool:
        """Whether nothing but the end can follow."""
        return bool(self._matcher.is_stopped())

    def write(self, token: int) -> None:
        """Go on with a token.

        Raises:
            ModelError: If the matcher gives up, which it does rather than let anything through.
        """
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)
            self._check()

    def fill(self, bits: NDArray[np.int32]) -> None:
        """Set the bit of each token that may follow, lowest bit first; shape (vocabulary / 32)."""
        self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = _one_line(self._matcher.get_error())
            raise ModelError(f"the reply can't be kept to its schema: {reason}; simplify the task")


@dataclass(kw_only=True, slots=True, eq=False)
class Row:
    """One reply while it is written."""

    ask: Ask
    grammar: Grammar | None
    """None for free text."""
    draws: random.Random
    tokens: list[int] = field(default_factory=list)
    """Chosen so far, without the end."""
    probabilities: list[float] = field(default_factory=list)
    """Of each chosen token among those allowed, 0 to 1."""
    alternatives: list[list[tuple[int, float]]] = field(default_factory=list)
    """For each chosen token the likeliest at its place with their probabilities, itself among them."""
    finished: bool = False
    """Whether the reply came to its own end."""

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be written."""
        return self.finished or len(self.tokens) >= self.ask.max_tokens


class Chooser:
    """A logits processor that chooses; for one greedy `generate` call, and the next call needs a new one.

    All tokens but the chosen one are made impossible, so that greedy decoding takes it. A row draws from its
    own seed, so its reply is the same whatever else is in the batch.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        asks: Sequence[Ask],
        *,
        step: Callable[[int], object] | None = None,
    ) -> None:
        """Compile the schemas.

        Args:
            vocabulary: The model's tokens.
            asks: What each row is to be like.
            step: Called before each choice with how many tokens the longest row has; may raise to stop it.

        Raises:
            ModelError: If a schema asks for something that a grammar can't.
        """
        self.rows = tuple(
            Row(
                ask=ask,
                grammar=None if ask.schema is None else Grammar(vocabulary, ask.schema),
                draws=random.Random(ask.seed),
            )
            for ask in asks
        )
        self.first_choice: float | None = None
        """When the first tokens were chosen, by `time.perf_counter`."""
        self._vocabulary = vocabulary
        self._step = step
        self._bits = np.zeros((len(self.rows), (vocabulary.size + 31) // 32), np.int32)
        self._ends = np.zeros(self._bits.shape[1], np.int32)
        _set(self._ends, vocabulary.ends)
        self._any = np.zeros_like(self._ends)
        _set(self._any, range(vocabulary.known))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores of which greedy decoding takes what was chosen.

        Args:
            input_ids: Shape (rows, tokens): the prompts and what has been written so far.
            scores: Shape (rows, vocabulary).

        Raises:
            ModelError: If a matcher gives up.
            NotNumbersError: If no token that may follow has a number for a score.
        """
        if self._step is not None:
            self._step(max(len(row.tokens) for row in self.rows))
        self._allow()
        bound = scores.float().masked_fill(~_unpacked(self._bits, scores), -torch.inf)
        chances = bound.softmax(-1)
        top = chances.topk(min(ALTERNATIVES, bound.shape[-1]))
        values, likeliest = top.values.tolist(), top.indices.tolist()
        greedy = bound.argmax(-1).tolist()
        chosen = []
        for number, row in enumerate(self.rows):
            places = list(zip(likeliest[number], values[number], strict=True))
            token = greedy[number]
            if not row.ended:
                if not math.isfinite(places[0][1]):
                    raise NotNumbersError("the scores are not numbers")
                if row.ask.temperature > 0:
                    token = _draw(bound[number], row.ask.temperature, row.draws.random())
                self._keep(row, token, places, chances[number])
            chosen.append(token)
        if self.first_choice is None:
            self.first_choice = time.perf_counter()
        picked = torch.tensor(chosen, device=scores.device)[:, None]
        return torch.full_like(scores, -torch.inf).scatter_(1, picked, 0.0)

    def ended(self, input_ids: torch.Tensor, scores: Any) -> torch.Tensor:
        """Which rows have nothing more to write: a stopping criterion of `generate`, booleans (rows)."""
        return torch.tensor([row.ended for row in self.rows], device=input_ids.device)

    def _allow(self) -> None:
        """Set the bits of the tokens that may follow in each row."""
        for row, bits in zip(self.rows, self._bits, strict=True):
            if row.ended:
                bits[:] = self._ends
            elif row.grammar is None:
                bits[:] = self._any
            else:
                row.grammar.fill(bits)

    def _keep(self, row: Row, token: int, places: list[tuple[int, float]], chances: torch.Tensor) -> None:
        if token in self._vocabulary.ends:
            row.finished = True
            return
        chance = dict(places).get(token)
        if chance is None:  # drawn, though others were likelier
            chance = float(chances[token])
            places = [*places[: ALTERNATIVES - 1], (token, chance)]
        row.tokens.append(token)
        row.probabilities.append(chance)
        row.alternatives.append([one for one in places if one[1] > 0])
        if row.grammar is not None:
            row.grammar.write(token)
            row.finished = row.grammar.stopped


def _set(bits: NDArray[np.int32], tokens: Sequence[int]) -> None:
    """Set the bits of tokens, lowest bit first."""
    flags = np.zeros(32 * len(bits), np.uint8)
    flags[np.asarray(tokens)] = 1
    bits[:] = np.packbits(flags, bitorder="little").view(np.int32)


def _unpacked(bits: NDArray[np.int32], scores: torch.Tensor) -> torch.Tensor:
    """The bits as booleans of the shape of the scores, spread out where the scores are."""
    packed = torch.from_numpy(bits.view(np.uint8)).to(scores.device)
    places = torch.arange(8, device=scores.device, dtype=torch.uint8)
    flags = (packed[:, :, None] >> places) & 1
    return flags.reshape(len(bits), -1)[:, : scores.shape[-1]].bool()


def _draw(scores: torch.Tensor, temperature: float, at: float) -> int:
    """The token at a place, 0 to 1, of the chances that a temperature gives, laid side by side."""
    chances = (scores.double() / temperature).softmax(-1).cumsum(-1)
    return int(torch.searchsorted(chances, at * chances[-1], right=True))


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200]
