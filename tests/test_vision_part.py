"""The vision part made quicker computes what transformers' own computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from medmllm_plugin.models import vision_part
from medmllm_plugin.models.folder import open_folder
from medmllm_plugin.models.loading import Loaded, load
from medmllm_plugin.models.options import TransformersOptions
from medmllm_plugin.transforms.patches import PatchFormat
from tests.tiny_model import hub_folder, tiny_folder
from tests.tiny_models.llava import llava_folder
from tests.tiny_models.qwen3_vl import qwen3_vl_folder

ON_CPU = TransformersOptions(device_map="cpu")


def opened(folder: Callable[[], Path]) -> tuple[Loaded, PatchFormat]:
    of = load(open_folder(str(folder())), ON_CPU)
    form = PatchFormat.of(of.processor.image_processor)
    assert form is not None
    return of, form


def grey(shape: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    plane = np.random.default_rng(seed).integers(0, 256, (*shape, 1), dtype=np.uint8)
    return np.broadcast_to(plane, (*shape, 3))


def features(of: Loaded, inputs: dict[str, Any]) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat(list(of.model.get_image_features(**inputs, return_dict=True).pooler_output))


@pytest.mark.parametrize("folder", [tiny_folder, hub_folder, qwen3_vl_folder])
@pytest.mark.parametrize(
    "shapes", [[(84, 112)], [(504, 504)], [(100, 140), (224, 224), (56, 56)], [(512, 512), (84, 84)]]
)
def test_it_sees_what_transformers_sees(folder: Callable[[], Path], shapes: list[tuple[int, int]]) -> None:
    (stock, form), (quick, _) = opened(folder), opened(folder)
    pictures = [grey(shape, seed=number) for number, shape in enumerate(shapes)]
    pixels = stock.family.pixels(stock.processor, pictures)

    takes_grey = vision_part.quicken(quick.model, form)

    expected = features(stock, pixels)
    assert takes_grey
    near = {"rtol": 1e-3, "atol": 1e-4 * float(expected.abs().max())}
    torch.testing.assert_close(features(quick, pixels), expected, **near)
    torch.testing.assert_close(features(quick, vision_part.grey_patches(pictures, form)), expected, **near)


def test_grey_pictures_lose_no_more_in_a_16_bit_type_than_others_do() -> None:
    whole, form = opened(tiny_folder)
    stock, quick = (
        load(open_folder(str(tiny_folder())), TransformersOptions(device_map="cpu", dtype="bf16"))
        for _ in range(2)
    )
    pictures = [grey((224, 224))]
    pixels = whole.family.pixels(whole.processor, pictures)
    vision_part.quicken(quick.model, form)

    expected = features(whole, pixels)
    lost, usually = (
        float((found.float() - expected).abs().mean())
        for found in (features(quick, vision_part.grey_patches(pictures, form)), features(stock, pixels))
    )

    assert 0 < usually < 0.05 * float(expected.abs().mean())
    assert lost < 1.2 * usually


def test_a_grey_patch_is_a_sixth_of_its_numbers_as_bytes() -> None:
    of, form = opened(tiny_folder)
    pictures = [grey((100, 140))]

    found = vision_part.grey_patches(pictures, form)

    expected = of.family.pixels(of.processor, pictures)
    assert torch.equal(found["image_grid_thw"], expected["image_grid_thw"])
    assert found["pixel_values"].dtype == torch.uint8
    assert found["pixel_values"].shape == (len(expected["pixel_values"]), 14 * 14)


def test_pictures_are_grey_if_their_channels_are_one_memory() -> None:
    coloured = np.zeros((28, 28, 3), np.uint8)

    assert vision_part.are_grey([grey((28, 28)), grey((56, 28))])
    assert not vision_part.are_grey([grey((28, 28)), coloured])


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any))
def test_each_segment_sees_itself_only(lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(sum(lengths))
    query, key, value = torch.randn(3, 1, 2, sum(lengths), 4, generator=generator)
    bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)

    found, weights = vision_part.attend(
        None, query, key, value, None, scaling=0.5, cu_seq_lens_q=bounds, max_length_q=9
    )

    parts = [one.split(lengths, dim=2) for one in (query, key, value)]
    one_by_one = [scaled_dot_product_attention(*each, scale=0.5) for each in zip(*parts, strict=True)]
    assert weights is None
    torch.testing.assert_close(found, torch.cat(one_by_one, dim=2).transpose(1, 2))


def test_a_model_of_another_family_is_left_as_it_is() -> None:
    of = load(open_folder(str(llava_folder())), ON_CPU)
    before = {name: vars(module).get("forward") for name, module in of.model.named_modules()}

    assert not vision_part.quicken(of.model, None)

    assert {name: vars(module).get("forward") for name, module in of.model.named_modules()} == before


def test_a_processor_set_otherwise_leaves_grey_pictures_to_the_family() -> None:
    of, _ = opened(tiny_folder)
    pixels = of.family.pixels(of.processor, [grey((84, 84))])
    expected = features(of, pixels)

    assert not vision_part.quicken(of.model, None)

    torch.testing.assert_close(features(of, pixels), expected, rtol=1e-3, atol=1e-3)


def test_what_moves_a_layer_s_weights_is_not_taken_away() -> None:
    of, form = opened(tiny_folder)
    layer = of.model.model.visual.patch_embed
    layer._hf_hook = object()

    assert not vision_part.quicken(of.model, form)
    assert "forward" not in vars(layer)
