"""Bound decoding, tried token by token without a model in between."""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medmllm_plugin.errors import ModelError
from medmllm_plugin.findings import reply_schema, text_pattern
from medmllm_plugin.models.schema_bound import SchemaBound, Vocabulary
from medmllm_plugin.models.transformers import open_model
from tests.tiny_model import tiny_folder

SENTENCE = {"type": "string", "pattern": text_pattern(300)}


@cache
def a_vocabulary() -> Vocabulary:
    model = open_model(str(tiny_folder()))
    return Vocabulary(model._processor.tokenizer, size=448, ends=model._model.generation_config.eos_token_id)


def a_bound(schema: dict[str, Any], **options: Any) -> SchemaBound:
    return SchemaBound(a_vocabulary(), schema, **{"max_tokens": 1000, **options})


@cache
def token_bytes() -> list[bytes]:
    vocabulary = a_vocabulary()
    return [vocabulary.tokens.decode_bytes([token]) for token in range(vocabulary.size)]


def written(bound: SchemaBound, text: bytes) -> tuple[bytes, frozenset[int]]:
    """How much of a text a model that wants to write just this can write, and what it may write then."""
    ids, done = [0], b""
    while True:
        scores = bound(torch.tensor([ids]), torch.zeros(1, a_vocabulary().size))[0]
        allowed = torch.isfinite(scores).nonzero().flatten().tolist()
        fitting = [token for token in allowed if text.startswith(done + token_bytes()[token])]
        if not fitting:
            return done, frozenset(allowed)
        ids.append(max(fitting, key=lambda token: len(token_bytes()[token])))
        done += token_bytes()[ids[-1]]


def accepts(schema: dict[str, Any], text: str) -> bool:
    done, next_tokens = written(a_bound(schema), text.encode())
    return done == text.encode() and bool(next_tokens & set(a_vocabulary().ends))


def satisfies(value: object, schema: dict[str, Any]) -> bool:
    return not list(jsonschema.Draft202012Validator(schema).iter_errors(value))


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_a_sentence_can_be_written_exactly_if_the_schema_allows_it(text: str) -> None:
    allowed = satisfies(text, SENTENCE) and not text.endswith("\n")

    assert accepts(SENTENCE, f'"{text}"') == allowed


@pytest.mark.parametrize(
    "character", [*map(chr, range(0x20)), '"', "\\", "\x7f", "\x85", "\u2028", "\u202e", "\u2066"]
)
def test_no_control_or_direction_mark_can_be_written_in_a_sentence(character: str) -> None:
    done, _ = written(a_bound(SENTENCE), f'"a{character}b"'.encode())

    assert done[:2] == b'"a'
    assert done in (b'"a' + character.encode()[:-1], b'"a"')


@pytest.mark.parametrize("escape", [r"\n", r"\u0041", r"\ud800", r"\"", r"\/"])
def test_no_escape_can_be_written_so_text_is_what_it_looks_like(escape: str) -> None:
    done, _ = written(a_bound(SENTENCE), rf'"a{escape}b"'.encode())

    assert done == b'"a'


def test_a_sentence_ends_at_its_longest() -> None:
    done, next_tokens = written(a_bound(SENTENCE), b'"' + b"a" * 400 + b'"')

    assert done == b'"' + b"a" * 300
    assert next_tokens == {token_bytes().index(b'"')}


def test_properties_can_be_written_in_the_order_of_the_schema_only() -> None:
    schema = reply_schema(pictures=2)
    start = b'{"abnormal_pictures":['

    assert written(a_bound(schema), start)[0] == start
    assert b"findings" not in written(a_bound(schema), b'{"findings":[')[0]
    assert b" " not in written(a_bound(schema), b'{ "abnormal_pictures"')[0]


def test_pictures_that_were_not_shown_can_not_be_cited() -> None:
    schema = reply_schema(pictures=12)

    assert accepts(schema, '{"abnormal_pictures":[1,12],"findings":[],"impression":["None."]}')
    for number in ("0", "13", "-1", "1.5", "01", "1e0"):
        assert not accepts(schema, f'{{"abnormal_pictures":[{number}],"findings":[],"impression":["None."]}}')


