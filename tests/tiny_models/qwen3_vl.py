"""A Qwen3-VL with random weights, also one whose layers are mixtures of experts."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from tests.tiny_model import CONTROL, TEMPLATE
from tests.tiny_models.common import byte_level, saved, vocab_size


@cache
def qwen3_vl_moe_folder(*, seed: int = 0) -> Path:
    """The same as a mixture of experts."""
    return qwen3_vl_folder(seed=seed, experts=4)


@cache
def qwen3_vl_folder(*, seed: int = 0, experts: int = 0) -> Path:
    """A folder as transformers saves it."""
    from transformers import (
        Qwen2Tokenizer,
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLMoeConfig,
        Qwen3VLMoeForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokenizer = Qwen2Tokenizer(
        tokenizer_object=byte_level(CONTROL),
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=CONTROL[1:],
    )
    ids = dict(zip(CONTROL, tokenizer.convert_tokens_to_ids(CONTROL), strict=True))

    def make() -> tuple[Any, Any]:
        kind, architecture = Qwen3VLConfig, Qwen3VLForConditionalGeneration
        mixed: dict[str, Any] = {}
        if experts:
            kind, architecture = Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration
            mixed = {"num_experts": experts, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
        config = kind(
            text_config={
                **mixed,
                "vocab_size": vocab_size(tokenizer),
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 32,
                "max_position_embeddings": 32768,
                "rope_parameters": {
                    "rope_type": "default",
                    "mrope_section": [6, 5, 5],
                    "mrope_interleaved": True,
                    "rope_theta": 1e6,
                },
            },
            vision_config={
                "depth": 2,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_heads": 2,
                "out_hidden_size": 64,
                "patch_size": 16,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0],
            },
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
        )
        processor = Qwen3VLProcessor(
            image_processor=Qwen2VLImageProcessor(
                patch_size=16,
                image_mean=[0.5] * 3,
                image_std=[0.5] * 3,
                size={"shortest_edge": 1024, "longest_edge": 16777216},
            ),
            tokenizer=tokenizer,
            video_processor=Qwen3VLVideoProcessor(),
            chat_template=TEMPLATE,
        )
        return architecture(config), processor

    return saved(make, seed=seed, ends=[ids["<|im_end|>"]], pad=ids["<|endoftext|>"])
