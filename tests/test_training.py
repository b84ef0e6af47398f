"""Tests of `tools.training`: the examples are right, and the fast forward pass is that of transformers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from medmllm_plugin.findings import MAX_CITED, reply_schema
from medmllm_plugin.models import Reply
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.parsing import parse
from medmllm_plugin.phantoms import sample_study
from medmllm_plugin.phantoms.chest import FINDINGS, SITES
from medmllm_plugin.transforms.slices import SlicePlan

sys.path.append(str(Path(__file__).parents[1]))  # `tools` is in the repository and not in the package
from tools.training import examples
from tools.training.examples import PLAN, make_example, random_study

SIDE, COUNT = 112, 16
SCHEMA = reply_schema(pictures=COUNT, findings=FINDINGS, sites=SITES, box_limit=SIDE)


def test_the_plan_and_limits_are_those_of_a_reading() -> None:
    plan = SlicePlan(**PLAN)

    assert (plan.count, plan.size) == (COUNT, SIDE)
    assert examples.MAX_CITED == MAX_CITED


@pytest.mark.parametrize("seed", range(12))
def test_a_target_satisfies_the_schema_and_can_be_parsed(seed: int) -> None:
    study = random_study(seed)

    example = make_example(study)

    reply = json.loads(example.target)
    Draft202012Validator(SCHEMA).validate(reply)
    parsed = parse(
        Reply(text=example.target, seconds=0.0),
        schema=SCHEMA,
        slices=SlicePlan(**PLAN).apply(study.volume()),
        model=ScriptedModel([]),
    )
    assert parsed.notes == ()
    assert [one.finding for one in parsed.findings] == [one["finding"] for one in reply["findings"]]
    for one in reply["findings"]:
        left, top, right, bottom = one["box"]["bbox_2d"]
        assert 0 <= left < right <= SIDE
        assert 0 <= top < bottom <= SIDE
        assert one["box"]["picture"] in one["pictures"]
        assert set(one["pictures"]) <= set(reply["abnormal_pictures"])


@pytest.mark.parametrize("key", FINDINGS)
def test_a_target_points_to_where_the_truth_is(key: str) -> None:
    study = sample_study(seed=3, findings=(key,), slices=48, matrix=224)
    (true,) = study.truth()

    (said,) = parse(
        Reply(text=make_example(study).target, seconds=0.0),
        schema=SCHEMA,
        slices=SlicePlan(**PLAN).apply(study.volume()),
        model=ScriptedModel([]),
    ).findings

    assert (said.finding, said.site, said.side, said.severity) == (
        *(true.finding, true.site, true.side, true.severity),
    )
    assert said.center_mm is not None
    assert true.center_mm is not None
    assert said.box is not None
    k = next(k for k in range(study.slices) if study.source(k) == said.box.image)
    rows, columns = np.nonzero(study.masks(k)[0])
    pixel = 224 / SIDE
    assert (said.box.column_min, said.box.column_max) == pytest.approx(
        (columns.min(), columns.max() + 1), abs=pixel
    )
    assert (said.box.row_min, said.box.row_max) == pytest.approx((rows.min(), rows.max() + 1), abs=pixel)
    assert np.sign(said.center_mm[0]) == np.sign(true.center_mm[0])


def test_a_normal_study_has_a_target_without_findings() -> None:
    reply = json.loads(make_example(sample_study(seed=1, findings=(), slices=32, matrix=112)).target)

    assert reply == {"abnormal_pictures": [], "findings": [], "impression": ["No abnormality seen."]}


def test_labels_cover_as_much_as_the_masks_do() -> None:
    study = sample_study(seed=5, findings=("mass",), slices=16, matrix=112)

    example = make_example(study)

    assert example.pictures.shape == (COUNT, SIDE, SIDE, 3)
    assert example.labels.shape == (COUNT, SIDE // 14, SIDE // 14, len(FINDINGS))
    assert example.labels[..., [n for n, key in enumerate(FINDINGS) if key != "mass"]].max() == 0
    for n in range(COUNT):
        covered = example.labels[n, ..., FINDINGS.index("mass")].astype(float).sum() / 255 * 14 * 14
        area = study.masks(n)[0].sum() if 0 in study.masks(n) else 0
        expected = area if area >= examples.SEEN_PIXELS else 0
        assert covered == pytest.approx(expected, abs=0.5 + 0.01 * expected)


@pytest.fixture(scope="module")
def library() -> tuple[Any, Any]:
    """A small model with random weights, and its processor."""
    pytest.importorskip("torch")
    from medmllm_plugin.models import torchvision_shim
    from tests.tiny_model import tiny_folder

    torchvision_shim.ensure()
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    folder = tiny_folder()
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, local_files_only=True).eval()
    return model, AutoProcessor.from_pretrained(folder, local_files_only=True)


def test_patches_are_those_of_the_image_processor(library: tuple[Any, Any]) -> None:
    import torch
    from PIL import Image

    from tools.training.forward import patches_of

    pictures = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)

    ours = patches_of(torch.from_numpy(pictures))

    theirs = library[1].image_processor(
        images=[Image.fromarray(one) for one in pictures], return_tensors="pt"
    )
    torch.testing.assert_close(ours.reshape(-1, 1176), theirs["pixel_values"], atol=1e-5, rtol=1e-5)


def test_the_forward_pass_is_that_of_the_library(library: tuple[Any, Any], tmp_path: Path) -> None:
    import torch
    from PIL import Image

    from tools.training.architecture import save_prompt, terse_messages
    from tools.training.forward import answer_logits, see

    model, processor = library
    save_prompt(tmp_path / "prompt.npz", model, processor, terse_messages())
    prompt = np.load(tmp_path / "prompt.npz")
    ids, positions, cos, sin = (torch.from_numpy(prompt[key]) for key in ("ids", "positions", "cos", "sin"))
    image_token = int(prompt["image_token"])
    pictures = np.random.default_rng(1).integers(0, 256, (2, COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    reply = torch.tensor([[5, 9, 31, 64], [80, 7, 7, 12]])

    with torch.inference_mode():
        seen = see(model.model.visual, torch.from_numpy(pictures).flatten(0, 1), cos, sin)
        after = int(positions.max()) + 1 + torch.arange(4)
        ours = answer_logits(
            model,
            torch.cat([ids.expand(2, -1), reply], dim=1),
            torch.cat([positions, after.expand(3, -1)], dim=1),
            seen.reshape(2, -1, seen.shape[-1]),
            image_token,
            keep=5,
        )
        for row in range(2):
            shown = processor.image_processor(
                images=[Image.fromarray(one) for one in pictures[row]], return_tensors="pt"
            )
            whole = torch.cat([ids, reply[row]])[None]
            theirs = model(
                input_ids=whole,
                pixel_values=shown["pixel_values"],
                image_grid_thw=shown["image_grid_thw"],
                mm_token_type_ids=(whole == image_token).int(),
            ).logits[:, -5:]

            spread = float(theirs.std())
            torch.testing.assert_close(ours[row : row + 1], theirs, atol=2e-3 * spread, rtol=0)
    assert not torch.allclose(ours[0], ours[1], atol=0.05 * spread)
