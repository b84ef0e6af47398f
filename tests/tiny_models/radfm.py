"""Builds a RadFM with random weights: as published (a pickled checkpoint and a tokenizer), or converted.

It is as small as its patches allow, and leans towards closing what it opened, so its replies end soon.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from medmllm_plugin.models.radfm.sizes import LANGUAGE, TYPE, VisionSizes
from tests.tiny_model import BIAS, CONSTANT
from tests.tiny_models.common import byte_level, temporary

VISION = VisionSizes(hidden=48, layers=2, heads=2, head=16, mlp=64, latents=32, resampler_layers=2)
CONTROL = ("<unk>", "<s>", "</s>")
CONTEXT = 16384
"""Longer than published: its words are cut into three times as many tokens."""


@cache
def published_radfm(*, seed: int = 0, context: int = CONTEXT) -> Path:
    """A folder as RadFM is published, with a config.json beside it that says how small it is."""
    import torch

    folder = temporary()
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder / "Language_files")
    (folder / "config.json").write_text(json.dumps(config(tokenizer, context)), "utf-8")
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        torch.save(_state(tokenizer), folder / "pytorch_model.bin")
    return folder


@cache
def radfm_folder(*, seed: int = 0, context: int = CONTEXT) -> Path:
    """The same model, converted."""
    from medmllm_plugin.models.radfm.convert import convert

    folder = temporary() / "radfm-tiny"
    convert(published_radfm(seed=seed, context=context), folder)
    return folder


def config(tokenizer: Any, context: int = CONTEXT) -> dict[str, Any]:
    """The content of the config.json."""
    text = LANGUAGE | {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos")},
    }
    return {"model_type": TYPE, "vision_config": asdict(VISION), "text_config": text}


def _state(tokenizer: Any) -> dict[str, Any]:
    """A checkpoint with the keys of the published one, some that are never used among them."""
    import torch

    from medmllm_plugin.models.radfm.modeling import RadFM, RadFMConfig

    said = config(tokenizer)
    model = RadFM(RadFMConfig(vision_config=said["vision_config"], text_config=said["text_config"]))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(5.0)
        words = model.embedding_layer.weight
        words.normal_(0.0, 1.0)
        words[:, 0] = CONSTANT
        model.lang_model.lm_head.weight.normal_(0.0, 1.0)
        model.lang_model.lm_head.weight[:, 0] = 0.0
        model.lang_model.lm_head.weight[tokenizer.eos_token_id, 0] = 2 * BIAS  # prose ends soon
        for text, token in tokenizer.get_vocab().items():
            if text.startswith('"'):
                model.lang_model.lm_head.weight[token, 0] = BIAS
    state = {name: one.detach().clone() for name, one in model.state_dict().items()}
    state["lang_model.model.embed_tokens.weight"] = state["embedding_layer.weight"]
    return state | {
        "lang_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        "embedding_layer.bert_model.encoder.layer.0.output.dense.weight": torch.ones(4, 4),
        "embedding_layer.bert_projection_fc.weight": torch.ones(2, 4),
        "embedding_layer.cls_head.bias": torch.ones(2),
        "embedding_layer.transformer_decoder.layers.0.norm1.weight": torch.ones(4),
        "embedding_layer.transformer_decoder_norm.weight": torch.ones(4),
        "embedding_layer.output_upscaling.0.weight": torch.ones(2, 2),
    }


def _tokenizer() -> Any:
    """A byte-level BPE with LLaMA's control tokens."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(CONTROL), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
