"""RadFM as an engine: opened, asked about volumes, and a phantom read from end to end with random weights."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from medmllm_plugin import pipeline
from medmllm_plugin.errors import ModelError, SettingsError, TooManyPicturesError
from medmllm_plugin.findings import Status
from medmllm_plugin.models import Ask, transformers
from medmllm_plugin.models.families.radfm import RadFM
from medmllm_plugin.models.radfm.opening import open_model
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.phantoms import write_study
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart, VolumePart
from medmllm_plugin.registry import open_model as by_name
from medmllm_plugin.report import Outcome
from medmllm_plugin.schemas import report_schema
from tests.tiny_model import tiny_folder, with_card
from tests.tiny_models.radfm import published_radfm, radfm_folder


@cache
def tiny() -> transformers.TransformersModel:
    return open_model(str(radfm_folder(seed=1)))


def levels(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def a_volume_part(*, slices: int = 5, number: int = 1, first: int = 1, seed: int = 0) -> VolumePart:
    planes = tuple(levels(64, 64, seed=100 * seed + k) for k in range(slices))
    return VolumePart(number=number, pictures=tuple(range(first, first + slices)), planes=planes)


def a_picture(*, number: int = 1, seed: int = 0) -> PicturePart:
    return PicturePart(number=number, pixels=levels(64, 64, seed=seed))


def a_prompt(*parts: Any, words: str = "Report.") -> Prompt:
    return Prompt(system="", parts=(*parts, TextPart(text=words)))


def an_ask(*parts: Any, words: str = "Report.", most: int = 12) -> Ask:
    return Ask(prompt=a_prompt(*parts, words=words), schema=None, max_tokens=most)


def test_it_says_that_it_sees_volumes_and_can_not_point() -> None:
    able = tiny().capabilities

    assert able.volumes == 8
    assert not able.boxes
    assert able.free_text
    assert able.schema_bound
    assert able.text_only


def test_the_published_folder_is_opened_by_any_of_its_names() -> None:
    place = str(published_radfm(seed=1))

    opened = [by_name(name) for name in (f"radfm:{place}", f"transformers:{place}", place)]

    assert [one.name for one in opened] == ["RadFM"] * 3
    assert {one.weights_sha256 for one in opened} == {opened[0].weights_sha256}


def test_published_and_converted_weights_say_the_same() -> None:
    asks = [an_ask(a_volume_part(), most=40), an_ask(words="What is a nodule?")]
    both = [f"{folder(seed=1)}?dtype=bf16&batch=1" for folder in (published_radfm, radfm_folder)]

    published, converted = (open_model(spec).replies(asks) for spec in both)

    assert [one.text for one in published] == [one.text for one in converted]
    for one, other in zip(published, converted, strict=True):
        assert one.token_probabilities == pytest.approx(other.token_probabilities, rel=1e-2)


def test_another_model_s_folder_is_refused_under_this_name() -> None:
    with pytest.raises(SettingsError, match="found a model of type 'qwen2_5_vl', expected 'radfm'"):
        open_model(str(tiny_folder()))
    with pytest.raises(SettingsError, match="radfm: found no folder, expected radfm:FOLDER"):
        open_model("")


def test_the_prompt_has_the_marks_and_tokens_of_each_image_in_its_place() -> None:
    from medmllm_plugin.models.folder import open_folder
    from medmllm_plugin.models.loading import load_processor

    processor = load_processor(open_folder(str(radfm_folder(seed=1))))
    prompt = Prompt(
        system="",
        parts=(
            TextPart(text="Now:"),
            a_volume_part(),
            TextPart(text="Before:"),
            a_picture(),
            TextPart(text="<image>"),
        ),
    )

    ids = RadFM().words(processor, prompt)["input_ids"][0].tolist()

    words = [
        processor.tokenizer(one, add_special_tokens=False)["input_ids"]
        for one in ("Now:", "Before:", "< image>")
    ]
    vocabulary = processor.image_token_id - 2
    image = [vocabulary, *[vocabulary + 2] * 32, vocabulary + 1]
    assert ids == [processor.begin, *words[0], *image, *words[1], *image, *words[2]]


def test_what_is_computed_is_the_language_half_on_embeddings_with_images_among_them() -> None:
    part = a_volume_part()
    model = tiny()._model
    family, processor = RadFM(), tiny()._processor
    prompt = a_prompt(part)
    ids = family.words(processor, prompt)["input_ids"]
    values = family.pixels(processor, family.shown(prompt))["pixel_values"]

    with torch.inference_mode():
        seen = model.embedding_layer.encode(values)[0]
        places = ids[0] == processor.image_token_id
        embeddings = model.embedding_layer(ids)
        embeddings[0, places] = seen
        logits = model.lang_model(inputs_embeds=embeddings).logits[0, -1]
    (reply,) = tiny().replies([Ask(prompt=prompt, schema=None, max_tokens=1)])

    best = logits[: len(processor.tokenizer)].softmax(-1).max()
    assert values.shape == (1, 3, 256, 256, 8)
    assert float(values.min()) == 0
    assert float(values.max()) == 1
    assert reply.token_probabilities[0] == pytest.approx(float(best), rel=1e-3)


def test_prompts_with_other_numbers_of_images_are_answered_together_as_alone() -> None:
    asks = [
        an_ask(a_volume_part(), a_picture(number=6), most=30),
        an_ask(a_picture(), words="What is this?", most=30),
        an_ask(words="Hello", most=30),
        an_ask(
            TextPart(text="One:"),
            a_picture(seed=1),
            TextPart(text="Two:"),
            a_picture(seed=2, number=2),
            most=30,
        ),
    ]

    together = open_model(f"{radfm_folder(seed=1)}?batch=4").replies(asks)

    alone = [open_model(f"{radfm_folder(seed=1)}?memory=0").replies([one])[0] for one in asks]
    assert [one.text for one in together] == [one.text for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.token_probabilities == pytest.approx(other.token_probabilities, rel=1e-3)


def test_the_vision_half_is_not_computed_again_for_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(f"{radfm_folder(seed=1)}?memory=64")
    shown = a_volume_part(), a_picture(number=6)
    calls: list[int] = []
    front = model._model.embedding_layer
    encode = front.encode
    monkeypatch.setattr(front, "encode", lambda volumes: (calls.append(len(volumes)), encode(volumes))[1])

    first = model.replies([an_ask(*shown)])
    again = model.replies([an_ask(*shown), an_ask(*shown, words="Any nodule?")])

    assert sum(calls) == 2
    assert again[0].text == first[0].text
    model.forget()
    model.replies([an_ask(*shown)])
    assert sum(calls) == 4


def test_its_reply_changes_with_the_volume_and_with_the_order_of_images() -> None:
    one, other = a_volume_part(seed=1), a_volume_part(seed=2, first=6)

    said = [
        reply.token_probabilities
        for reply in tiny().replies(
            [
                an_ask(one),
                an_ask(other),
                an_ask(one, replace(other, number=2)),
                an_ask(other, replace(one, number=2)),
            ]
        )
    ]

    assert len(set(said)) == 4


def test_more_images_than_it_takes_are_refused() -> None:
    with pytest.raises(
        TooManyPicturesError, match="found 9 images and volumes, expected 8 at most"
    ) as caught:
        tiny().replies([an_ask(*[a_picture(number=k) for k in range(1, 10)])])

    assert caught.value.limit == 8


def test_a_volume_too_deep_for_its_prompt_is_refused() -> None:
    shown = [a_volume_part(slices=40), *[a_picture(number=k) for k in range(41, 47)]]

    with pytest.raises(ModelError, match="can't be prepared: found a volume of 40 slices, expected 32"):
        tiny().replies([an_ask(*shown)])


def test_a_model_that_sees_pictures_refuses_a_volume() -> None:
    with pytest.raises(ModelError, match="found a volume in the prompt, expected pictures"):
        transformers.open_model(str(tiny_folder())).replies([an_ask(a_volume_part())])


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "study"
    write_study(folder, kind="ct-chest", seed=3, matrix=128)
    return folder


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose card says what it is; its context is as short as the published one's is in words."""
    card = {"name": "RadFM, random weights", "domain": "nothing at all: its weights are random numbers"}
    return with_card(radfm_folder(seed=0, context=4000), tmp_path_factory.mktemp("models") / "random", card)


