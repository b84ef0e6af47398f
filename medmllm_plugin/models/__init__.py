"""What a model is to the engine: a name, honest capabilities, and a reply to a prompt.

A model from outside registers an entry point in the group `medmllm.models`: a function `open_model(spec)`
that returns a `Model`; `spec` is what follows the colon in `--model NAME:SPEC`, or the empty string.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from medmllm_plugin.prompts import Prompt
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.volume import Study


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanFor:
    """A slice plan for some studies."""

    names: tuple[str, ...]
    """Which: kinds of our phantoms, and values of Modality (0008,0060)."""
    plan: dict[str, Any]
    """Settings of `transforms.slices.SlicePlan`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What a model can do; the engine asks for no more."""

    pictures: int
    """Most pictures in one prompt."""
    boxes: bool
    """Whether it can point with a box."""
    schema_bound: bool
    """Whether decoding itself is bound by the schema (replies are checked either way)."""
    tokens: int | None = None
    """Most tokens of all pictures together, as `SlicePlan.tokens`; None for no limit of its own."""
    box_limit: int = 4096
    """Largest box coordinate in its own convention."""
    findings: tuple[str, ...] | None = None
    """Keys of findings it knows; None for all of `codes.toml`."""
    sites: tuple[str, ...] | None = None
    """Keys of sites it knows; None for all of `codes.toml`."""
    tasks: tuple[str, ...] | None = None
    """Names of the tasks it was made for; None for any."""
    terse: bool = False
    """True for a small model trained on the bare prompt, without instructions or lists of keys."""
    plan: dict[str, Any] = field(default_factory=dict)
    """Settings of `transforms.slices.SlicePlan` that suit it, such as `count` and `size`."""
    plans: tuple[PlanFor, ...] = ()
    """Plans for studies that need another one than `plan`."""
    domain: str = "any radiology images, as far as it was trained on them; not validated for any"
    """In words, what it was made to read."""
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What it reached on phantoms that it never saw: by kind, then by keys of `scoring.MEASURES`."""

    def plans_for(self, study: Study) -> tuple[dict[str, Any], ...]:
        """Settings of the plans that suit a study: of its kind if it is a phantom, else all of its modality.

        More than one where kinds of one modality have plans of their own and the study doesn't say its kind.
        `plan` alone if there is none.
        """
        for name in (study.phantom, study.modality):
            found = tuple(one.plan for one in self.plans if name in one.names)
            if found:
                return found
        return (self.plan,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a model said, whole."""

    text: str
    seconds: float
    token_texts: tuple[str, ...] = ()
    """The reply cut into its tokens; joined they are `text`. Empty if the model doesn't tell."""
    token_probabilities: tuple[float, ...] = ()
    """Probability of each token, 0 to 1, beside `token_texts`."""


Progress = Callable[[int, int], None]
"""Called with (tokens written, tokens at most)."""


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

    def reply(
        self,
        prompt: Prompt,
        *,
        schema: dict[str, Any],
        seed: int,
        max_tokens: int,
        progress: Progress | None = None,
    ) -> Reply:
        """Answer the prompt with JSON meant to satisfy the schema.

        Raises:
            ModelError: If it can't answer at all; its text is one line and says what to do.
        """

    def box_to_picture(self, box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
        """A box of its own convention as (column_min, row_min, column_max, row_max) in picture pixels."""
