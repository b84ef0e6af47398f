"""The true path of a hub model, run with random weights: loading, replies, boxes, and what is no model."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from medmllm_plugin.errors import (
    CancelledError,
    ModelError,
    SettingsError,
    TooManyPicturesError,
    TooManyTokensError,
)
from medmllm_plugin.findings import reply_schema
from medmllm_plugin.models import Ask, Reply
from medmllm_plugin.models.folder import open_folder
from medmllm_plugin.models.loading import load, load_processor
from medmllm_plugin.models.transformers import TransformersModel, open_model
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.volume import Study
from tests.tiny_model import hub_folder, tiny_folder, with_card

SENTENCE = "A nodule of 12 mm in the left upper lobe, 結節."


def a_prompt(
    *, seed: int = 0, pictures: int = 2, shape: tuple[int, int] = (84, 112), words: str = "Report."
) -> Prompt:
    generator = np.random.default_rng(seed)
    parts: list[TextPart | PicturePart] = []
    for number in range(1, pictures + 1):
        pixels = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
        parts += [TextPart(text=f"<image_{number}>: "), PicturePart(number=number, pixels=pixels)]
    return Prompt(system="You read phantoms.", parts=(*parts, TextPart(text=words)))


def a_model(*, seed: int = 0) -> TransformersModel:
    return open_model(str(tiny_folder(seed=seed)))


def an_ask(prompt: Prompt, **options: Any) -> Ask:
    schema = reply_schema(pictures=max(1, len(prompt.pictures)))
    return Ask(prompt=prompt, **{"schema": schema, "max_tokens": 24_000, **options})


def ask(model: TransformersModel, prompt: Prompt, **options: Any) -> Reply:
    calls = {name: options.pop(name) for name in ("progress", "cancel") if name in options}
    (reply,) = model.replies([an_ask(prompt, **options)], **calls)
    return reply


@pytest.mark.parametrize("weights", range(4))
@pytest.mark.parametrize("pictures", [1, 3])
def test_replies_satisfy_the_whole_schema(weights: int, pictures: int) -> None:
    model = a_model(seed=weights)

    for seed in range(2):
        reply = ask(model, a_prompt(seed=seed, pictures=pictures), seed=seed)

        jsonschema.validate(json.loads(reply.text), reply_schema(pictures=pictures))
        assert "".join(reply.token_texts) == reply.text
        assert len(reply.token_probabilities) == len(reply.token_texts)
        assert all(0 < probability <= 1 for probability in reply.token_probabilities)
        assert reply.seconds > 0


def test_the_same_prompt_gets_the_same_reply_whatever_the_seed() -> None:
    model = a_model(seed=1)

    replies = [ask(model, a_prompt(), seed=seed) for seed in (0, 0, 7)]

    assert len({reply.text for reply in replies}) == 1
    assert replies[0].token_probabilities == replies[1].token_probabilities


def test_pictures_and_words_reach_the_model() -> None:
    model = a_model(seed=1)
    prompts = [a_prompt(), a_prompt(seed=1), a_prompt(words="Any nodule?")]

    probabilities = {ask(model, prompt, max_tokens=20).token_probabilities for prompt in prompts}

    assert len(probabilities) == 3


def test_a_reply_is_cut_at_the_most_tokens() -> None:
    calls: list[tuple[int, int]] = []

    reply = ask(a_model(), a_prompt(), max_tokens=5, progress=lambda *call: calls.append(call))

    assert len(reply.token_texts) == len(reply.token_probabilities) == 5
    assert reply.text.startswith('{"abn')
    assert calls == [(1, 5), (2, 5), (3, 5), (4, 5)]


def test_probabilities_are_those_of_the_bound_model() -> None:
    of = load(open_folder(str(tiny_folder(seed=1))))
    prompt = a_prompt()
    tokens = of.processor.tokenizer.convert_tokens_to_ids
    inputs = of.family.words(of.processor, prompt)
    inputs |= of.family.pixels(of.processor, [part.pixels for part in prompt.pictures])
    for name, token in (("input_ids", tokens('"')), ("attention_mask", 1), ("mm_token_type_ids", 0)):
        inputs[name] = torch.cat([inputs[name], torch.tensor([[token]])], dim=1)
    with torch.inference_mode():
        logits = of.model(**{name: one.to(of.model.device) for name, one in inputs.items()}).logits[0, -1]
    expected = logits[tokens(["a", "b"])].float().softmax(-1).tolist()

    reply = ask(a_model(seed=1), prompt, schema={"enum": ["a", "b"]})

    near = 1e-4 if of.model.dtype is torch.float32 else 0.05
    told = dict(reply.token_alternatives[1])
    assert reply.token_texts[0] == '"'
    assert [told["a"], told["b"]] == pytest.approx(expected, rel=near)
    assert reply.token_probabilities[1] == max(told.values())


def test_the_words_of_a_status_tell_how_probable_each_was() -> None:
    schema = {
        "type": "object",
        "properties": {"status": {"enum": ["present", "absent", "indeterminate"]}},
        "required": ["status"],
        "additionalProperties": False,
    }

    reply = ask(a_model(seed=1), a_prompt(), schema=schema)

    place = next(
        n for n in range(len(reply.token_texts)) if "".join(reply.token_texts[: n + 1]) == '{"status":"'
    )
    values = dict(reply.token_alternatives[place + 1])
    status = json.loads(reply.text)["status"]
    assert {text[0] for text in values} == {"p", "a", "i"}
    assert sum(values.values()) == pytest.approx(1, abs=1e-3)
    assert status.startswith(reply.token_texts[place + 1])


def test_free_text_is_what_the_model_writes_by_itself() -> None:
    of = load(open_folder(str(tiny_folder(seed=1))))
    prompt = a_prompt()
    inputs = of.family.words(of.processor, prompt)
    inputs |= of.family.pixels(of.processor, [part.pixels for part in prompt.pictures])
    start = inputs["input_ids"].shape[1]
    on_device = {name: one.to(of.model.device) for name, one in inputs.items()}
    nothing = list(range(len(of.processor.tokenizer), of.model.config.text_config.vocab_size))
    tokens = of.model.generate(**on_device, max_new_tokens=40, suppress_tokens=nothing)[0, start:]
    expected = of.processor.tokenizer.decode(tokens, skip_special_tokens=True)

    reply = ask(a_model(seed=1), prompt, schema=None, max_tokens=40)

    assert reply.text == expected
    assert not reply.finished


def test_no_tokens_are_drawn_from_the_random_state_of_others() -> None:
    model = a_model()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    ask(model, a_prompt(), seed=99, temperature=1.0)

    assert torch.rand(1) == expected


def test_samples_follow_their_seed_and_satisfy_the_schema() -> None:
    model = a_model(seed=1)

    drawn = [ask(model, a_prompt(), seed=seed, temperature=1.0) for seed in (1, 2, 1)]

    assert drawn[0].text == drawn[2].text != drawn[1].text
    for reply in drawn:
        jsonschema.validate(json.loads(reply.text), reply_schema(pictures=2))


def test_a_reply_tells_when_its_first_token_came_and_whether_it_was_cut() -> None:
    model = a_model(seed=1)

    whole, cut = ask(model, a_prompt()), ask(model, a_prompt(), max_tokens=7)

    assert (whole.finished, cut.finished) == (True, False)
    assert whole.first_token_seconds is not None
    assert 0 < whole.first_token_seconds < whole.seconds


def test_cancelling_stops_between_tokens_and_the_model_goes_on_to_answer_others() -> None:
    model = a_model(seed=1)
    asked: list[int] = []

    def cancel() -> bool:
        asked.append(1)
        return len(asked) > 6

    with pytest.raises(CancelledError):
        ask(model, a_prompt(), cancel=cancel)

    assert len(asked) == 7
    assert ask(model, a_prompt()).text == ask(a_model(seed=1), a_prompt()).text


def test_who_waits_for_another_s_answer_can_be_cancelled() -> None:
    model = a_model()

    with model._lock, pytest.raises(CancelledError):
        ask(model, a_prompt(), cancel=lambda: True)


def test_nothing_asked_is_nothing_answered() -> None:
    assert a_model().replies([]) == []


def test_a_template_that_leaves_pictures_out_is_refused() -> None:
    model = a_model()
    model._processor.chat_template = "{{ messages[0].role }}<|image_pad|>"

    with pytest.raises(ModelError, match=r"can't be prepared: .* template shows 1 pictures, expected 2"):
        ask(model, a_prompt(pictures=2))


def test_the_layout_of_lingshu_loads_with_the_same_weights_and_tokens() -> None:
    native, hub = open_model(str(tiny_folder())), open_model(str(hub_folder()))

    mine, theirs = native._model.state_dict(), hub._model.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    ids = [load_processor(open_folder(str(folder()))).tokenizer for folder in (tiny_folder, hub_folder)]
    assert ids[0](SENTENCE)["input_ids"] == ids[1](SENTENCE)["input_ids"]


def test_sampling_and_penalties_of_a_folder_are_not_used() -> None:
    native, hub = open_model(str(tiny_folder(seed=1))), open_model(str(hub_folder(seed=1)))

    replies = [ask(model, a_prompt()) for model in (native, hub)]

    assert json.loads((hub_folder(seed=1) / "generation_config.json").read_text())["do_sample"] is True
    assert replies[0].text == replies[1].text
    assert replies[0].token_probabilities == replies[1].token_probabilities


def test_a_small_model_on_a_cpu_computes_in_float32() -> None:
    model = a_model()

    assert model.dtype == ("bfloat16" if torch.cuda.is_available() else "float32")
    assert model._model.config._attn_implementation in ("sdpa", "flash_attention_2")


def test_too_many_pictures_are_refused(tmp_path: Path) -> None:
    model = open_model(str(with_card(tiny_folder(), tmp_path / "m", {"pictures": 1})))

    with pytest.raises(TooManyPicturesError, match="found 2 pictures, expected 1 at most") as caught:
        ask(model, a_prompt(pictures=2))

    assert caught.value.limit == 1


def test_more_tokens_than_the_model_has_room_for_are_refused() -> None:
    words = Prompt(system="", parts=(TextPart(text="nodule " * 33_000),))

    with pytest.raises(TooManyTokensError, match=r"and 512 at least for the reply, expected 32768") as caught:
        ask(a_model(), words)

    assert caught.value.limit == 32_768
    assert caught.value.found is not None
    assert caught.value.found > 32_768 + 512


def test_a_reply_is_held_to_the_room_that_its_prompt_leaves() -> None:
    whole, held = ask(a_model(), a_prompt()), ask(a_model(), a_prompt(), max_tokens=40_000)

    assert held.text == whole.text
    assert whole.notes == ()
    (note,) = held.notes
    assert "tokens of reply, not for 40000" in note


def test_a_picture_of_impossible_shape_is_refused() -> None:
    with pytest.raises(ModelError, match=r"pictures can't be prepared: .*aspect ratio"):
        ask(a_model(), a_prompt(pictures=1, shape=(3, 900)))


@pytest.mark.parametrize(
    ("phantom", "outside"),
    [("ct-chest", None), ("ct-head", "a phantom of the kind ct-head"), (None, "CT images of another origin")],
)
def test_a_card_that_names_phantoms_keeps_all_else_outside(
    tmp_path: Path, phantom: str, outside: str | None
) -> None:
    card = {"name": "small", "phantoms": ["ct-chest", "mr-head"]}
    model = open_model(str(with_card(tiny_folder(), tmp_path / "m", card)))
    slices = SliceSet(slices=(), study=Study(modality="CT", phantom=phantom), plan="")

    said = model.outside_domain(slices)

    kinds = "ct-chest, mr-head"
    assert said == (
        f"small was trained on synthetic phantoms of the kind {kinds} only; these are {outside}."
        if outside
        else None
    )


def test_a_model_without_a_card_knows_no_bounds() -> None:
    model = a_model()

    assert model.outside_domain(SliceSet(slices=(), study=Study(modality="CT"), plan="")) is None
    assert model.capabilities.schema_bound
    assert model.capabilities.findings is None
    assert not model.capabilities.terse


def test_a_card_sets_capabilities(tmp_path: Path) -> None:
    card = {"terse": True, "plan": {"count": 8}, "pictures": 8, "findings": ["nodule"], "sites": ["lung"]}

    capabilities = open_model(str(with_card(tiny_folder(), tmp_path / "m", card))).capabilities

    assert (capabilities.terse, capabilities.plan, capabilities.pictures) == (True, {"count": 8}, 8)
    assert (capabilities.findings, capabilities.sites) == (("nodule",), ("lung",))


def test_another_family_is_refused_with_the_ones_there_are(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder(), tmp_path / "bert")
    (folder / "config.json").write_text('{"model_type": "bert"}')

    with pytest.raises(SettingsError, match="found a model of type 'bert', expected one of qwen2_5_vl"):
        open_model(str(folder))


def test_a_name_is_needed() -> None:
    with pytest.raises(SettingsError, match="transformers: found no model"):
        open_model("")


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_folder(), tmp_path / "lacking")
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=r"fit its config\.json: 1 missing_keys, such as lm_head\.weight"):
        open_model(str(folder))


def test_a_folder_without_a_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder(), tmp_path / "mute")
    for path in folder.glob("*token*"):
        path.unlink()

    with pytest.raises(ModelError, match=r"mute: can't be loaded: its tokenizer doesn't fit") as caught:
        open_model(str(folder))

    assert "\n" not in str(caught.value)


def test_a_folder_without_a_template_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder(), tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()

    with pytest.raises(ModelError, match="bare: can't be loaded: it has no chat template"):
        open_model(str(folder))


def test_scores_that_are_not_numbers_are_refused() -> None:
    model = a_model()
    with torch.no_grad():
        model._model.lm_head.weight.fill_(torch.nan)

    with pytest.raises(ModelError, match=r"its scores in .* are not numbers"):
        ask(model, a_prompt(), max_tokens=3)


def test_without_the_engine_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name)
    )

    with pytest.raises(
        SettingsError, match=r'needs torch, not installed here; run: pip install "medmllm-plugin\[engine\]"'
    ):
        open_model(str(tiny_folder()))


FRESH = """
import numpy
from medmllm_plugin.models import Ask
from medmllm_plugin.models.transformers import open_model
from medmllm_plugin.prompts import PicturePart, Prompt
pixels = numpy.broadcast_to(numpy.uint8(9), (84, 84, 3))
prompt = Prompt(system="", parts=(PicturePart(number=1, pixels=pixels),))
asks = [Ask(prompt=prompt, schema={"enum": [number]}) for number in (1, 23)]
print(*(reply.text for reply in open_model(FOLDER).replies(asks)))
"""


def test_a_fresh_process_opens_and_asks_a_model_without_a_word_on_stderr() -> None:
    script = FRESH.replace("FOLDER", repr(str(tiny_folder())))

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["1", "23"]


def test_threads_that_ask_at_once_get_the_replies_that_each_gets_alone() -> None:
    prompts = [a_prompt(seed=seed, pictures=1 + seed) for seed in range(4)]
    expected = [ask(a_model(seed=1), prompt, max_tokens=30).token_texts for prompt in prompts]
    model = a_model(seed=1)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda prompt: ask(model, prompt, max_tokens=30).token_texts, prompts * 2))

    assert found == expected * 2


def test_importing_the_module_imports_no_torch() -> None:
    script = (
        "import sys, medmllm_plugin.models.transformers; print({'torch', 'transformers'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert (done.stdout.strip(), done.stderr) == ("set()", "")
