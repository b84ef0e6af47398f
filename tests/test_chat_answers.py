"""Tests of `medmllm_plugin.models.chat_answers`."""

from __future__ import annotations

import math
from typing import Any

import pytest

from medmllm_plugin.models import Reply
from medmllm_plugin.models.chat_answers import Heard


def a_reply(chosen: float, others: dict[str, float]) -> Reply:
    """To a question whose answer is one token, as a server tells it."""
    top = [{"token": text, "logprob": math.log(share)} for text, share in others.items()]
    token = {"token": "yes", "logprob": math.log(chosen), "top_logprobs": top}
    choice: dict[str, Any] = {"message": {"content": "yes"}, "logprobs": {"content": [token]}}
    heard = Heard()
    heard.add(choice)
    return heard.reply(seconds=1.0, first_token_seconds=None, notes=())


def test_alternatives_are_told_with_the_chosen_one_among_them() -> None:
    reply = a_reply(0.7, {"no": 0.2})

    (told,) = reply.token_alternatives
    assert dict(told) == pytest.approx({"yes": 0.7, "no": 0.2})


def test_alternatives_of_another_distribution_than_the_chosen_one_are_left_out() -> None:
    reply = a_reply(0.9, {"no": 0.8, "maybe": 0.1})

    assert reply.token_probabilities == pytest.approx((0.9,))
    assert reply.token_alternatives == ()
