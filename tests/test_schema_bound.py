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
from medmllm_plugin.models import Ask
from medmllm_plugin.models.folder import open_folder
from medmllm_plugin.models.loading import load_processor
from medmllm_plugin.models.schema_bound import ALTERNATIVES, Chooser, Grammar, NotNumbersError, Vocabulary
from medmllm_plugin.prompts import Prompt
from tests.tiny_model import tiny_folder

SENTENCE = {"type": "string", "pattern": text_pattern(300)}
SIZE = 448
"""Scores that the model gives, more than its tokenizer has tokens."""


@cache
def a_vocabulary() -> Vocabulary:
    tokenizer = load_processor(open_folder(str(tiny_folder()))).tokenizer
    return Vocabulary(
        tokenizer, size=SIZE, ends=tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    )


def an_ask(schema: dict[str, Any] | None, **options: Any) -> Ask:
    return Ask(prompt=Prompt(system="", parts=()), schema=schema, **{"max_tokens": 1000, **options})


@cache
def token_bytes() -> list[bytes]:
    vocabulary = a_vocabulary()
    return [vocabulary.tokens.decode_bytes([token]) for token in range(vocabulary.size)]


def token(text: str) -> int:
    return token_bytes().index(text.encode())


def scores(*likelier: dict[str, float]) -> torch.Tensor:
    """Scores of rows, 0 but for some tokens."""
    rows = torch.zeros(len(likelier), SIZE)
    for row, some in zip(rows, likelier, strict=True):
        for text, score in some.items():
            row[token(text)] = score
    return rows


def step(chooser: Chooser, given: torch.Tensor) -> list[int]:
    """What greedy decoding takes of these scores."""
    return chooser(torch.zeros(len(given), 1, dtype=torch.long), given).argmax(-1).tolist()


def following(grammar: Grammar) -> frozenset[int]:
    """The tokens that may follow."""
    bits = np.zeros((SIZE + 31) // 32, np.int32)
    grammar.fill(bits)
    flags = np.unpackbits(bits.view(np.uint8), bitorder="little", count=SIZE)
    return frozenset(np.flatnonzero(flags).tolist())


def written(schema: dict[str, Any], text: bytes) -> tuple[bytes, frozenset[int]]:
    """How much of a text a model that wants to write just this can write, and what it may write then."""
    grammar, done = Grammar(a_vocabulary(), schema), b""
    while not grammar.stopped:
        allowed = following(grammar)
        fitting = [one for one in allowed if text.startswith(done + token_bytes()[one])]
        if not fitting:
            return done, allowed
        longest = max(fitting, key=lambda one: len(token_bytes()[one]))
        grammar.write(longest)
        done += token_bytes()[longest]
    return done, frozenset(a_vocabulary().ends)


def accepts(schema: dict[str, Any], text: str) -> bool:
    done, next_tokens = written(schema, text.encode())
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
    done, _ = written(SENTENCE, f'"a{character}b"'.encode())

    assert done[:2] == b'"a'
    assert done in (b'"a' + character.encode()[:-1], b'"a"')


@pytest.mark.parametrize("escape", [r"\n", r"\u0041", r"\ud800", r"\"", r"\/"])
def test_no_escape_can_be_written_so_text_is_what_it_looks_like(escape: str) -> None:
    done, _ = written(SENTENCE, rf'"a{escape}b"'.encode())

    assert done == b'"a'


def test_a_sentence_ends_at_its_longest() -> None:
    done, next_tokens = written(SENTENCE, b'"' + b"a" * 400 + b'"')

    assert done == b'"' + b"a" * 300
    assert next_tokens == {token_bytes().index(b'"')}


def test_properties_can_be_written_in_the_order_of_the_schema_only() -> None:
    schema = reply_schema(pictures=2)
    start = b'{"abnormal_pictures":['

    assert written(schema, start)[0] == start
    assert b"findings" not in written(schema, b'{"findings":[')[0]
    assert b" " not in written(schema, b'{ "abnormal_pictures"')[0]


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
    done, next_tokens = written({"enum": [{"a": 1}]}, b'{"a":1}')

    assert done == b'{"a":1}'
    assert next_tokens == set(a_vocabulary().ends)


@pytest.mark.parametrize("schema", [SENTENCE, None])
def test_scores_of_the_model_beyond_the_tokenizer_are_never_chosen(schema: dict[str, Any] | None) -> None:
    given = scores({})
    given[0, -1] = 100.0

    (chosen,) = step(Chooser(a_vocabulary(), [an_ask(schema)]), given)

    assert a_vocabulary().known == 398 < SIZE
    assert chosen < 398


def test_probabilities_are_those_among_the_tokens_allowed() -> None:
    chooser = Chooser(a_vocabulary(), [an_ask({"enum": [1, 2]})])

    step(chooser, scores({"1": 1.0, "2": 1.0 - np.log(3.0), "a": 50.0}))

    (row,) = chooser.rows
    assert (row.tokens, row.probabilities) == ([token("1")], pytest.approx([0.75]))
    assert row.alternatives[0] == [(token("1"), pytest.approx(0.75)), (token("2"), pytest.approx(0.25))]


def test_the_likeliest_alternatives_are_kept_in_their_order() -> None:
    chooser = Chooser(a_vocabulary(), [an_ask(None)])
    given = {text: 9.0 - 0.5 * place for place, text in enumerate("abcdefghijkl")}

    step(chooser, scores(given))

    (kept,) = chooser.rows[0].alternatives
    chances = [chance for _, chance in kept]
    assert [one for one, _ in kept] == [token(text) for text in "abcdefgh"]
    assert len(kept) == ALTERNATIVES
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) <= 1


