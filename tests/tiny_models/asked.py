"""The tiny models of all families, and what they are asked in tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medmllm_plugin.models.folder import open_folder
from medmllm_plugin.models.loading import Loaded, load
from medmllm_plugin.models.options import TransformersOptions
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart, Turn
from tests.tiny_model import TEMPLATE, hub_folder, tiny_folder
from tests.tiny_models.gemma3 import gemma3_folder
from tests.tiny_models.internvl import internvl_folder
from tests.tiny_models.llava import llava_folder
from tests.tiny_models.qwen3_vl import qwen3_vl_folder, qwen3_vl_moe_folder

FOLDERS: dict[str, Callable[[], Path]] = {
    "qwen2_5_vl": tiny_folder,
    "qwen2_5_vl as on the hub": hub_folder,
    "qwen3_vl": qwen3_vl_folder,
    "qwen3_vl_moe": qwen3_vl_moe_folder,
    "gemma3": gemma3_folder,
    "internvl": internvl_folder,
    "llava": llava_folder,
}
WITH_VIDEO = TEMPLATE.replace(
    "{%- endif -%}",
    "{%- elif part.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>{%- endif -%}",
    1,
)
"""A template of Qwen2.5-VL that shows videos, as those on the hub do."""
VIDEO = TransformersOptions(video=True)


@cache
def loaded(name: str) -> Loaded:
    """A model of `FOLDERS`, loaded once; not to be changed."""
    return load(open_folder(str(FOLDERS[name]())), TransformersOptions(device_map="cpu"))


def a_prompt(
    *,
    pictures: int = 2,
    shape: tuple[int, int] = (84, 84),
    words: str = "Report.",
    turns: tuple[Turn, ...] = (),
) -> Prompt:
    """Labelled pictures of noise, then words."""
    generator = np.random.default_rng(pictures)
    parts: list[TextPart | PicturePart] = []
    for number in range(1, pictures + 1):
        pixels = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
        parts += [TextPart(text=f"<image_{number}>: "), PicturePart(number=number, pixels=pixels)]
    return Prompt(system="You read phantoms.", parts=(*parts, TextPart(text=words)), turns=turns)


def a_conversation(pictures: int) -> Prompt:
    """The same with an answer and another question."""
    said = Turn(role="assistant", text='{"findings":[]}'), Turn(role="user", text="Where?")
    return a_prompt(pictures=pictures, turns=said)


def ours(of: Loaded, prompt: Prompt, options: TransformersOptions | None = None) -> dict[str, Any]:
    """Inputs as we make them."""
    options = options or TransformersOptions()
    found = of.family.words(of.processor, prompt, options)
    if prompt.pictures and of.family.by_picture(options):
        found |= of.family.pixels(of.processor, [part.pixels for part in prompt.pictures], options)
    return found


def by_processor_alone(of: Loaded, prompt: Prompt, **images: Any) -> dict[str, torch.Tensor]:
    """Inputs as the family's processor makes them."""
    inputs = of.processor.apply_chat_template(
        of.family.messages(prompt),
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"images_kwargs": images},
    )
    return dict(inputs)


def same(found: dict[str, Any], expected: dict[str, torch.Tensor]) -> bool:
    """Whether inputs are equal to the last bit."""
    return found.keys() == expected.keys() and all(
        found[key].dtype == expected[key].dtype and torch.equal(found[key], expected[key]) for key in expected
    )
