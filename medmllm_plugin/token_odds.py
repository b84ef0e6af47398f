"""How probable a model held what it wrote, and what it could have written instead, from its tokens.

A value of a reply, such as a status, can lie in several tokens, or in a part of one that also holds the
words before and after it. What counts is the text: each alternative at a place is compared with the values
letter for letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import prod

from medmllm_plugin.findings import Status, StatusProbabilities
from medmllm_plugin.models import Reply

_VALUE = r'("?[\s\]]*[,{{]\s*"{}"\s*:\s*")([^"]*)"'
"""Two groups: what must stand there since the value before, and the value."""
_FINDING = re.compile(r'"finding"\s*:\s*"([^"]*)(?=")[^{}\[\]]*?' + _VALUE.format("status"))
_CHOICE = re.compile(_VALUE.format("choice"))


def certainties(reply: Reply, count: int) -> list[float | None]:
    """For each finding the joint probability that the model gave to its finding, site, side and status.

    It is the product over the tokens from the value of `finding` to the value of `status`; None where the
    model gave no probabilities or the reply doesn't say these in that order.

    Args:
        reply: As the model gave it.
        count: How many findings it has.
    """
    spans = list(_FINDING.finditer(reply.text))
    if not reply.token_probabilities or len(spans) != count:
        return [None] * count
    starts = _starts(reply)
    return [
        round(
            prod(
                probability
                for start, text, probability in zip(
                    starts, reply.token_texts, reply.token_probabilities, strict=True
                )
                if start + len(text) > span.start(1) and start < span.end(3)
            ),
            4,
        )
        for span in spans
    ]


def status_probabilities(reply: Reply) -> list[StatusProbabilities | None]:
    """For each finding how probable each status was, after all that was written before it.

    They sum to 1, less what the model gave to tokens from which the status can't be told and that it did not
    choose; None where it doesn't tell its alternatives. Those that are not among the likeliest count as not
    there.

    >>> tokens = ('[{"finding":"nodule","status":"', "pres", 'ent"}]')
    >>> odds = ((), (("pres", 0.75), ("absent", 0.15), ("indeter", 0.1)), (('ent"}]', 1.0),))
    >>> reply = Reply(text="".join(tokens), seconds=0, token_texts=tokens, token_alternatives=odds)
    >>> status_probabilities(reply)
    [StatusProbabilities(present=0.75, absent=0.15, indeterminate=0.1)]
    """
    found: list[StatusProbabilities | None] = []
    for span in _FINDING.finditer(reply.text):
        odds = value_probabilities(reply, (span.start(2), span.start(3)), [one.value for one in Status])
        found.append(None if odds is None else StatusProbabilities(**dict(zip(Status, odds, strict=True))))
    return found


def choice_probability(reply: Reply, keys: Sequence[str]) -> float | None:
    """How probable the choice of the answer was among the keys; None if none was made or it isn't told."""
    span = _CHOICE.search(reply.text)
    if span is None or span[2] not in keys:
        return None
    odds = value_probabilities(reply, (span.start(1), span.start(2)), keys)
    return None if odds is None else odds[keys.index(span[2])]


def value_probabilities(
    reply: Reply, place: tuple[int, int], values: Sequence[str]
) -> tuple[float, ...] | None:
    """How probable each value was at a place of the reply, among them and after all that was written before.

    Args:
        reply: As the model gave it, with its alternatives.
        place: Where in the text the value before ends and where one of the values begins: what stands
            between the two must stand there, but the tokens of it can tell the value already.
        values: All that could stand there.

    Returns:
        Beside `values`; None if the model doesn't tell.
    """
    if len(reply.token_alternatives) != len(reply.token_texts) or not reply.token_texts:
        return None
    since, begin = place
    # the closing mark tells "no" from "none"
    wholes = [f'{reply.text[since:begin]}{value}"' for value in values]
    sums, reached = [0.0] * len(values), 1.0
    for start, text, alternatives in _from(reply, since):
        before, written = reply.text[min(start, since) : since], reply.text[since:start]
        if not alternatives and start + len(text) <= begin:
            alternatives = ((text, 1.0),)
        fitting = [
            (other == text, share, meant)
            for other, share in alternatives
            if (meant := _meant(other, before, written, wholes))
        ]
        total = sum(share for _, share, _ in fitting)
        if total <= 0:
            return None
        going_on = 0.0
        for chosen, share, meant in fitting:
            if len(meant) == 1:
                sums[meant[0]] += reached * share / total
            elif chosen:
                going_on += share
        if not going_on:
            break
        reached *= going_on / total
    return tuple(round(one, 4) for one in sums)


def _meant(token: str, before: str, written: str, wholes: Sequence[str]) -> list[int]:
    """The values that can still come of a token where `before` and `written` are given."""
    if not (token.startswith(before) or before.startswith(token)):
        return []
    text = written + token[len(before) :]
    return [k for k, whole in enumerate(wholes) if whole.startswith(text) or text.startswith(whole)]


def _from(reply: Reply, place: int) -> Iterator[tuple[int, str, tuple[tuple[str, float], ...]]]:
    """(start, text, alternatives) of the tokens from the one that holds the character at a place."""
    rows = zip(_starts(reply), reply.token_texts, reply.token_alternatives, strict=True)
    return (row for row in rows if row[0] + len(row[1]) > place)


def _starts(reply: Reply) -> list[int]:
    return list(accumulate((len(text) for text in reply.token_texts[:-1]), initial=0))
