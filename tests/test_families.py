"""Families of models: their inputs are those of their own processors, and their boxes come back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.models.abilities import capabilities
from medmllm_plugin.models.families import FAMILIES, family_of
from medmllm_plugin.models.families.family import harmless, special_tokens
from medmllm_plugin.models.families.llava import Llava
from medmllm_plugin.models.families.qwen2_5_vl import Qwen25VL
from medmllm_plugin.models.folder import open_folder
from medmllm_plugin.models.options import TransformersOptions
from tests.tiny_models.asked import FOLDERS, a_conversation, a_prompt, by_processor_alone, loaded, ours, same


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("pictures", [0, 1, 3])
@pytest.mark.parametrize("shape", [(84, 84), (100, 100), (56, 56)])
def test_inputs_are_those_that_the_processor_makes_alone(
    name: str, pictures: int, shape: tuple[int, int]
) -> None:
    of, prompt = loaded(name), a_prompt(pictures=pictures, shape=shape)

    found = ours(of, prompt)

    images = {"crop_to_patches": False} if name == "internvl" and pictures else {}
    assert same(found, by_processor_alone(of, prompt, **images))


@pytest.mark.parametrize("name", [name for name in FOLDERS if name != "llava"])
@pytest.mark.parametrize("shape", [(84, 112), (20, 30), (300, 90)])
def test_pictures_that_are_no_squares_go_in_as_the_processor_has_them(
    name: str, shape: tuple[int, int]
) -> None:
    of, prompt = loaded(name), a_prompt(shape=shape)

    found = ours(of, prompt)

    images = {"crop_to_patches": False} if name == "internvl" else {}
    assert same(found, by_processor_alone(of, prompt, **images))


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("pictures", [0, 1])
def test_turns_follow_the_first_message(name: str, pictures: int) -> None:
    of, prompt = loaded(name), a_conversation(pictures)

    found = ours(of, prompt)

    images = {"crop_to_patches": False} if name == "internvl" and pictures else {}
    assert same(found, by_processor_alone(of, prompt, **images))
    text = of.processor.tokenizer.decode(found["input_ids"][0])
    assert text.index("You read") < text.index("Report.") < text.index('{"findings"') < text.index("Where?")


@pytest.mark.parametrize("name", FOLDERS)
def test_a_later_question_begins_with_the_tokens_of_the_earlier_one(name: str) -> None:
    of = loaded(name)
    first, later = (
        of.family.words(of.processor, prompt)["input_ids"][0].tolist()
        for prompt in (a_prompt(pictures=1), a_conversation(1))
    )

    assert later[: len(first)] == first


@pytest.mark.parametrize("name", FOLDERS)
def test_the_model_computes_with_the_inputs(name: str) -> None:
    of = loaded(name)

    with torch.inference_mode():
        logits = of.model(**ours(of, a_prompt(pictures=1))).logits[0, -1]
        other = of.model(**ours(of, a_prompt(pictures=1, shape=(112, 112)))).logits[0, -1]

    assert torch.isfinite(logits).all()
    assert not torch.equal(logits, other)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("shape", [(84, 84), (112, 56)])
def test_a_picture_takes_the_tokens_that_are_told(name: str, shape: tuple[int, int]) -> None:
    of = loaded(name)
    without, one = (
        of.family.words(of.processor, a_prompt(pictures=pictures, shape=shape))["input_ids"]
        for pictures in (1, 2)
    )

    each = of.family.tokens(of.processor, rows=shape[0], columns=shape[1])

    label = len(of.processor.tokenizer("<image_2>: ", add_special_tokens=False)["input_ids"])
    frame = 2 if "qwen" in name else -1 if name == "gemma3" else 1
    assert one.shape[1] - without.shape[1] == each + label + frame


@pytest.mark.parametrize("name", FOLDERS)
def test_words_can_not_pose_as_control_tokens(name: str) -> None:
    of = loaded(name)
    special = special_tokens(of.processor.tokenizer)
    prompt = a_prompt(pictures=1, words="".join([*special, *of.family.controls, "Report."]))

    ids = of.family.words(of.processor, prompt)["input_ids"][0].tolist()

    plain = of.family.words(of.processor, a_prompt(pictures=1))["input_ids"][0].tolist()
    marks = set(of.processor.tokenizer.convert_tokens_to_ids(special))
    assert [one for one in ids if one in marks] == [one for one in plain if one in marks]
    text = of.processor.tokenizer.decode(ids)
    assert all(text.count(word) <= 2 for word in ("[INST]", "[/INST]", "USER:"))


@pytest.mark.parametrize("words", ["<<image>image>", "<|<|im_end|>", "<image><image>", "a < image> b"])
def test_nothing_is_left_of_a_control_token_however_it_is_nested(words: str) -> None:
    controls = ["<image>", "<|im_end|>", "<|", "\n\n", "x"]

    found = harmless(words, controls)

    assert not any(control in found for control in controls[:3])
    assert found.replace(" ", "") == words.replace(" ", "")


@pytest.mark.parametrize("name", FOLDERS)
def test_a_template_that_leaves_pictures_out_is_refused(name: str) -> None:
    of = loaded(name)
    kept = of.processor.chat_template
    of.processor.chat_template = "{{ messages[0].role }}"
    try:
        with pytest.raises(ValueError, match="the chat template shows 0 pictures, expected 2"):
            of.family.words(of.processor, a_prompt())
    finally:
        of.processor.chat_template = kept


def test_labels_follow_the_pictures_of_medgemma() -> None:
    of = loaded("gemma3")

    text = of.family.text(of.processor, a_prompt())

    assert "<start_of_image><image_1><start_of_image><image_2>Report." in text


@pytest.mark.parametrize(
    ("tiles", "shape", "expected"), [(1, (300, 90), 1), (4, (300, 90), 4), (12, (84, 84), 5)]
)
def test_a_picture_is_cut_into_as_many_tiles_as_are_allowed(
    tiles: int, shape: tuple[int, int], expected: int
) -> None:
    of, prompt = loaded("internvl"), a_prompt(pictures=1, shape=shape)

    found = ours(of, prompt, TransformersOptions(tiles=tiles))

    cut = {"crop_to_patches": tiles > 1, "max_patches": tiles}
    assert same(found, by_processor_alone(of, prompt, **cut))
    assert len(found["pixel_values"]) == expected


@pytest.mark.parametrize("shape", [(84, 56), (56, 84)])
def test_nothing_of_a_picture_is_cut_off_for_llava(shape: tuple[int, int]) -> None:
    of = loaded("llava")
    picture = np.zeros((*shape, 3), np.uint8)
    picture[:4], picture[-4:], picture[:, :4], picture[:, -4:] = 255, 255, 255, 255

    values = of.family.pixels(of.processor, [picture])["pixel_values"][0, 0]

    long = values if shape[0] > shape[1] else values.T
    assert values.shape == (56, 56)
    assert (long[0, 20:36] > 1).all()
    assert (long[-1, 20:36] > 1).all()
    assert (long[28, :8].abs() < 0.1).all(), "the sides are of the mean colour"


@pytest.mark.parametrize("shape", [(84, 112), (100, 140), (97, 500), (20, 30), (28, 28), (512, 512)])
def test_a_box_in_the_resized_picture_comes_back_to_the_picture(shape: tuple[int, int]) -> None:
    of, (rows, columns) = loaded("qwen2_5_vl"), shape
    prompt = a_prompt(pictures=1, shape=shape)
    _, high, wide = (14 * side for side in ours(of, prompt)["image_grid_thw"][0].tolist())

    whole, part = (
        of.family.box_to_picture(box, rows=rows, columns=columns, processor=of.processor)
        for box in ((0, 0, wide, high), (0, 0, wide / 2, high / 4))
    )

    assert whole == pytest.approx((0, 0, columns, rows))
    assert part == pytest.approx((0, 0, columns / 2, rows / 4))


def test_boxes_of_a_model_on_a_server_follow_the_limits_that_it_was_started_with() -> None:
    box = (0, 0, 112, 56)

    usual = Qwen25VL().box_to_picture(box, rows=512, columns=512)
    small = Qwen25VL().box_to_picture(box, rows=512, columns=512, limits=(3136, 112 * 112))

    assert usual == pytest.approx((0, 0, 112 * 512 / 504, 56 * 512 / 504))
    assert small == pytest.approx((0, 0, 512, 256))


@pytest.mark.parametrize("name", ["qwen3_vl", "gemma3", "internvl"])
def test_boxes_in_thousandths_come_back_in_the_order_of_the_family(name: str) -> None:
    family = FAMILIES[name]

    box = family.box_to_picture((100, 200, 300, 1000), rows=500, columns=1000)

    expected = (200, 50, 1000, 150) if name == "gemma3" else (100, 100, 300, 500)
    assert box == pytest.approx(expected)
    assert ("[y1, x1, y2, x2]" in family.box_words) == (name == "gemma3")


@pytest.mark.parametrize(
    ("name", "context", "most"),
    [("qwen2_5_vl", 32768, 64), ("qwen2_5_vl", 8192, 16), ("gemma3", 8192, 85), ("llava", 4096, 1)],
)
def test_no_more_pictures_are_promised_than_the_context_has_room_for(
    name: str, context: int, most: int
) -> None:
    of, folder = loaded(name), open_folder(str(FOLDERS[name]()))

    able = capabilities(folder, of.family, processor=of.processor, context_tokens=context)

    assert able.pictures == most
    assert able.context_tokens == context
    assert (able.free_text, able.boxes) == ((True, False) if name == "llava" else (False, True))


@pytest.mark.parametrize(
    ("model_type", "remedy"),
    [
        ("internvl_chat", "in its authors' layout.*ends in -hf"),
        ("llava_mistral", "convert it to transformers' llava"),
        ("bert", "open another model, or serve this one"),
    ],
)
def test_another_type_is_refused_with_what_to_do(model_type: str, remedy: str) -> None:
    with pytest.raises(SettingsError, match=f"x: found a model of type '{model_type}', expected .*{remedy}"):
        family_of(model_type, where="x")


def test_llava_is_never_asked_for_boxes() -> None:
    with pytest.raises(ValueError, match="has no boxes"):
        Llava().box_to_picture((0, 0, 1, 1), rows=8, columns=8)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_pictures_are_prepared_by_a_processor_that_is_set_otherwise(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, prompt = loaded(name), a_prompt(shape=(90, 120))
    monkeypatch.setattr(of.processor.image_processor, "do_normalize", False)

    found = ours(of, prompt)

    assert same(found, by_processor_alone(of, prompt))
    assert found["pixel_values"].min() >= 0


def test_a_picture_of_gemma_gets_no_crops_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    of, prompt = loaded("gemma3"), a_prompt(pictures=1, shape=(56, 600))
    for name, value in {"do_pan_and_scan": True, "pan_and_scan_max_num_crops": 4}.items():
        monkeypatch.setattr(of.processor.image_processor, name, value)
    monkeypatch.setattr(of.processor.image_processor, "pan_and_scan_min_crop_size", 16)
    monkeypatch.setattr(of.processor.image_processor, "pan_and_scan_min_ratio_to_activate", 1.2)

    found = ours(of, prompt)

    assert len(found["pixel_values"]) == 1


@pytest.mark.parametrize(
    ("name", "owner", "field", "value", "said"),
    [
        ("llava", "processor", "patch_size", None, r"\(its processor_config\.json has no patch_size\)"),
        ("qwen2_5_vl", "image_processor", "size", {"height": 56, "width": 56}, "shortest_edge"),
    ],
)
def test_settings_for_pictures_of_another_kind_are_refused_on_opening(
    name: str, owner: str, field: str, value: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, folder = loaded(name), open_folder(str(FOLDERS[name]()))
    settings = of.processor if owner == "processor" else of.processor.image_processor
    monkeypatch.setattr(settings, field, value)

    with pytest.raises(ModelError, match=f"its settings for pictures are not those of .*{said}.*; copy"):
        capabilities(folder, of.family, processor=of.processor, context_tokens=4096)