def test_the_chosen_token_is_among_the_alternatives_also_if_drawn_against_the_odds() -> None:
    draws = [Chooser(a_vocabulary(), [an_ask(None, temperature=50.0, seed=seed)]) for seed in range(20)]
    given = scores(dict.fromkeys("abcdefghi", 5.0))

    for chooser in draws:
        step(chooser, given)

    rows = [chooser.rows[0] for chooser in draws if chooser.rows[0].tokens]
    assert len({row.tokens[0] for row in rows}) > 10
    for row in rows:
        assert len(row.alternatives[0]) == ALTERNATIVES
        assert dict(row.alternatives[0])[row.tokens[0]] == pytest.approx(row.probabilities[0])


def test_tokens_are_drawn_as_often_as_they_are_probable_at_the_temperature() -> None:
    asks = [an_ask({"enum": [1, 2]}, temperature=2.0, seed=seed) for seed in range(2000)]
    chooser = Chooser(a_vocabulary(), asks)

    chosen = step(chooser, scores(*[{"1": 2 * np.log(3.0)}] * len(asks)))

    assert chosen.count(token("1")) / len(chosen) == pytest.approx(0.75, abs=0.04)
    assert chooser.rows[0].probabilities[0] in (pytest.approx(0.9), pytest.approx(0.1))


def test_a_seed_draws_the_same_whatever_else_is_in_the_batch() -> None:
    asks = [an_ask(None, temperature=1.0, seed=seed) for seed in (3, 7)]
    alone = [Chooser(a_vocabulary(), [ask]) for ask in asks]
    together, turned = Chooser(a_vocabulary(), asks), Chooser(a_vocabulary(), asks[::-1])

    for _ in range(12):
        for chooser in (*alone, together, turned):
            step(chooser, scores(*[{}] * len(chooser.rows)))

    drawn = [chooser.rows[0].tokens for chooser in alone]
    assert drawn[0] != drawn[1]
    assert [row.tokens for row in together.rows] == drawn == [row.tokens for row in turned.rows[::-1]]


def test_each_row_is_bound_to_its_own_schema_or_to_none() -> None:
    chooser = Chooser(a_vocabulary(), [an_ask({"enum": [1]}), an_ask({"enum": [2]}), an_ask(None)])

    chosen = step(chooser, scores(*[{"a": 9.0}] * 3))

    assert chosen == [token("1"), token("2"), token("a")]


def test_a_row_ends_with_its_json_or_at_its_most_tokens_and_the_others_go_on() -> None:
    asks = [an_ask({"enum": [1]}), an_ask(None, max_tokens=2), an_ask(None)]
    chooser = Chooser(a_vocabulary(), asks)
    ended = []

    for _ in range(3):
        step(chooser, scores(*[{"a": 9.0}] * 3))
        ended.append(chooser.ended(torch.zeros(3, 1), None).tolist())

    assert ended == [[True, False, False], [True, True, False], [True, True, False]]
    assert [len(row.tokens) for row in chooser.rows] == [1, 2, 3]
    assert [row.finished for row in chooser.rows] == [True, False, False]


def test_an_end_that_the_model_chooses_is_no_part_of_the_reply() -> None:
    chooser = Chooser(a_vocabulary(), [an_ask(None)])

    chosen = [step(chooser, scores({"a": 9.0})), step(chooser, scores({"<|im_end|>": 9.0}))]

    (row,) = chooser.rows
    assert chosen == [[token("a")], [token("<|im_end|>")]]
    assert (row.tokens, row.finished, row.ended) == ([token("a")], True, True)


def test_scores_that_are_not_numbers_choose_nothing() -> None:
    chooser = Chooser(a_vocabulary(), [an_ask(SENTENCE)])

    with pytest.raises(NotNumbersError):
        step(chooser, torch.full((1, SIZE), torch.nan))


def test_what_is_done_before_each_choice_is_told_how_much_is_written_and_may_stop_it() -> None:
    told: list[int] = []

    def stop(written: int) -> None:
        told.append(written)
        if written == 2:
            raise KeyboardInterrupt

    chooser = Chooser(a_vocabulary(), [an_ask({"enum": [1]}), an_ask(None)], step=stop)

    for _ in range(2):
        step(chooser, scores({"1": 9.0}, {"a": 9.0}))
    with pytest.raises(KeyboardInterrupt):
        step(chooser, scores({"1": 9.0}, {"a": 9.0}))

    assert told == [0, 1, 2]


def test_a_schema_that_can_not_bind_is_refused() -> None:
    with pytest.raises(ModelError, match=r"kept to its schema: .*uniqueItems.*simplify the task"):
        Grammar(a_vocabulary(), {"type": "array", "uniqueItems": True})


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


def test_control_tokens_are_no_text() -> None:
    tokens = [token("a"), token("<|image_pad|>"), token("b")]

    assert a_vocabulary().texts(tokens) == ("a", "", "b")
    assert a_vocabulary().text(token("<|im_start|>")) == ""


def test_the_tokens_are_those_of_the_tokenizer() -> None:
    tokenizer = load_processor(open_folder(str(tiny_folder()))).tokenizer
    text = "Nodule 12 mm, 結節."
    ids = tokenizer(text)["input_ids"]

    assert "".join(a_vocabulary().texts(ids)) == tokenizer.decode(ids) == text
