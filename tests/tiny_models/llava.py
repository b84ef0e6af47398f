"""A LLaVA on Mistral, as a converted LLaVA-Med, with random weights: a picture of 56 px and 16 tokens."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from tests.tiny_models.common import byte_level, saved, vocab_size

CONTROL = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
TEMPLATE = (
    "{{ bos_token }}{%- set ns = namespace(prefix='') -%}"
    "{%- for message in messages -%}"
    "{%- if message.role == 'system' -%}{%- set ns.prefix = message.content[0].text + '\n\n' -%}"
    "{%- elif message.role == 'user' -%}[INST] {{ ns.prefix }}{%- set ns.prefix = '' -%}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<image>{{ '\n' }}{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{{ ' [/INST]' }}"
    "{%- else -%}{{ ' ' + message.content[0].text }}</s>{%- endif -%}{%- endfor -%}"
)


@cache
def llava_folder(*, seed: int = 0) -> Path:
    """A folder as transformers saves it."""
    from transformers import (
        CLIPImageProcessor,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(CONTROL, begin="<s>"),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    ids = dict(zip(CONTROL, tokenizer.convert_tokens_to_ids(CONTROL), strict=True))

    def make() -> tuple[Any, Any]:
        config = LlavaConfig(
            text_config={
                "model_type": "mistral",
                "vocab_size": vocab_size(tokenizer),
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 32,
                "max_position_embeddings": 4096,
                "sliding_window": None,
            },
            vision_config={
                "model_type": "clip_vision_model",
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 3,
                "num_attention_heads": 2,
                "image_size": 56,
                "patch_size": 14,
                "projection_dim": 64,
            },
            image_token_index=ids["<image>"],
            image_seq_length=16,
        )
        processor = LlavaProcessor(
            image_processor=CLIPImageProcessor(
                size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
            ),
            tokenizer=tokenizer,
            patch_size=14,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=TEMPLATE,
        )
        return LlavaForConditionalGeneration(config), processor

    return saved(make, seed=seed, ends=[ids["</s>"]], pad=ids["<pad>"])
