"""A prompt as the tensors that a model of the Qwen2-VL family computes with."""

from __future__ import annotations

from typing import Any

import numpy as np

from medmllm_plugin.prompts import Prompt, TextPart
from medmllm_plugin.transforms.patches import PatchFormat, patches


def model_inputs(processor: Any, prompt: Prompt) -> Any:
    """What a Qwen2-VL processor makes of a prompt, as tensors, its pictures cut by us.

    Equal to what it makes alone, and quicker; see `patches.patches`. It does it alone if its settings are not
    the family's.

    Raises:
        ValueError: If a picture has an impossible shape, or the template doesn't show each picture once.
    """
    form = PatchFormat.of(processor.image_processor)
    if form is None or not prompt.pictures:
        return processor.apply_chat_template(
            messages(prompt), tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
    import torch

    values, grid = patches([part.pixels for part in prompt.pictures], form=form)
    text = processor.apply_chat_template(
        messages(prompt, images=False), tokenize=False, add_generation_prompt=True
    )
    between = text.split(processor.image_token)
    if len(between) != len(grid) + 1:
        raise ValueError(f"the chat template shows {len(between) - 1} pictures, expected {len(grid)}")
    counts = grid.prod(axis=1) // form.merge**2
    shown = [words + processor.image_token * int(n) for words, n in zip(between, counts, strict=False)]
    inputs = processor.tokenizer(["".join(shown) + between[-1]], return_tensors="pt")
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == processor.image_token_id).long()
    inputs["pixel_values"], inputs["image_grid_thw"] = torch.from_numpy(values), torch.from_numpy(grid)
    return inputs


def messages(prompt: Prompt, *, images: bool = True) -> list[dict[str, Any]]:
    """The prompt as chat messages, pictures as RGB images of Pillow.

    `<|` in words becomes `< |`, so words can't pose as the tokens that end a turn or stand for a picture.

    Args:
        prompt: What is asked.
        images: False: only where pictures stand, for a template, which needs no more.
    """
    from PIL import Image

    content: list[dict[str, Any]] = []
    for part in prompt.parts:
        if isinstance(part, TextPart):
            content.append({"type": "text", "text": _plain(part.text)})
        elif images:
            content.append({"type": "image", "image": Image.fromarray(np.ascontiguousarray(part.pixels))})
        else:
            content.append({"type": "image"})
    system = [{"type": "text", "text": _plain(prompt.system)}]
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def _plain(text: str) -> str:
    return text.replace("<|", "< |")
