"""What a model in a folder can do: what its card says, else what its family can."""

from __future__ import annotations

from typing import Any

from medmllm_plugin.calibration import Calibration
from medmllm_plugin.capabilities import Capabilities, PlanFor
from medmllm_plugin.errors import ModelError
from medmllm_plugin.guard import Guard
from medmllm_plugin.models.families.family import DEFAULTS, Family
from medmllm_plugin.models.folder import ModelFolder
from medmllm_plugin.models.options import TransformersOptions

WORDS = 4096
"""Tokens left for instructions and the reply where the context bounds how many pictures there may be."""

USUAL = 448
"""Side of a picture, px, where neither card nor family has a plan that says it."""


def capabilities(
    folder: ModelFolder,
    family: Family,
    *,
    processor: Any,
    context_tokens: int | None,
    options: TransformersOptions = DEFAULTS,
) -> Capabilities:
    """The capabilities of a model whose decoding is bound by schemas and that tells probabilities.

    Args:
        folder: With its card.
        family: Of the model.
        processor: The model's own.
        context_tokens: Most tokens of a prompt and its reply together; None if unknown.
        options: How it was opened.

    Raises:
        SettingsError: If the calibration that the card names can't be used.
        ModelError: If the processor's settings don't tell how many tokens a picture takes.
    """
    card = folder.card
    said = {
        "boxes": card.boxes,
        "box_limit": card.box_limit,
        "findings": card.findings,
        "sites": card.sites,
        "tasks": card.tasks,
        "terse": card.terse,
        "free_text": card.free_text,
        "plan": card.plan,
        "plans": None
        if card.plans is None
        else tuple(PlanFor(names=tuple(one["for"]), plan=one["plan"]) for one in card.plans),
        "domain": card.domain,
        "measured": card.measured,
        "calibration": None if card.calibration is None else Calibration.load(folder.path / card.calibration),
    }
    known: dict[str, Any] = {
        "boxes": family.boxes,
        "box_limit": family.box_limit,
        "free_text": family.free_text,
        "plan": family.plan_for(options),
        "plans": family.plans,
        **{key: value for key, value in said.items() if value is not None},
    }
    return Capabilities(
        pictures=card.pictures or _pictures(folder.name, family, processor, context_tokens, options),
        schema_bound=True,
        probabilities=True,
        gathers=True,
        volumes=family.volumes,
        text_only=not card.terse,
        context_tokens=context_tokens,
        languages=("en",) if card.terse else family.languages,
        box_words=family.box_words,
        **known,
    )


def guard_of(folder: ModelFolder) -> Guard | None:
    """The guard that the card names; None if it names none.

    Raises:
        SettingsError: If it can't be used.
    """
    named = folder.card.guard
    return None if named is None else Guard.load(folder.path / named)


def _pictures(
    name: str, family: Family, processor: Any, context_tokens: int | None, options: TransformersOptions
) -> int:
    """Most pictures: what the family takes, as far as the context has room for them."""
    most = family.pictures * (2 if options.video else 1)
    if context_tokens is None or family.volumes:
        return most
    side = family.plan_for(options).get("size", USUAL)
    try:
        each = family.tokens(processor, rows=side, columns=side, options=options)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"its settings for pictures are not those of {family.name} ({error})"
        raise ModelError(f"{name}: {said}; copy the model again") from error
    if options.video:
        each = -(-each // 2)
    return max(1, min(most, (context_tokens - WORDS) // each))
