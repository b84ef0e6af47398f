"""An InternVL3, as Lingshu-I-8B, with random weights: tiles of 56 px and 4 tokens."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from tests.tiny_models.common import byte_level, saved, vocab_size

CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.role }}{{ '\n' }}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<IMG_CONTEXT>{{ '\n' }}{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}<|im_end|>{{ '\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\n' }}{%- endif -%}"
)


@cache
def internvl_folder(*, seed: int = 0) -> Path:
    """A folder as transformers saves it."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
        Qwen2Tokenizer,
    )

    tokenizer = Qwen2Tokenizer(
        tokenizer_object=byte_level(CONTROL),
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
    )
    ids = dict(zip(CONTROL, tokenizer.convert_tokens_to_ids(CONTROL), strict=True))

    def make() -> tuple[Any, Any]:
        config = InternVLConfig(
            text_config={
                "model_type": "qwen2",
                "vocab_size": vocab_size(tokenizer),
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "max_position_embeddings": 32768,
                "tie_word_embeddings": False,
            },
            vision_config={
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": (56, 56),
                "patch_size": (14, 14),
            },
            image_token_id=ids["<IMG_CONTEXT>"],
            image_seq_length=4,
            tie_word_embeddings=False,
        )
        processor = InternVLProcessor(
            image_processor=GotOcr2ImageProcessor(size={"height": 56, "width": 56}, crop_to_patches=True),
            tokenizer=tokenizer,
            video_processor=InternVLVideoProcessor(),
            image_seq_length=4,
            chat_template=TEMPLATE,
        )
        return InternVLForConditionalGeneration(config), processor

    return saved(make, seed=seed, ends=[ids["<|im_end|>"]], pad=ids["<|endoftext|>"])
