"""What a model can do, as far as the engine needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medmllm_plugin.calibration import Calibration
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
    free_text: bool = False
    """True if it can't be expected to write JSON: its prose is turned into findings by a second pass."""
    probabilities: bool = False
    """Whether replies tell how probable their tokens were."""
    volumes: int = 0
    """Most native volumes in one prompt."""
    text_only: bool = False
    """Whether it also answers where nothing is shown."""
    context_tokens: int | None = None
    """Most tokens of a prompt and its reply together; None if it doesn't tell."""
    languages: tuple[str, ...] = ("en",)
    """In which it can be asked and answers, as ISO 639-1 codes."""
    tokens: int | None = None
    """Most tokens of all pictures together, as `SlicePlan.tokens`; None for no limit of its own."""
    box_limit: int = 4096
    """Largest box coordinate in its own convention."""
    box_words: str = "bbox_2d is [x1, y1, x2, y2] in pixels of that picture"
    """How a box is to be given, as the prompt tells it."""
    findings: tuple[str, ...] | None = None
    """Keys of findings it knows; None for all of `codes.toml`."""
    sites: tuple[str, ...] | None = None
    """Keys of sites it knows; None for all of `codes.toml`."""
    gathers: bool = False
    """Whether several prompts of one call are quicker than calls beside each other, of which it does one at a
    time; such as a model in this process."""
    tasks: tuple[str, ...] | None = None
    """Names of the tasks it was made for; None for any."""
    terse: bool = False
    """True for a small model trained on the bare prompt, without instructions or lists of keys."""
    sends_to: tuple[str, ...] = ()
    """Hosts beyond this machine that pictures are sent to; empty if they stay here."""
    plan: dict[str, Any] = field(default_factory=dict)
    """Settings of `transforms.slices.SlicePlan` that suit it, such as `count` and `size`."""
    plans: tuple[PlanFor, ...] = ()
    """Plans for studies that need another one than `plan`."""
    domain: str = "any radiology images, as far as it was trained on them; not validated for any"
    """In words, what it was made to read."""
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What it reached on phantoms that it never saw: by kind, then by keys of `scoring.MEASURES`."""
    calibration: Calibration | None = None
    """What its certainties are worth; None if that was not measured."""

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
