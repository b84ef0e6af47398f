"""Prompts: pictures of noise for a tiny model that knows nothing, phantoms for the one that ships."""

from __future__ import annotations

from typing import Any

import numpy as np

from medmllm_plugin.findings import reply_schema
from medmllm_plugin.models import Ask, Capabilities
from medmllm_plugin.phantoms import sample_study
from medmllm_plugin.prompting import prompt_for
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart, Turn
from medmllm_plugin.reply_forms import schema_for
from medmllm_plugin.request import Request
from medmllm_plugin.tasks import task
from medmllm_plugin.transforms.slices import SlicePlan


def a_prompt(
    *, seed: int = 0, pictures: int = 2, words: str = "Report.", turns: tuple[Turn, ...] = ()
) -> Prompt:
    """Pictures with their labels, and words after them."""
    generator = np.random.default_rng(seed)
    parts: list[TextPart | PicturePart] = []
    for number in range(1, pictures + 1):
        pixels = generator.integers(0, 256, (84, 112, 3), dtype=np.uint8)
        parts += [TextPart(text=f"<image_{number}>: "), PicturePart(number=number, pixels=pixels)]
    return Prompt(system="You read phantoms.", parts=(*parts, TextPart(text=words)), turns=turns)


def an_ask(*, pictures: int = 2, seed: int = 0, **options: Any) -> Ask:
    """A question about them whose reply is a report, unless said otherwise."""
    prompt = a_prompt(seed=seed, pictures=pictures)
    return Ask(**{"prompt": prompt, "schema": reply_schema(pictures=pictures), **options})


def phantom_asks(able: Capabilities, *, studies: int) -> list[Ask]:
    """What the engine asks a model about synthetic chest CTs that it never saw."""
    asks = []
    for seed in range(500_000, 500_000 + studies):
        volume = sample_study(seed=seed, slices=24, matrix=128).volume()
        request = Request(task=task("report"), slices=SlicePlan(**able.plan).apply(volume))
        asks.append(Ask(prompt=prompt_for(request, able), schema=schema_for(request, able), max_tokens=2000))
    return asks
