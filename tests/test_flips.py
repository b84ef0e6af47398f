"""The metric is itself tested: flips lower its score, paraphrases don't, and blind metrics are found out."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # `benchmarks` is in the repository and not in the package
from benchmarks import iu_xray
from benchmarks.clinical import by_hand, score, shares
from medmllm_plugin.evaluation.flips import SAME, Pair, edits, judge, suite

BAR = 0.98


def test_the_generated_suite_is_large_and_of_all_kinds() -> None:
    pairs = suite()

    assert len({text for one in pairs for text in (one.reference, one.candidate)}) >= 1000
    assert {one.kind for one in pairs} == {
        *("negation", "certainty", "side", "severity", "size", "change", "finding", SAME),
    }
    assert {one.region for one in pairs} == {
        *("chest radiograph", "chest CT", "abdominal CT", "head CT", "brain MR"),
    }


def test_flips_lower_the_score_and_paraphrases_do_not() -> None:
    outcomes = judge(suite(), score)

    weak = {
        one.kind: [str(pair) for pair in one.failures[:3]] for one in outcomes if one.right < BAR * one.total
    }
    assert weak == {}


@pytest.mark.parametrize("name", ["before", "after", "last"])
def test_pairs_written_apart_from_the_rules_are_told_apart(name: str) -> None:
    outcomes = judge(by_hand(f"clinical_pairs_{name}.txt"), score)

    for kind, (right, total) in shares(outcomes).items():
        assert right >= BAR * total, (kind, [str(pair) for one in outcomes for pair in one.failures])


def overlap(reference: str, candidate: str) -> float:
    """The share of words that two texts have in common, as metrics of words count."""
    one, other = (set(re.findall(r"\w+", text.lower())) for text in (reference, candidate))
    return len(one & other) / len(one | other)


def findings_only(reference: str, candidate: str) -> float:
    """Overlap without "no" and sides, as metrics of entities count."""
    return overlap(
        *(re.sub(r"\b(?:no|not|left|right)\b", "", text, flags=re.I) for text in (reference, candidate))
    )


def test_a_metric_of_words_fails_on_paraphrases_and_one_of_entities_on_flips() -> None:
    by_words = shares(judge(suite(), overlap))
    by_entities = {one.kind: one.right / one.total for one in judge(suite(), findings_only)}

    assert by_words["paraphrases"][0] < 0.2 * by_words["paraphrases"][1]
    assert by_entities["side"] < 0.5


def test_edits_change_one_word_where_it_matters() -> None:
    assert [one.kind for one in edits("Mild left effusion has increased.")] == ["side", "severity", "change"]
    assert [one.candidate for one in edits("There is no evidence of effusion.")] == ["There is effusion."]
    assert next(edits("No small left effusion or right effusion.")).kind == "negation"
    assert list(edits("Left and right effusions.")) == []


def test_a_judged_pair_that_fails_is_shown() -> None:
    pair = Pair(kind="side", reference="Left effusion.", candidate="Right effusion.")

    (outcome,) = judge([pair], lambda one, other: 1.0)

    assert (outcome.right, outcome.total, outcome.failures) == (0, 1, (pair,))


@pytest.fixture(scope="module")
def labelled() -> list[iu_xray.Labelled]:
    path = iu_xray.archive()
    if path is None:
        pytest.skip("torchxrayvision, whose reports these are, is not installed")
    return list(iu_xray.reports(path))


FLOORS = {
    "cardiomegaly": (0.90, 0.95),
    "pleural effusion": (0.90, 0.90),
    "atelectasis": (0.88, 0.90),
    "pneumothorax": (0.85, 0.88),
    "opacity": (0.93, 0.87),
    "emphysema, COPD": (0.80, 0.93),
    "hiatal hernia": (0.90, 0.95),
    "fracture": (0.80, 0.90),
    "scoliosis": (0.90, 0.88),
}
"""Precision and recall that the reading of real reports must not fall below."""


def test_real_reports_are_read_as_the_people_did_who_indexed_them(labelled: list[iu_xray.Labelled]) -> None:
    found = {one.name: one for one in iu_xray.agreement(labelled)}

    assert len(labelled) > 3500
    for name, (precision, recall) in FLOORS.items():
        assert found[name].precision >= precision, (name, found[name])
        assert found[name].recall >= recall, (name, found[name])
