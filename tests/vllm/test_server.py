"""The HTTP model with a real vLLM server, on the CPU, with a tiny model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from medmllm_plugin.errors import ModelError, SettingsError, TooManyPicturesError, TooManyTokensError
from medmllm_plugin.models import Ask, chat_http, chat_messages, embedded
from medmllm_plugin.models.embedded import WEIGHTS
from tests.vllm import opened
from tests.vllm.prompts import a_prompt, an_ask, phantom_asks
from tests.vllm.server import serving

opened.vllm()

KEY = "not-a-secret"
PICTURES = 32
CONTEXT = 4096
"""What the server is started with."""

CLOSE = 1e-4
"""Two batches add up float32 in different orders."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """It serves the small model that ships in the package, with the grammars that vLLM has by default."""
    options = ["--served-model-name", "embedded", "--dtype", "float32", "--enforce-eager"]
    options += ["--max-model-len", str(CONTEXT), "--max-num-seqs", "8"]
    options += ["--limit-mm-per-prompt", json.dumps({"image": PICTURES, "video": 0})]
    grammar = {"backend": "xgrammar", "disable_any_whitespace": True}
    options += ["--structured-outputs-config", json.dumps(grammar)]
    environment = {
        "VLLM_API_KEY": KEY,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    folder = tmp_path_factory.mktemp("server")
    with serving(WEIGHTS / "ct-chest", *options, folder=folder, environment=environment) as url:
        yield url


@pytest.fixture
def model(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MEDMLLM_API_KEY", KEY)
    return chat_http.open_model(f"{server}?family=qwen2_5_vl")


@cache
def by_transformers() -> Any:
    return embedded.open_model("")


def asks_about_phantoms(studies: int) -> list[Ask]:
    return phantom_asks(by_transformers().capabilities, studies=studies)


def test_phantoms_are_read_over_http_as_by_transformers(model: Any) -> None:
    asks = asks_about_phantoms(4)

    found = model.replies(asks)

    expected = by_transformers().replies(asks)
    assert [reply.text for reply in found] == [reply.text for reply in expected]
    assert all(reply.finished for reply in found)


def test_probabilities_are_those_of_the_model_bound_to_the_schema(model: Any) -> None:
    (ask,) = asks_about_phantoms(1)

    (found,), (expected,) = (one.replies([ask]) for one in (model, by_transformers()))

    assert found.token_texts == expected.token_texts
    words = [1 - controls(alternatives) for alternatives in found.token_alternatives]
    chances = [chance / share for chance, share in zip(found.token_probabilities, words, strict=True)]
    assert chances == pytest.approx(expected.token_probabilities, abs=CLOSE)
    for ours, theirs, text, share in zip(
        found.token_alternatives, expected.token_alternatives, found.token_texts, words, strict=True
    ):
        assert text in dict(ours)
        assert dict(ours)[text] / share == pytest.approx(dict(theirs)[text], abs=CLOSE)


def controls(alternatives: Sequence[tuple[str, float]]) -> float:
    """The share of control tokens, which xgrammar takes for words of a string, and llguidance doesn't."""
    return sum(chance for text, chance in alternatives if text.startswith("<|"))


def test_free_text_is_what_transformers_says(model: Any) -> None:
    (bound,) = asks_about_phantoms(1)
    ask = replace(bound, schema=None, max_tokens=20)

    (found,), (expected,) = (one.replies([ask]) for one in (model, by_transformers()))

    assert found.text == expected.text
    assert not found.finished


def test_pictures_that_the_server_has_are_named_and_not_sent_again(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDMLLM_API_KEY", KEY)
    whole = chat_http.open_model(f"{server}?family=qwen2_5_vl")
    named = chat_http.open_model(f"{server}?family=qwen2_5_vl&pictures=uuid")
    asks = asks_about_phantoms(1)
    expected = [reply.text for reply in whole.replies(asks)]

    first = [reply.text for reply in named.replies(asks)]
    monkeypatch.setattr(chat_messages.Encoded, "data_url", property(_never))
    second = [reply.text for reply in named.replies(asks)]

    assert first == second == expected


def _never(picture: chat_messages.Encoded) -> str:
    raise AssertionError(f"sent again: {picture.sha256}")


def test_what_the_server_takes_is_known(model: Any) -> None:
    assert model.name == "embedded"
    assert model.capabilities.context_tokens == CONTEXT


def test_too_many_pictures_are_explained_with_the_servers_limit(model: Any) -> None:
    with pytest.raises(TooManyPicturesError) as caught:
        model.replies([an_ask(pictures=PICTURES + 1)])

    assert caught.value.limit == PICTURES
    assert model.capabilities.pictures == PICTURES


def test_a_prompt_beyond_the_servers_context_is_explained_with_its_limit(model: Any) -> None:
    ask = Ask(prompt=a_prompt(words="Report. " * CONTEXT), schema=None, max_tokens=4)

    with pytest.raises(TooManyTokensError) as caught:
        model.replies([ask])

    assert caught.value.limit == CONTEXT


def test_a_wrong_key_says_where_the_key_is_looked_for(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDMLLM_API_KEY", "another")

    with pytest.raises((ModelError, SettingsError), match="MEDMLLM_API_KEY"):
        chat_http.open_model(f"{server}?family=qwen2_5_vl").replies([an_ask()])
