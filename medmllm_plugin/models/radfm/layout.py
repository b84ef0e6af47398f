"""The published checkpoint of RadFM: which keys it has, of which shapes, and which of them are not used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from medmllm_plugin.errors import ModelError
from medmllm_plugin.models.radfm.sizes import LANGUAGE, VisionSizes

Shape = tuple[int, ...]

FRONT, LANGUAGE_PART = "embedding_layer.", "lang_model."
"""What the keys of the two halves begin with."""

TIED = "lang_model.model.embed_tokens.weight"
"""The embedding of words once more, as the language half has it."""
WORDS = "embedding_layer.weight"

UNUSED = re.compile(
    r"(?:embedding_layer\.)?(?:bert_model|bert_projection_fc|output_upscaling|transformer_decoder\w*|cls_head)\."
    r".*|.*\.rotary_emb\.inv_freq"
)
"""What only training needed (a text encoder, a decoder for segmentation), and tables that are computed."""


def front_shapes(sizes: VisionSizes, language: Mapping[str, Any] = LANGUAGE) -> dict[str, Shape]:
    """The keys of the vision half and of the embeddings, with their shapes.

    >>> shapes = front_shapes(VisionSizes())
    >>> shapes["embedding_layer.vision_encoder.transformer.layers.11.0.fn.to_qkv.weight"]
    (1536, 768)
    >>> import math
    >>> round(sum(math.prod(shape) for name, shape in shapes.items() if "vision_encoder" in name) / 1e6, 1)
    66.2
    """
    hidden, inner, width = sizes.hidden, sizes.inner, language["hidden_size"]
    found: dict[str, Shape] = {"weight": (language["vocab_size"], width), "figure_token_weight": (2, width)}

    def norm(name: str, size: int = hidden) -> None:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (size,)

    def linear(name: str, out: int, into: int, *, bias: bool = False) -> None:
        found[f"{name}.weight"] = (out, into)
        if bias:
            found[f"{name}.bias"] = (out,)

    norm("vision_encoder.to_patch_embedding.1", sizes.patch_numbers)
    linear("vision_encoder.to_patch_embedding.2", hidden, sizes.patch_numbers, bias=True)
    norm("vision_encoder.to_patch_embedding.3")
    for axis, places in (("row", sizes.rows), ("col", sizes.rows), ("dep", sizes.depths)):
        linear(f"vision_encoder.pos_embedding.{axis}_embed", places, hidden // 3)
    for number in range(sizes.layers):
        layer = f"vision_encoder.transformer.layers.{number}"
        norm(f"{layer}.0.norm")
        linear(f"{layer}.0.fn.to_qkv", 3 * inner, hidden)
        linear(f"{layer}.0.fn.to_out.0", hidden, inner, bias=True)
        norm(f"{layer}.1.norm")
        linear(f"{layer}.1.fn.net.0", sizes.mlp, hidden, bias=True)
        linear(f"{layer}.1.fn.net.3", hidden, sizes.mlp, bias=True)
    found["perceiver.latents"] = (sizes.latents, hidden)
    for number in range(sizes.resampler_layers):
        layer = f"perceiver.layers.{number}"
        norm(f"{layer}.0.norm_media")
        norm(f"{layer}.0.norm_latents")
        linear(f"{layer}.0.to_q", inner, hidden)
        linear(f"{layer}.0.to_kv", 2 * inner, hidden)
        linear(f"{layer}.0.to_out", hidden, inner)
        norm(f"{layer}.1.0")
        linear(f"{layer}.1.1", 4 * hidden, hidden)
        linear(f"{layer}.1.3", hidden, 4 * hidden)
    norm("perceiver.norm")
    linear("fc", width, hidden, bias=True)
    return {FRONT + name: shape for name, shape in found.items()}


def language_shapes(language: Mapping[str, Any] = LANGUAGE) -> dict[str, Shape]:
    """The keys of the language half with their shapes, the embeddings that it shares left out."""
    width, inner, vocabulary = (language[key] for key in ("hidden_size", "intermediate_size", "vocab_size"))
    head = language.get("head_dim") or width // language["num_attention_heads"]
    wide, narrow = (head * language[f"num_{kind}_heads"] for kind in ("attention", "key_value"))
    found: dict[str, Shape] = {"model.norm.weight": (width,), "lm_head.weight": (vocabulary, width)}
    for number in range(language["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        found |= {
            f"{layer}.input_layernorm.weight": (width,),
            f"{layer}.post_attention_layernorm.weight": (width,),
            f"{layer}.self_attn.q_proj.weight": (wide, width),
            f"{layer}.self_attn.k_proj.weight": (narrow, width),
            f"{layer}.self_attn.v_proj.weight": (narrow, width),
            f"{layer}.self_attn.o_proj.weight": (width, wide),
            f"{layer}.mlp.gate_proj.weight": (inner, width),
            f"{layer}.mlp.up_proj.weight": (inner, width),
            f"{layer}.mlp.down_proj.weight": (width, inner),
        }
    return {LANGUAGE_PART + name: shape for name, shape in found.items()}


def used_keys(
    found: Mapping[str, Shape], *, sizes: VisionSizes, language: Mapping[str, Any], where: object
) -> tuple[str, ...]:
    """The keys of a checkpoint that make the model, after seeing that they are all there.

    Args:
        found: Its keys with their shapes.
        sizes: Of the vision half.
        language: Of the language half.
        where: What errors begin with.

    Raises:
        ModelError: If one is missing, of another shape, or not known at all.
    """
    expected = {**front_shapes(sizes, language), **language_shapes(language)}
    missing = [name for name in expected if name not in found]
    if missing:
        raise ModelError(f"{where}: found no {missing[0]}{_and_more(missing)}, expected RadFM; copy it again")
    strange = [name for name in found if name not in expected and name != TIED and not UNUSED.fullmatch(name)]
    if strange:
        raise ModelError(
            f"{where}: found {strange[0]}{_and_more(strange)}, which RadFM doesn't have; name its checkpoint"
        )
    shapes = {**expected, TIED: expected[WORDS]}
    for name, shape in shapes.items():
        if name in found and tuple(found[name]) != shape:
            raise ModelError(
                f"{where}: found {name} of shape {tuple(found[name])}, expected {shape}; copy it again"
            )
    return tuple(expected)


def stored_name(name: str) -> str:
    """What a key is called in a converted folder: of the language half as `LlamaForCausalLM` calls it.

    >>> stored_name("lang_model.model.norm.weight"), stored_name("embedding_layer.fc.bias")
    ('model.norm.weight', 'embedding_layer.fc.bias')
    >>> stored_name("embedding_layer.weight")
    'model.embed_tokens.weight'
    """
    if name == WORDS:
        name = TIED
    return name.removeprefix(LANGUAGE_PART)


def _and_more(names: Iterable[str]) -> str:
    more = len(list(names)) - 1
    return f" and {more} more" if more else ""
