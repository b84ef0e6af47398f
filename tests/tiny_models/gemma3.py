"""A Gemma 3, as MedGemma, with random weights: pictures of 56 px and 4 tokens."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from tests.tiny_models.common import byte_level, saved, vocab_size

CONTROL = [
    *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
]
TEMPLATE = (
    "{{ bos_token }}{%- set ns = namespace(prefix='') -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{%- set ns.prefix = message.content[0].text + '\n\n' -%}"
    "{%- else -%}<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}{{ '\n' }}"
    "{{ ns.prefix }}{%- set ns.prefix = '' -%}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<start_of_image>{%- else -%}{{ part.text | trim }}{%- endif -%}"
    "{%- endfor -%}<end_of_turn>{{ '\n' }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<start_of_turn>model{{ '\n' }}{%- endif -%}"
)


@cache
def gemma3_folder(*, seed: int = 0) -> Path:
    """A folder as transformers saves it."""
    import torch
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
        PreTrainedTokenizerFast,
    )

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(CONTROL, begin="<bos>"),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )
    ids = dict(zip(CONTROL, tokenizer.convert_tokens_to_ids(CONTROL), strict=True))

    def make() -> tuple[Any, Any]:
        config = Gemma3Config(
            text_config={
                "vocab_size": vocab_size(tokenizer),
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 32,
                "query_pre_attn_scalar": 32,
                "max_position_embeddings": 8192,
                "sliding_window": 64,
                "layer_types": ["sliding_attention", "full_attention"],
                "pad_token_id": ids["<pad>"],
                "bos_token_id": ids["<bos>"],
                "eos_token_id": ids["<eos>"],
            },
            vision_config={
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 56,
                "patch_size": 14,
                "vision_use_head": False,
            },
            mm_tokens_per_image=4,
            boi_token_index=ids["<start_of_image>"],
            eoi_token_index=ids["<end_of_image>"],
            image_token_index=ids["<image_soft_token>"],
        )
        processor = Gemma3Processor(
            image_processor=Gemma3ImageProcessor(size={"height": 56, "width": 56}),
            tokenizer=tokenizer,
            chat_template=TEMPLATE,
            image_seq_length=4,
        )
        model = Gemma3ForConditionalGeneration(config)
        # It begins as zeros, with which no picture would count.
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
        return model, processor

    return saved(make, seed=seed, ends=[ids["<eos>"], ids["<end_of_turn>"]], pad=ids["<pad>"])
