"""What models of all families reply: what they would by themselves, together as alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmllm_plugin.models import Ask
from medmllm_plugin.models.families import FAMILIES
from medmllm_plugin.models.transformers import open_model
from tests.tiny_model import tiny_folder
from tests.tiny_models.adapter import an_adapter
from tests.tiny_models.asked import FOLDERS, a_conversation, a_prompt, by_processor_alone, loaded


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_replies_are_those_of_the_model_on_its_own_processor_s_inputs(name: str, pictures: int) -> None:
    of, pictures = loaded(name), min(pictures, FAMILIES[name.split()[0]].pictures)
    prompt = a_conversation(pictures)
    images = {"crop_to_patches": False} if name == "internvl" and pictures else {}

    reply = open_model(f"{FOLDERS[name]()}?device_map=cpu").replies(
        [Ask(prompt=prompt, schema=None, max_tokens=24)]
    )[0]

    inputs, tokenizer = by_processor_alone(of, prompt, **images), of.processor.tokenizer
    beyond = list(range(len(tokenizer), of.model.get_output_embeddings().out_features))
    output = of.model.generate(**inputs, max_new_tokens=24, suppress_tokens=beyond)
    expected = tokenizer.decode(
        output[0, inputs["input_ids"].shape[1] :],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    assert reply.text.replace("\ufffd", "") == expected.replace("\ufffd", ""), (
        "but for bytes that are no text"
    )


@pytest.mark.parametrize("name", FOLDERS)
def test_prompts_with_different_pictures_are_answered_together_as_alone(name: str) -> None:
    model = open_model(f"{FOLDERS[name]()}?device_map=cpu&memory=0")
    most = model.capabilities.pictures
    schema = {"type": "object", "properties": {"side": {"enum": ["left", "right"]}, "n": {"enum": [1, 2]}}}
    asks = [
        Ask(prompt=a_prompt(pictures=min(n, most), shape=(28 * n + 28, 84)), schema=schema, max_tokens=40)
        for n in (1, 3, 0, 2)
    ]

    together = model.replies(asks)

    alone = [model.replies([one])[0] for one in asks]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.token_probabilities == pytest.approx(other.token_probabilities, abs=1e-5)


def test_an_adapter_changes_the_reply_and_the_hash(tmp_path: Path) -> None:
    adapter = an_adapter(tmp_path / "lora")
    ask = Ask(prompt=a_prompt(), schema=None, max_tokens=12)

    plain, adapted = (
        open_model(f"{tiny_folder()}?device_map=cpu{option}") for option in ("", f"&adapter={adapter}")
    )

    assert plain.replies([ask])[0].text != adapted.replies([ask])[0].text
    assert plain.weights_sha256 != adapted.weights_sha256
    assert adapted.name.endswith("+lora")
