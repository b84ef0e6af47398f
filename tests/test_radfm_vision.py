"""Tests of `models.radfm`: architecture and layout of the vision half, at its full size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medmllm_plugin.errors import ModelError
from medmllm_plugin.models.radfm.architecture import FrontEnd, patches
from medmllm_plugin.models.radfm.layout import UNUSED, front_shapes, language_shapes, used_keys
from medmllm_plugin.models.radfm.modeling import RadFM, RadFMConfig
from medmllm_plugin.models.radfm.sizes import LANGUAGE, VisionSizes
from tests.radfm_by_numpy import tokens_of

FRONT = "embedding_layer."
PUBLISHED = {
    "weight": (32000, 5120),
    "figure_token_weight": (2, 5120),
    "vision_encoder.to_patch_embedding.1.weight": (12288,),
    "vision_encoder.to_patch_embedding.2.weight": (768, 12288),
    "vision_encoder.to_patch_embedding.2.bias": (768,),
    "vision_encoder.to_patch_embedding.3.bias": (768,),
    "vision_encoder.pos_embedding.row_embed.weight": (16, 256),
    "vision_encoder.pos_embedding.col_embed.weight": (16, 256),
    "vision_encoder.pos_embedding.dep_embed.weight": (128, 256),
    "vision_encoder.transformer.layers.0.0.norm.weight": (768,),
    "vision_encoder.transformer.layers.0.0.fn.to_qkv.weight": (1536, 768),
    "vision_encoder.transformer.layers.11.0.fn.to_out.0.weight": (768, 512),
    "vision_encoder.transformer.layers.11.0.fn.to_out.0.bias": (768,),
    "vision_encoder.transformer.layers.11.1.norm.bias": (768,),
    "vision_encoder.transformer.layers.11.1.fn.net.0.weight": (2048, 768),
    "vision_encoder.transformer.layers.11.1.fn.net.3.weight": (768, 2048),
    "perceiver.latents": (32, 768),
    "perceiver.layers.0.0.norm_media.weight": (768,),
    "perceiver.layers.0.0.norm_latents.bias": (768,),
    "perceiver.layers.5.0.to_q.weight": (512, 768),
    "perceiver.layers.5.0.to_kv.weight": (1024, 768),
    "perceiver.layers.5.0.to_out.weight": (768, 512),
    "perceiver.layers.5.1.0.weight": (768,),
    "perceiver.layers.5.1.1.weight": (3072, 768),
    "perceiver.layers.5.1.3.weight": (768, 3072),
    "perceiver.norm.bias": (768,),
    "fc.weight": (5120, 768),
    "fc.bias": (5120,),
}
"""One of each kind of key, from the published description."""


@pytest.fixture(scope="module")
def front() -> FrontEnd:
    """The whole vision half with random weights, none of them left at what it begins with."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        made = FrontEnd(VisionSizes(), vocabulary=8, width=5120).eval()
        with torch.no_grad():
            for name, weight in made.named_parameters():
                if weight.ndim > 1:
                    weight.normal_(0.0, weight.shape[-1] ** -0.5)
                elif name.endswith("weight"):
                    weight.uniform_(0.5, 1.5)
                else:
                    weight.normal_(0.0, 0.2)
    return made


@pytest.mark.parametrize(("side", "depth"), [(256, 16), (512, 4), (256, 12)])
def test_the_vision_half_computes_what_the_description_says(front: FrontEnd, side: int, depth: int) -> None:
    volume = np.random.default_rng(side + depth).random((3, side, side, depth), np.float32)
    weights = {name: one.numpy() for name, one in front.state_dict().items()}

    with torch.inference_mode():
        found = front.encode(torch.from_numpy(volume)[None])[0].numpy()

    expected = tokens_of(volume.astype(np.float64), weights)
    assert found.shape == (32, 5120)
    assert np.abs(found - expected).max() / np.abs(expected).max() <= 1e-5


