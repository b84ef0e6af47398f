"""What a model said is asked for once."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmllm_plugin.dicom_bridge.checkpoint import Remembering
from medmllm_plugin.errors import OutputError
from medmllm_plugin.models import Ask, Model, Reply
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.prompts import Prompt


def an_ask(text: str = "What do you see?", *, seed: int = 0) -> Ask:
    return Ask(prompt=Prompt(system=text, parts=()), schema=None, seed=seed)


def test_a_reply_is_given_again_without_asking(tmp_path: Path) -> None:
    reply = Reply(
        text="a nodule",
        seconds=1.5,
        token_texts=("a", " nodule"),
        token_probabilities=(0.5, 0.25),
        token_alternatives=((("a", 0.5), ("the", 0.4)), ((" nodule", 0.25),)),
        notes=("shown smaller",),
    )
    first = Remembering(ScriptedModel([reply]), tmp_path / "said")
    second = Remembering(ScriptedModel([]), tmp_path / "said")

    assert first.replies([an_ask()]) == [reply]
    assert second.replies([an_ask()]) == [reply]


def test_only_what_is_new_is_asked(tmp_path: Path) -> None:
    inner = ScriptedModel(["one", "two", "three"])
    model = Remembering(inner, tmp_path)
    model.replies([an_ask("a")])

    replies = model.replies([an_ask("b"), an_ask("a"), an_ask("a", seed=1)])

    assert [one.text for one in replies] == ["two", "one", "three"]
    assert len(inner.asked) == 3


def test_another_model_is_asked_anew(tmp_path: Path) -> None:
    one, other = ScriptedModel(["one"], name="a"), ScriptedModel(["other"], name="b")

    replies = [Remembering(model, tmp_path).replies([an_ask()])[0].text for model in (one, other)]

    assert replies == ["one", "other"]


def test_what_is_forgotten_is_asked_again(tmp_path: Path) -> None:
    model = Remembering(ScriptedModel(["one", "two"]), tmp_path / "said")
    model.replies([an_ask()])

    model.forget()

    assert model.replies([an_ask()])[0].text == "two"


def test_a_torn_reply_is_an_error_that_says_where(tmp_path: Path) -> None:
    model = Remembering(ScriptedModel(["one"]), tmp_path)
    model.replies([an_ask()])
    (kept,) = tmp_path.iterdir()
    kept.write_text('{"text": "on')

    with pytest.raises(OutputError, match=kept.name):
        model.replies([an_ask()])


def test_it_is_a_model_like_the_one_it_asks(tmp_path: Path) -> None:
    inner = ScriptedModel([], outside="a foot")
    model = Remembering(inner, tmp_path)

    assert isinstance(model, Model)
    assert (model.name, model.version, model.dtype) == (inner.name, inner.version, inner.dtype)
    assert model.capabilities is inner.capabilities
