"""Tests of `medmllm_plugin.thoughts`."""

from __future__ import annotations

import pytest

from medmllm_plugin.models import Reply
from medmllm_plugin.thoughts import answer_of


def a_reply(*tokens: str) -> Reply:
    return Reply(
        text="".join(tokens),
        seconds=1.0,
        token_texts=tokens,
        token_probabilities=tuple(1 / (number + 1) for number in range(len(tokens))),
        token_alternatives=tuple(((token, 1 / (number + 1)),) for number, token in enumerate(tokens)),
    )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"a":1}', '{"a":1}'),
        ('<think>{"a":2}\n?</think>\n\n{"a":1}', '{"a":1}'),
        ('It may be 2.</think>{"a":1}', '{"a":1}'),
        ('```json\n{"a":1}\n```', '{"a":1}'),
        ('<think></think>```\n{"a":1}\n```\n', '{"a":1}'),
        ("<think>It may be", ""),
        ("A nodule <5 mm.", "A nodule <5 mm."),
        ("Before ```code``` and after", "Before ```code``` and after"),
        ("", ""),
    ],
)
def test_the_answer_stands_alone(text: str, answer: str) -> None:
    assert answer_of(Reply(text=text, seconds=1.0)).text == answer


def test_tokens_stay_beside_the_text() -> None:
    reply = answer_of(a_reply("<think>", "why", "</think>", "fi", "ne"))

    assert reply.token_texts == ("fi", "ne")
    assert reply.token_probabilities == (1 / 4, 1 / 5)
    assert reply.token_alternatives == ((("fi", 1 / 4),), (("ne", 1 / 5),))


def test_a_token_that_ends_the_thought_too_tells_no_alternatives() -> None:
    reply = answer_of(a_reply("<think>why</", "think>fi", "ne"))

    assert reply.token_texts == ("fi", "ne")
    assert reply.token_probabilities == (1 / 2, 1 / 3)
    assert reply.token_alternatives == ()


def test_a_reply_without_a_thought_is_the_same() -> None:
    reply = a_reply("fi", "ne")

    assert answer_of(reply) is reply
