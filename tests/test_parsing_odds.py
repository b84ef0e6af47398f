"""Certainties from the probabilities of tokens."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from medmllm_plugin.findings import StatusProbabilities
from medmllm_plugin.models import Reply
from tests.replies import parsed
from tests.values import (
    a_said_finding,
    a_said_reply,
)


def tokens(*pairs: tuple[str, float]) -> Reply:
    return Reply(
        text="".join(text for text, _ in pairs),
        seconds=0.0,
        token_texts=tuple(text for text, _ in pairs),
        token_probabilities=tuple(probability for _, probability in pairs),
    )


def test_the_certainty_is_the_product_of_the_tokens_from_finding_to_status() -> None:
    reply = tokens(
        ('{"abnormal_pictures":[1],"findings":[{"finding":', 0.1),
        ('"nod', 0.9),
        ("ule", 0.8),
        ('","site":"', 1.0),
        ("lung", 0.5),
        ('","side":"left","status":"pre', 0.7),
        ("sent", 0.6),
        ('","severity":null,"pictures":[1],"box":null,"sentence":"A nodule."}', 0.2),
        (',{"finding":"mass","site":"lung","side":"right","status":"absent"', 0.25),
        (',"severity":null,"pictures":[2],"box":null,"sentence":"No mass."}],', 0.3),
        ('"impression":["As above."]}', 0.4),
    )

    first, second = parsed(reply).findings

    assert first.certainty == pytest.approx(0.9 * 0.8 * 0.5 * 0.7 * 0.6, abs=1e-4)
    assert second.certainty == 0.25


def test_without_probabilities_there_is_no_certainty() -> None:
    assert parsed(a_said_reply(a_said_finding())).findings[0].certainty is None


def test_a_reply_in_another_order_has_no_certainty() -> None:
    said = a_said_finding()
    turned = {key: said[key] for key in reversed(said)}
    text = json.dumps(a_said_reply(turned))

    (finding,) = parsed(tokens(*[(letter, 0.9) for letter in text])).findings

    assert finding.certainty is None


def test_the_same_finding_of_the_same_reading_has_the_same_identifier() -> None:
    reply = a_said_reply(a_said_finding(), a_said_finding(side="right"))

    first, again = parsed(reply).findings, parsed(reply).findings

    assert [one.tracking_uid for one in first] == [one.tracking_uid for one in again]
    assert first[0].tracking_uid != first[1].tracking_uid
    assert all(one.tracking_uid.startswith("2.25.") and len(one.tracking_uid) <= 64 for one in first)


def test_pictures_marked_are_kept() -> None:
    result = parsed(a_said_reply(a_said_finding(), abnormal_pictures=[3, 1, 3]))

    assert result.abnormal == (1, 3)


def test_the_odds_of_the_status_are_kept_beside_the_certainty() -> None:
    reply = tokens(
        (
            '{"abnormal_pictures":[1],"findings":[{"finding":"nodule","site":"lung","side":"left","status":',
            0.5,
        ),
        ('"present', 0.6),
        ('","severity":null,"pictures":[1],"box":null,"sentence":"A nodule."}],"impression":["."]}', 0.4),
    )
    at_status = (('"present', 0.6), ('"absent', 0.3), ('"indeterminate', 0.1))
    told = replace(reply, token_alternatives=((), at_status, ()))

    (finding,) = parsed(told).findings

    assert finding.certainty == 0.3
    assert finding.probabilities == StatusProbabilities(present=0.6, absent=0.3, indeterminate=0.1)
    assert parsed(reply).findings[0].probabilities is None
