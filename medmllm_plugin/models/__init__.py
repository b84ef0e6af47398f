"""What a model is to the engine: a name, honest capabilities, and a reply to a prompt.

A model from outside registers an entry point in the group `medmllm.models`: a function `open_model(spec)`
that returns a `Model`; `spec` is what follows the colon in `--model NAME:SPEC`, or the empty string.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from medmllm_plugin.capabilities import Capabilities as Capabilities
from medmllm_plugin.capabilities import PlanFor as PlanFor
from medmllm_plugin.prompts import Prompt
from medmllm_plugin.sliceset import SliceSet

LEAST_TOKENS = 512
"""A reply is held to fewer tokens than asked for, so that it fits the context, if at least these are left."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ask:
    """One prompt put to a model, and what the reply is to be like."""

    prompt: Prompt
    schema: dict[str, Any] | None
    """JSON schema (2020-12) that the reply should satisfy; None for free text."""
    seed: int = 0
    """Of the samples; without a meaning at temperature 0."""
    max_tokens: int = 3072
    """Most tokens of the reply."""
    temperature: float = 0.0
    """0 for the likeliest token each time; above, tokens are drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a model said, whole."""

    text: str
    seconds: float
    """Wall-clock seconds; of a batch each reply's share of it."""
    token_texts: tuple[str, ...] = ()
    """The reply cut into its tokens; joined they are `text`. Empty if the model doesn't tell."""
    token_probabilities: tuple[float, ...] = ()
    """Probability of each token, 0 to 1, beside `token_texts`."""
    token_alternatives: tuple[tuple[tuple[str, float], ...], ...] = ()
    """Beside `token_texts`: the likeliest tokens at that place, the one chosen among them, each as its text
    and its probability among the tokens that the schema allows. Empty if the model doesn't tell."""
    first_token_seconds: float | None = None
    """From the question to the first token; None if the model doesn't tell."""
    finished: bool = True
    """False if it was cut short at `max_tokens`."""
    notes: tuple[str, ...] = ()
    """What a reader of the report must know of how it was asked, such as where pictures were sent."""


Progress = Callable[[int, int], None]
"""Called with (tokens written, tokens at most); of a batch the longest reply's."""

Cancel = Callable[[], bool]
"""Asked now and then while a model works; when it says True, the model stops with a `CancelledError`."""


@runtime_checkable
class Model(Protocol):
    """A model that reads pictures."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def version(self) -> str:
        """Its version, or the empty string."""

    @property
    def weights_sha256(self) -> str:
        """Hash over its weights, 64 hexadecimal digits; empty if it has none to hash."""

    @property
    def dtype(self) -> str:
        """Number type it computes in, such as `bfloat16`."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    def outside_domain(self, slices: SliceSet) -> str | None:
        """Why these images are outside what it was made for, in a sentence; None if they are inside."""

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        """Answer prompts, each with what is meant to satisfy its schema; in their order.

        Several together may be quicker than one after the other, and are answered the same.

        Raises:
            TooManyPicturesError: If a prompt shows more pictures than it takes.
            TooManyTokensError: If a prompt and its reply would be longer than it takes.
            ModelError: If it can't answer at all; its text is one line and says what to do.
            CancelledError: If `cancel` said so.
        """

    def box_to_picture(self, box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
        """A box of its own convention as (column_min, row_min, column_max, row_max) in picture pixels."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Closer:
    """Who looks from near at what an overview found, see `closer`."""

    model: Model
    findings: tuple[str, ...]
    """Keys of the findings that it was made for."""


@runtime_checkable
class LooksCloser(Protocol):
    """A model that may come with one for close looks."""

    def closer(self, slices: SliceSet) -> Closer | None:
        """The one for studies such as this; None if there is none."""
