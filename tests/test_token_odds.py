"""Tests of `medmllm_plugin.token_odds`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.findings import StatusProbabilities
from medmllm_plugin.models import Reply
from medmllm_plugin.token_odds import choice_probability, status_probabilities

SIDES, STATUSES = ("left", "right"), ("present", "absent", "indeterminate")
START, BETWEEN, END = '{"findings":[{"finding":"nodule","side":"', '","status":"', '","severity":null}]}'


class Writer:
    """A model that writes one of some texts, each as probable as it says, in tokens of a vocabulary."""

    def __init__(self, texts: Mapping[str, float], vocabulary: set[str]) -> None:
        self._texts = {self._cut(text, vocabulary): share for text, share in texts.items()}

    @staticmethod
    def _cut(text: str, vocabulary: set[str]) -> tuple[str, ...]:
        """The longest token that fits, then the next, as tokenizers do; letters are tokens too."""
        tokens: list[str] = []
        while text:
            fits = (text[:length] for length in range(len(text), 0, -1))
            tokens.append(next(one for one in fits if one in vocabulary or len(one) == 1))
            text = text[len(tokens[-1]) :]
        return tuple(tokens)

    def reply(self, text: str) -> Reply:
        """The text with all alternatives at each place and their probabilities."""
        (tokens,) = (one for one in self._texts if "".join(one) == text)
        alternatives = []
        for place in range(len(tokens)):
            after: dict[str, float] = {}
            for other, share in self._texts.items():
                if other[:place] == tokens[:place] and len(other) > place:
                    after[other[place]] = after.get(other[place], 0.0) + share
            whole = sum(after.values())
            alternatives.append(tuple((one, share / whole) for one, share in after.items()))
        return Reply(text=text, seconds=0.0, token_texts=tokens, token_alternatives=tuple(alternatives))


def a_text(side: str, status: str) -> str:
    return f"{START}{side}{BETWEEN}{status}{END}"


def odds(reply: Reply) -> list[float]:
    (found,) = status_probabilities(reply)
    assert found is not None
    return [found.present, found.absent, found.indeterminate]


shares = st.lists(st.floats(0.01, 1), min_size=6, max_size=6)
letters = st.sets(
    st.sampled_from(["p", "pre", "present", "a", "in", "status", '":"', '"left', 'left"', ',"s', "ent"])
)


@given(
    shares=shares,
    vocabulary=letters,
    side=st.sampled_from(SIDES),
    status=st.sampled_from(STATUSES),
)
def test_the_odds_are_those_of_the_text_whatever_the_tokens(
    shares: list[float], vocabulary: set[str], side: str, status: str
) -> None:
    both = list(itertools.product(SIDES, STATUSES))
    weights = dict(zip(both, shares, strict=True))
    writer = Writer({a_text(*one): share for one, share in weights.items()}, vocabulary)

    found = odds(writer.reply(a_text(side, status)))

    whole = sum(weights[side, one] for one in STATUSES)
    assert found == pytest.approx([weights[side, one] / whole for one in STATUSES], abs=2e-4)


@pytest.mark.parametrize("status", STATUSES)
def test_tokens_that_join_side_and_status_are_told_apart(status: str) -> None:
    texts = {a_text("left", "present"): 0.3, a_text("left", "absent"): 0.1, a_text("right", "present"): 0.5}
    texts[a_text("left", "indeterminate")] = 0.1
    joined = {
        f'{side}","status":"{one}","' for side in SIDES for one in ("present", "absent", "indeterminate")
    }

    found = odds(Writer(texts, joined).reply(a_text("left", status)))

    assert found == pytest.approx([0.6, 0.2, 0.2])


def test_what_a_token_before_the_value_tells_counts() -> None:
    texts = {
        a_text("left", "present"): 0.7,
        a_text("left", "absent"): 0.2,
        a_text("left", "indeterminate"): 0.1,
    }

    found = odds(Writer(texts, {'"status":"p'}).reply(a_text("left", "absent")))

    assert found == pytest.approx([0.7, 0.2, 0.1])


def test_what_can_not_be_told_from_a_token_not_chosen_is_left_out() -> None:
    texts = ('{"finding":"nodule","status":"', 'present"}')
    reply = Reply(
        text="".join(texts),
        seconds=0.0,
        token_texts=texts,
        token_alternatives=((), (('present"}', 0.8), ("pre", 0.1), ("", 0.1))),
    )

    (found,) = status_probabilities(reply)

    assert found == StatusProbabilities(present=0.9, absent=0.0, indeterminate=0.0)


def test_each_finding_has_its_own() -> None:
    first, second = a_text("left", "present"), a_text("right", "absent")
    one = Writer({first: 0.9, a_text("left", "absent"): 0.1}, {"present"}).reply(first)
    other = Writer({second: 0.6, a_text("right", "present"): 0.4}, {"absent"}).reply(second)
    both = Reply(
        text=one.text + other.text,
        seconds=0.0,
        token_texts=one.token_texts + other.token_texts,
        token_alternatives=one.token_alternatives + other.token_alternatives,
    )

    found = status_probabilities(both)

    assert [one and (one.present, one.absent) for one in found] == [(0.9, 0.1), (0.4, 0.6)]


def test_without_alternatives_there_are_none() -> None:
    text = a_text("left", "present")

    assert status_probabilities(Reply(text=text, seconds=0.0)) == [None]
    assert status_probabilities(
        Reply(text=text, seconds=0.0, token_texts=(text,), token_alternatives=((),))
    ) == [None]


@pytest.mark.parametrize("choice", ["no", "none", "unclear"])
@pytest.mark.parametrize("before", ['{"answer":{"choice":"', '{"answer":{"pictures":[1],"choice":"'])
def test_the_choice_is_as_probable_as_its_text(choice: str, before: str) -> None:
    shares = {"no": 0.5, "none": 0.3, "unclear": 0.2}
    writer = Writer({f'{before}{one}"}}': share for one, share in shares.items()}, {"no", "un"})

    found = choice_probability(writer.reply(f'{before}{choice}"}}'), list(shares))

    assert found == pytest.approx(shares[choice])


def test_no_choice_has_no_probability() -> None:
    text = '{"answer":{"choice":null}}'

    assert choice_probability(Reply(text=text, seconds=0.0), ["yes"]) is None
    assert choice_probability(Writer({text: 1.0}, set()).reply(text), ["yes"]) is None