def test_a_phantom_is_read_from_dicom_to_sr_and_the_report_says_by_random_weights(
    phantom: Path, random_weights: Path, tmp_path: Path
) -> None:
    reading = pipeline.read(phantom, model=f"radfm:{random_weights}", settings=None)
    files = pipeline.write(reading, tmp_path)

    report = json.loads(files["report"].read_text("utf-8"))
    jsonschema.validate(report, report_schema())
    assert report["provenance"]["model"] == "RadFM, random weights"
    assert any("its weights are random numbers" in note for note in report["notes"])
    assert [one["purpose"] for one in report["heard"]][:2] == ["report, in prose", "report, coded"]
    assert reading.slices.slices[0].pixels.shape == (256, 256, 3)
    assert {one.window for one in reading.slices.slices} == {"CT soft tissue window 40/400 HU"}
    assert files["findings_sr"].is_file()
    assert files["report_sr"].is_file()


def test_what_its_prose_says_becomes_findings_of_its_own_sentences(phantom: Path) -> None:
    prose = "Finding: There is a nodule in the left lung. No pleural effusion. Impression: Left nodule."
    coded = {
        "abnormal_pictures": [],
        "findings": [
            {
                "finding": "nodule",
                "site": "lung",
                "side": "left",
                "status": "present",
                "severity": None,
                "pictures": [],
                "sentence": "There is a nodule in the left lung.",
            }
        ],
        "impression": ["Left nodule."],
    }
    able = replace(tiny().capabilities, context_tokens=2048)
    model = ScriptedModel([prose, coded], capabilities=able)

    report = pipeline.read(phantom, model=model).report

    (finding,) = report.findings
    assert report.outcome is Outcome.FINDINGS
    assert (finding.finding, finding.side, finding.status) == ("nodule", "left", Status.PRESENT)
    assert report.impression == ("Left nodule.",)
    prompt = model.asked[0].prompt
    assert [type(part) for part in prompt.parts] == [VolumePart, TextPart]
    schema = model.asked[1].schema
    assert schema is not None
    item = schema["properties"]["findings"]["items"]["properties"]
    assert item["finding"]["enum"] == ["nodule", "pleural_effusion"]
    assert set(item["site"]["enum"]) >= {"lung"}
    assert schema["properties"]["impression"]["items"]["enum"] == ["Left nodule."]
    assert sum(len(part.text) for part in model.asked[1].prompt.parts if isinstance(part, TextPart)) < 3000


def test_nothing_can_be_found_in_prose_that_names_nothing(phantom: Path) -> None:
    able = replace(tiny().capabilities, context_tokens=2048)
    nothing = {"abnormal_pictures": [], "findings": [], "impression": ["All is well."]}
    model = ScriptedModel(["All is well.", nothing], capabilities=able)

    report = pipeline.read(phantom, model=model).report

    assert report.findings == ()
    schema = model.asked[1].schema
    assert schema is not None
    assert schema["properties"]["findings"]["maxItems"] == 0


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize(("quantize", "kind"), [("8bit", "Linear8bitLt"), ("4bit", "Linear4bit")])
@pytest.mark.parametrize("make", [radfm_folder, published_radfm])
def test_only_the_layers_of_the_language_half_are_quantized(
    make: Callable[..., Path], quantize: str, kind: str
) -> None:
    model = open_model(f"{make(seed=1)}?quantize={quantize}")

    (reply,) = model.replies([an_ask(a_volume_part())])

    changed = {name for name, one in model._model.named_modules() if type(one).__name__ == kind}
    assert changed
    assert all(name.startswith("lang_model.model.layers") for name in changed)
    assert model._model.embedding_layer.fc.weight.dtype is torch.float32
    assert reply.token_texts
