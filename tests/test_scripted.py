"""The model that says what it was told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.models import Ask, Capabilities, Reply
from medmllm_plugin.models.scripted import ScriptedModel, open_model
from medmllm_plugin.prompts import Prompt, TextPart

PROMPT = Prompt(system="s", parts=(TextPart(text="t"),))


def test_replies_come_in_order_and_what_was_asked_is_kept() -> None:
    whole = Reply(text="c", seconds=1.5, token_texts=("c",), token_probabilities=(0.5,))
    model = ScriptedModel(["a", {"b": "\N{DEGREE SIGN}"}, whole])

    replies = model.replies([Ask(prompt=PROMPT, schema={"k": k}, seed=k, max_tokens=9) for k in range(3)])

    assert [reply.text for reply in replies] == ["a", '{"b":"\N{DEGREE SIGN}"}', "c"]
    assert replies[2] is whole
    assert [(asked.schema, asked.seed, asked.max_tokens) for asked in model.asked] == [
        ({"k": k}, k, 9) for k in range(3)
    ]
    assert all(asked.prompt is PROMPT for asked in model.asked)


def test_it_claims_what_it_is_told_to() -> None:
    capabilities = Capabilities(pictures=2, boxes=False, schema_bound=True)

    model = ScriptedModel([], capabilities=capabilities, outside="Not for this.", name="mine")

    assert model.capabilities is capabilities
    assert model.outside_domain(None) == "Not for this."  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="mine: asked 1 times, expected 0 at most"):
        model.replies([Ask(prompt=PROMPT, schema={})])


def test_replies_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "replies.json").write_text('["not json", {"findings": []}]')

    model = open_model(str(tmp_path / "replies.json"))

    texts = [one.text for one in model.replies([Ask(prompt=PROMPT, schema={})] * 2)]
    assert texts == ["not json", '{"findings":[]}']


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "found a dict, expected a list of replies"),
        ("[1]", r"replies.json\[0\]: found a int, expected a text or an object"),
        ("[", "is not JSON"),
        (None, "can't be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_list_of_replies_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "replies.json").write_text(content)

    with pytest.raises(SettingsError, match=message):
        open_model(str(tmp_path / "replies.json"))


def test_a_file_is_needed() -> None:
    with pytest.raises(SettingsError, match="expected scripted:FILE"):
        open_model("")
