"""The model in the package: how it is opened. What it knows is tested with its phantoms."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models import embedded
from medmllm_plugin.models.card import CARD, read_card


def test_it_opens_the_weights_beside_it() -> None:
    card = read_card(embedded.WEIGHTS / CARD)

    model = embedded.open_model("")

    assert (model.name, model.version) == ("embedded", card.version)
    assert set(model.capabilities.measured) == set(card.specialists or ())


def test_weights_without_the_card_that_says_what_they_know_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WEIGHTS", tmp_path)

    with pytest.raises(
        SettingsError, match=r"embedded: found no medmllm\.json .*; install medmllm-plugin again"
    ):
        embedded.open_model("")


def test_it_takes_no_spec() -> None:
    with pytest.raises(SettingsError, match="found the SPEC 'x', expected none"):
        embedded.open_model("x")


def test_without_the_engine_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(SettingsError, match=r'run: pip install "medmllm-plugin\[engine\]"'):
        embedded.open_model("")
