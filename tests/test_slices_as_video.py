"""Slices as a video: the tokens, the pixels and the numbers of pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch

from medmllm_plugin.models import Ask
from medmllm_plugin.models.abilities import capabilities
from medmllm_plugin.models.families.qwen2_5_vl import Qwen25VL
from medmllm_plugin.models.families.slices_as_video import in_runs
from medmllm_plugin.models.folder import open_folder
from medmllm_plugin.models.loading import load
from medmllm_plugin.models.transformers import open_model
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart
from tests.tiny_model import tiny_folder
from tests.tiny_models.asked import VIDEO, WITH_VIDEO, a_prompt, loaded, ours


def test_slices_as_a_video_are_what_the_processor_makes_of_one() -> None:
    from transformers.video_utils import VideoMetadata

    of = load(open_folder(str(tiny_folder())))
    of.processor.chat_template = WITH_VIDEO
    of.processor.video_processor.size = {"shortest_edge": 3136, "longest_edge": 12845056}
    prompt = a_prompt(pictures=5, shape=(56, 84))

    found = ours(of, prompt, VIDEO)

    text = (
        "<|im_start|>system\nYou read phantoms.<|im_end|>\n<|im_start|>user\n<image_1> to <image_5>: "
        "<|vision_start|><|video_pad|><|vision_end|>Report.<|im_end|>\n<|im_start|>assistant\n"
    )
    frames = np.stack([part.pixels for part in prompt.pictures])
    expected = of.processor(
        text=[text],
        videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
        video_metadata=[VideoMetadata(total_num_frames=5, fps=2, frames_indices=list(range(5)))],
        return_tensors="pt",
    )
    assert found.keys() == set(expected.keys())
    assert all(torch.equal(found[key], torch.as_tensor(expected[key])) for key in expected)


def test_slices_as_a_video_take_half_the_tokens_and_can_be_read() -> None:
    of = load(open_folder(str(tiny_folder())))
    of.processor.chat_template = WITH_VIDEO
    prompt = a_prompt(pictures=6, shape=(56, 84))

    pictures, video = (ours(of, prompt, options) for options in (None, VIDEO))

    with torch.inference_mode():
        logits = of.model(**video).logits
    seen = [int((one["mm_token_type_ids"] > 0).sum()) for one in (pictures, video)]
    assert seen == [36, 18]
    assert torch.isfinite(logits).all()
    assert not of.family.by_picture(VIDEO)


def test_pictures_beside_a_run_of_slices_stay_pictures() -> None:
    of = load(open_folder(str(tiny_folder())))
    of.processor.chat_template = WITH_VIDEO
    run, alone = a_prompt(pictures=2, shape=(56, 84)), a_prompt(pictures=1, shape=(84, 84))
    prior = TextPart(text="Earlier study: "), TextPart(text="<image_3>: "), alone.pictures[0]
    prompt = Prompt(system="", parts=(*run.parts[:-1], *prior, TextPart(text="Compare.")))

    found = ours(of, prompt, VIDEO)

    text = of.processor.tokenizer.decode(found["input_ids"][0])
    assert found["video_grid_thw"].tolist() == [[1, 4, 6]]
    assert found["image_grid_thw"].tolist() == [[1, 6, 6]]
    assert "<image_1> to <image_2>: <|vision_start|><|video_pad|>" in text
    assert "Earlier study: <image_3>: <|vision_start|><|image_pad|>" in text
    with torch.inference_mode():
        assert torch.isfinite(of.model(**found).logits).all()


def test_pictures_of_another_shape_begin_another_run() -> None:
    shapes = [(28, 28), (28, 28), (28, 56), (28, 28)]
    parts = [PicturePart(number=n, pixels=np.zeros((*one, 3), np.uint8)) for n, one in enumerate(shapes, 1)]

    _, runs = in_runs(parts)

    assert [[part.number for part in run.pictures] for run in runs] == [[1, 2], [3], [4]]


def test_twice_the_slices_are_promised_as_a_video() -> None:
    of, folder = loaded("qwen2_5_vl"), open_folder(str(tiny_folder()))

    able = capabilities(folder, of.family, processor=of.processor, context_tokens=131_072, options=VIDEO)

    assert able.pictures == 2 * Qwen25VL.pictures


def test_slices_as_a_video_are_answered(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder(), tmp_path / "m")
    (folder / "chat_template.jinja").write_text(WITH_VIDEO)
    prompts = [a_prompt(pictures=n, shape=(56, 84)) for n in (5, 1)]
    asks = [Ask(prompt=prompt, schema={"enum": ["left", "right"]}) for prompt in prompts]

    model = open_model(f"{folder}?video=true&device_map=cpu")
    replies = model.replies(asks)

    again = [model.replies([one])[0].text for one in asks]
    assert [reply.text for reply in replies] == again
    assert set(again) <= {'"left"', '"right"'}
