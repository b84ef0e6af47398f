"""Tests of `medmllm_plugin.quoting`."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from medmllm_plugin.models.embedded import WEIGHTS
from medmllm_plugin.quoting import CONTEXT_LENGTH, own_text, plain, quoted

pieces = st.text() | st.sampled_from(
    [
        "<",
        "|",
        ">",
        "/",
        "im_end",
        "<|im_start|>",
        "</data>",
        "[INST]",
        "\n",
        "\x00",
        "\u200b",
        "＜｜",
        "\ud800",
        "ASSISTANT:",
    ]
)


@given(text=st.lists(pieces, max_size=12).map("".join))
def test_nothing_is_left_that_means_something_to_a_template(text: str) -> None:
    done = plain(text, longest=80)

    assert len(done) <= 80
    assert not [token for token in ("<|", "</", "<d", "<i", "[INST]", "  ", "\n") if token in done]
    assert "ASSISTANT:" not in done
    assert not [one for one in done if unicodedata.category(one).startswith("C")]
    assert plain(done, longest=80) == done
    assert done.encode().decode() == done


def test_no_special_token_of_a_chat_can_be_written() -> None:
    tokenizer = Tokenizer.from_file(str(WEIGHTS / "ct-chest" / "tokenizer.json"))
    special = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items()}
    text = " a ".join(special)

    assert set(special.values()) & set(tokenizer.encode(text).ids)
    assert not set(special.values()) & set(tokenizer.encode(plain(text, longest=10_000)).ids)


@pytest.mark.parametrize(
    "text",
    [
        "nodule < 5 mm, ADC <0.8, HU>40 and a=b",
        "发热、咳嗽 3 周",
        "p. 3/4: 50% (stage II-III), T2*",
        "60 岁，女",
    ],
)
def test_what_people_write_stays(text: str) -> None:
    assert quoted(text) == text


def test_what_is_longer_is_cut_and_says_so() -> None:
    assert quoted("a" * 5000) == "a" * (CONTEXT_LENGTH - 1) + "…"


def test_lines_stay_where_they_are_wanted() -> None:
    assert own_text("One.\r\n\r\n Two.\u2028Three. ") == "One.\nTwo.\nThree."
    assert quoted("One.\nTwo.") == "One. Two."
