"""What fits: prompts beside each other, and what is kept of studies."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from medmllm_plugin.models import room
from medmllm_plugin.models.room import Room

LINGSHU_7B = {
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "num_attention_heads": 28,
    "hidden_size": 3584,
    "intermediate_size": 18944,
}
GIB = 1 << 30


def a_room(free: int, monkeypatch: pytest.MonkeyPatch, **wanted: Any) -> Room:
    """Beside Lingshu-7B in bfloat16 on a computer with so many bytes free."""
    text = SimpleNamespace(**LINGSHU_7B)
    model = SimpleNamespace(
        device=torch.device("cpu"),
        dtype=torch.bfloat16,
        config=SimpleNamespace(get_text_config=lambda: text),
    )
    monkeypatch.setattr(room, "available_bytes", lambda: free)
    return Room(model, **{"batch": None, "memory": None, **wanted})


class Prompt:
    """As many tokens as a prompt has, and whether it must be alone."""

    def __init__(self, tokens: int, *, whole: bool = False) -> None:
        self.tokens, self.whole = tokens, whole

    def __len__(self) -> int:
        return self.tokens


def groups(of: Room, *tokens: int, **more: Any) -> list[int]:
    return list(of.groups([Prompt(one, **more) for one in tokens]))


def test_a_token_of_lingshu_7b_keeps_the_bytes_that_are_known_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert a_room(GIB, monkeypatch).kept_per_token == 57_344


def test_as_many_prompts_go_together_as_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    studies = (21_000,) * 5

    assert groups(a_room(80 * GIB, monkeypatch), *studies) == [5]
    assert groups(a_room(20 * GIB, monkeypatch), *studies) == [2, 2, 1]
    assert groups(a_room(1 * GIB, monkeypatch), *studies) == [1] * 5
    assert groups(a_room(80 * GIB, monkeypatch), *(300,) * 40) == [16, 16, 8]


def test_a_number_asked_for_is_used_whatever_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert groups(a_room(1 * GIB, monkeypatch, batch=3), *(21_000,) * 5) == [3, 2]


def test_prompts_that_must_be_alone_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert groups(a_room(80 * GIB, monkeypatch), 300, 300, whole=True) == [1, 1]


def test_no_prompts_are_no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    assert groups(a_room(GIB, monkeypatch)) == []


def test_a_share_of_the_memory_is_kept_or_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert a_room(10 * GIB, monkeypatch).memory_bytes() == GIB
    assert a_room(10 * GIB, monkeypatch, memory=0).memory_bytes() == 0
    assert a_room(10 * GIB, monkeypatch, memory=300).memory_bytes() == 300 << 20


def test_there_is_some_memory_on_this_computer() -> None:
    assert room.available_bytes() > 1 << 20
