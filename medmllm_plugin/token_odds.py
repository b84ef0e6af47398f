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

_KEY = r'"{}"\s*:\s*"([^"]*)"'
_FINDING = re.compile(_KEY.format("finding") + r"(?:[^{}\[\]]*?)" + _KEY.format("status"))
_CHOICE = re.compile(_KEY.format("choice"))


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
                if start + len(text) > span.start(1) and start < span.end(2)
            ),
            4,
        )
        for span in spans
    ]


def status_probabilities(reply: Reply) -> list[StatusProbabilities | None]:
    """For each finding how probable each status was, after all that was written before it.

    They sum to 1, less what the model gave to tokens from which the status can't be told; None where the
    model doesn't tell its alternatives. Of those that are not among the likeliest nothing is known: they
    count as not there.

    >>> tokens = ('[{"finding":"nodule","status":"', "pres", 'ent"}]')
    >>> odds = ((), (("pres", 0.75), ("absent", 0.15), ("indeter", 0.1)), (('ent"}]', 1.0),))
    >>> reply = Reply(text="".join(tokens), seconds=0, token_texts=tokens, token_alternatives=odds)
    >>> status_probabilities(reply)
    [StatusProbabilities(present=0.75, absent=0.15, indeterminate=0.1)]
    """
    found: list[StatusProbabilities | None] = []
    for span in _FINDING.finditer(reply.text):
        odds = value_probabilities(reply, span.span(2), [one.value for one in Status])
        found.append(None if odds is None else StatusProbabilities(**dict(zip(Status, odds, strict=True))))
    return found


def choice_probability(reply: Reply, keys: Sequence[str]) -> float | None:
    """How probable the choice of the answer was among the keys; None if none was made or it isn't told."""
    span = _CHOICE.search(reply.text)
    if span is None or span[1] not in keys:
        return None
    odds = value_probabilities(reply, span.span(1), keys)
    return None if odds is None else odds[keys.index(span[1])]


def value_probabilities(
    reply: Reply, span: tuple[int, int], values: Sequence[str]
) -> tuple[float, ...] | None:
    """How probable each value was at a place of the reply, after all that was written before it.

    Args:
        reply: As the model gave it, with its alternatives.
        span: Where one of the values stands in the text, without its quotation marks.
        values: All that could stand there.

    Returns:
        Beside `values`; None if the model doesn't tell.
    """
    if len(reply.token_alternatives) != len(reply.token_texts) or not reply.token_texts:
        return None
    # the closing mark tells "no" from "none"
    ends = [f'{value}"' for value in values]
    sums, reached, first = [0.0] * len(values), 1.0, True
    for start, text, alternatives in _from(reply, span[0]):
        if not alternatives:
            return None
        before = reply.text[min(start, span[0]) : span[0]]
        written = reply.text[span[0] : start]
        fitting = [
            (other, share, _meant(other, before, written, ends))
            for other, share in alternatives
            if other.startswith(before) or before.startswith(other)
        ]
        # before the first letter other words could have been written; of those this asks nothing
        total = sum(share for *_, share, _ in fitting) if first else 1.0
        if total <= 0:
            return None
        chosen = 0.0
        for other, share, meant in fitting:
            if other == text and len(meant) > 1:
                chosen += share
            elif len(meant) == 1:
                sums[meant[0]] += reached * share / total
        if not chosen:
            break
        reached, first = reached * chosen / total, False
        if start + len(text) > span[1]:
            break
    return tuple(round(one, 4) for one in sums)


def _meant(token: str, before: str, written: str, ends: Sequence[str]) -> list[int]:
    """The values that can still come of a token: all of those whose beginning it fits."""
    text = written + token[len(before) :] if len(token) > len(before) else written
    return [k for k, end in enumerate(ends) if end.startswith(text) or text.startswith(end)]


def _from(reply: Reply, place: int) -> Iterator[tuple[int, str, tuple[tuple[str, float], ...]]]:
    """(start, text, alternatives) of the tokens from the one that holds the character at a place."""
    rows = zip(_starts(reply), reply.token_texts, reply.token_alternatives, strict=True)
    return (row for row in rows if row[0] + len(row[1]) > place)


def _starts(reply: Reply) -> list[int]:
    return list(accumulate((len(text) for text in reply.token_texts[:-1]), initial=0))