def test_a_whole_report_can_be_written_and_satisfies_the_schema() -> None:
    schema = reply_schema(pictures=3, compared=True)
    report = {
        "abnormal_pictures": [2],
        "findings": [
            {
                "finding": "nodule",
                "site": "lung",
                "side": "left",
                "status": "present",
                "severity": None,
                "change": "new",
                "pictures": [2, 3],
                "box": {"picture": 2, "bbox_2d": [0, 4096, 12, 40]},
                "sentence": "Rundherd, 12 mm; 結節 5 × 7 mm — «neu».",
            }
        ],
        "impression": ["A nodule."],
    }

    text = json.dumps(report, ensure_ascii=False, separators=(",", ":"))

    assert satisfies(report, schema)
    assert accepts(schema, text)


def test_after_the_report_only_the_end_can_be_written() -> None:
    done, next_tokens = written(a_bound({"enum": [{"a": 1}]}), b'{"a":1}')

    assert done == b'{"a":1}'
    assert next_tokens == set(a_vocabulary().ends)


def test_scores_of_the_model_beyond_the_tokenizer_are_never_chosen() -> None:
    vocabulary = a_vocabulary()
    scores = torch.zeros(1, vocabulary.size)
    scores[0, -1] = 100.0

    bound = a_bound(SENTENCE)(torch.tensor([[0]]), scores)

    assert vocabulary.size > 398
    assert bound[0, -1] == -torch.inf


def test_probabilities_are_those_among_the_tokens_allowed() -> None:
    bound = a_bound({"enum": [1, 2]})
    one, two = token_bytes().index(b"1"), token_bytes().index(b"2")
    scores = torch.zeros(1, 448)
    scores[0, one], scores[0, two], scores[0, 0] = 1.0, 1.0 - np.log(3.0), 50.0

    bound(torch.tensor([[0]]), scores)
    bound(torch.tensor([[0, one]]), torch.zeros(1, 448))

    assert bound.probabilities == pytest.approx((0.75, 0.5))


def test_progress_tells_tokens_written_and_at_most() -> None:
    calls: list[tuple[int, int]] = []

    written(a_bound({"const": "ab"}, max_tokens=7, progress=lambda *call: calls.append(call)), b'"ab"')

    assert calls == [(number, 7) for number in range(1, len(calls) + 1)]
    assert calls


def test_a_schema_that_can_not_bind_is_refused() -> None:
    with pytest.raises(ModelError, match=r"kept to its schema: .*uniqueItems.*simplify the task"):
        a_bound({"type": "array", "uniqueItems": True})


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_texts_of_tokens_joined_are_the_text(text: str) -> None:
    text = unicodedata.normalize("NFC", text)
    tokens = a_vocabulary().tokens.tokenize_str(text)

    texts = a_vocabulary().texts(tokens)

    assert len(texts) == len(tokens)
    assert "".join(texts) == text


def test_a_character_cut_into_tokens_is_counted_to_the_last() -> None:
    tokens = a_vocabulary().tokens.tokenize_str("a結b")

    assert len(tokens) == 5
    assert a_vocabulary().texts(tokens) == ("a", "", "", "結", "b")


def test_a_character_cut_short_at_the_end_is_marked() -> None:
    tokens = a_vocabulary().tokens.tokenize_str("a結")[:-1]

    assert a_vocabulary().texts(tokens) == ("a", "", "\N{REPLACEMENT CHARACTER}")


def test_the_tokens_are_those_of_the_tokenizer() -> None:
    tokenizer = open_model(str(tiny_folder()))._processor.tokenizer
    text = "Nodule 12 mm, 結節."
    ids = tokenizer(text)["input_ids"]

    assert "".join(a_vocabulary().texts(ids)) == tokenizer.decode(ids) == text