def test_keys_and_shapes_are_those_of_the_published_checkpoint() -> None:
    shapes = front_shapes(VisionSizes())

    kinds = {name: shapes.get(FRONT + name) for name in PUBLISHED}

    assert kinds == PUBLISHED
    millions = {
        part: sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(FRONT + part)) / 1e6
        for part in ("vision_encoder", "perceiver", "fc")
    }
    assert millions == pytest.approx({"vision_encoder": 66.2, "perceiver": 37.8, "fc": 3.9}, abs=0.06)
    assert sum(math.prod(shape) for shape in language_shapes().values()) / 1e6 == pytest.approx(
        13_016 - 163.84, abs=1
    )


def test_the_model_has_all_used_keys_of_the_full_size_and_no_other() -> None:
    with torch.device("meta"):
        model = RadFM(RadFMConfig())

    state = {name: tuple(one.shape) for name, one in model.state_dict().items()}

    tied = {"lang_model.model.embed_tokens.weight": (32000, 5120)}
    assert state == {**front_shapes(VisionSizes()), **language_shapes(), **tied}


def test_a_full_checkpoint_is_taken_whatever_training_left_in_it() -> None:
    expected = {**front_shapes(VisionSizes()), **language_shapes()}
    left = {
        "embedding_layer.bert_model.embeddings.word_embeddings.weight": (30522, 768),
        "embedding_layer.bert_projection_fc.bias": (768,),
        "embedding_layer.output_upscaling.0.weight": (768, 96, 2, 2, 1),
        "embedding_layer.transformer_decoder_norm.weight": (768,),
        "embedding_layer.transformer_decoder.layers.3.linear1.weight": (2048, 768),
        "embedding_layer.cls_head.weight": (1, 768),
        "lang_model.model.layers.39.self_attn.rotary_emb.inv_freq": (64,),
    }

    used = used_keys(
        {**expected, **left, "lang_model.model.embed_tokens.weight": (32000, 5120)},
        sizes=VisionSizes(),
        language=LANGUAGE,
        where="x",
    )

    assert set(used) == set(expected)
    assert all(UNUSED.fullmatch(name) for name in left)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"embedding_layer.fc.bias": None},
            "found no embedding_layer.fc.bias, expected RadFM; copy it again",
        ),
        (
            {"embedding_layer.head.weight": (2, 2)},
            "found embedding_layer.head.weight, which RadFM doesn't have",
        ),
        (
            {"embedding_layer.perceiver.latents": (64, 768)},
            r"found embedding_layer.perceiver.latents of shape \(64, 768\), expected \(32, 768\)",
        ),
        (
            {f"lang_model.model.layers.{n}.mlp.up_proj.weight": None for n in range(3)},
            "found no lang_model.model.layers.0.mlp.up_proj.weight and 2 more",
        ),
    ],
)
def test_a_checkpoint_that_is_not_radfm_s_is_refused(
    change: dict[str, tuple[int, ...] | None], says: str
) -> None:
    found = {**front_shapes(VisionSizes()), **language_shapes()}
    for name, shape in change.items():
        if shape is None:
            del found[name]
        else:
            found[name] = shape

    with pytest.raises(ModelError, match=f"^x: {says}"):
        used_keys(found, sizes=VisionSizes(), language=LANGUAGE, where="x")


def test_images_are_encoded_by_themselves(front: FrontEnd) -> None:
    volumes = torch.rand((2, 3, 64, 64, 8), generator=torch.Generator().manual_seed(1))

    with torch.inference_mode():
        together = front.encode(volumes)
        alone = torch.cat([front.encode(one[None]) for one in volumes])

    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(48, 64, 8), (64, 48, 8), (64, 64, 6)])
def test_a_volume_that_patches_do_not_fill_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected multiples of 32, 32, 4"):
        patches(torch.zeros((1, 3, *shape)), side=32, depth=4)


def test_more_patches_than_places_are_refused(front: FrontEnd) -> None:
    with pytest.raises(ValueError, match="found 17 patches in a line, expected 16 at most"):
        front.vision_encoder.pos_embedding(17, 1, 1)


def test_words_marks_and_images_are_embedded_as_one_table(front: FrontEnd) -> None:
    ids = torch.tensor([[0, 7, 8, 9, 10, 10]])

    found = front(ids)[0]

    table = torch.cat([front.weight, front.figure_token_weight, torch.zeros(1, 5120)])
    assert torch.equal(found, table[ids[0]])
