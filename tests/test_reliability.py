"""How far scores can be believed, by hand and on findings whose odds are known."""

from __future__ import annotations

import numpy as np
import pytest

from medmllm_plugin.reliability import Scored, auc, bins, ece, estimate, fit


def drawn(count: int, *, slope: float, intercept: float, term: float = 0.0, seed: int = 0) -> list[Scored]:
    """Findings that are right with known odds; every other one is of another kind, with its own term."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.05, 0.98, count)
    found = []
    for k, score in enumerate(scores):
        mass = k % 2 == 1
        odds = slope * np.log(score / (1 - score)) + intercept + (term if mass else 0.0)
        right = bool(rng.random() < 1 / (1 + np.exp(-odds)))
        found.append(Scored(finding="mass" if mass else "nodule", score=float(score), right=right))
    return found


def test_bins_hold_every_finding_once_and_the_highest_score_too() -> None:
    scores = [0.0, 0.05, 0.1, 0.999, 1.0]

    found = bins(scores, [True, False, True, True, False])

    assert [(one.low, one.count, one.share) for one in found] == [(0.0, 2, 0.5), (0.1, 1, 1.0), (0.9, 2, 0.5)]


def test_calibration_error_weighs_bins_by_their_findings() -> None:
    scores, right = [0.2, 0.2, 0.9, 0.9], [False, False, True, False]

    assert ece(scores, right) == pytest.approx((2 * 0.2 + 2 * 0.4) / 4)


def test_scores_that_are_as_often_right_as_they_say_have_no_error() -> None:
    assert ece([0.75] * 4, [True, True, True, False]) == 0.0


def test_order_is_all_that_counts_for_telling_right_from_wrong() -> None:
    right = [False, True, True]

    assert auc([0.1, 0.2, 0.3], right) == auc([0.8, 0.81, 0.99], right) == 1.0
    assert np.isnan(auc([0.1, 0.2], [True, True]))


def test_figures_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="found 0 scores of 0 findings"):
        ece([], [])
    with pytest.raises(ValueError, match="no finding"):
        estimate([[], []], ece)


def test_an_interval_holds_its_figure_and_is_narrower_for_more_studies() -> None:
    few = [[(one.score, one.right)] for one in drawn(40, slope=1.0, intercept=0.0)]
    many = [[(one.score, one.right)] for one in drawn(1000, slope=1.0, intercept=0.0)]

    widths = []
    for groups in (few, many):
        found = estimate(groups, auc)
        assert found.low <= found.value <= found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


def test_an_interval_is_the_same_each_time() -> None:
    groups = [[(one.score, one.right)] for one in drawn(50, slope=1.0, intercept=0.0)]

    assert estimate(groups, ece) == estimate(groups, ece)


def test_known_odds_are_found_again() -> None:
    found = drawn(20_000, slope=0.7, intercept=0.5, term=-1.2)

    odds = fit(found, tried=False)

    assert odds.slope == pytest.approx(0.7, abs=0.05)
    assert odds.findings["mass"] - odds.findings["nodule"] == pytest.approx(-1.2, abs=0.1)
    assert odds.probability("nodule", 0.5) == pytest.approx(1 / (1 + np.exp(-0.5)), abs=0.02)
    assert odds.unsupported == 0.0


def test_calibrated_scores_have_less_error_on_findings_that_were_not_fitted() -> None:
    fitted, others = (drawn(3000, slope=0.4, intercept=-0.8, seed=seed) for seed in (1, 2))

    odds = fit(fitted, tried=False)

    right = [one.right for one in others]
    before = ece([one.score for one in others], right)
    after = ece([odds.probability(one.finding, one.score) for one in others], right)
    assert after < 0.05 < 0.1 < before


def test_a_finding_that_was_right_a_few_times_is_not_held_to_be_always_right() -> None:
    found = [*drawn(400, slope=1.0, intercept=0.0), *[Scored(finding="cyst", score=0.5, right=True)] * 3]

    odds = fit(found, tried=False)

    assert 0.5 < odds.probability("cyst", 0.5) < 0.9


def test_what_the_evidence_pass_says_counts_only_where_it_is_asked_for() -> None:
    rng = np.random.default_rng(3)
    found = [
        Scored(finding="nodule", score=0.7, right=bool(rng.random() < (0.9 if kept else 0.3)), supported=kept)
        for kept in (True, False)
        for _ in range(300)
    ]

    plain, tried = fit(found, tried=False), fit(found, tried=True)

    assert plain.unsupported == 0.0
    assert tried.probability("nodule", 0.7, supported=False) == pytest.approx(0.3, abs=0.06)
    assert tried.probability("nodule", 0.7, supported=True) == pytest.approx(0.9, abs=0.06)


@pytest.mark.parametrize("right", [True, False])
def test_nothing_is_learnt_where_all_is_right_or_all_wrong(right: bool) -> None:
    with pytest.raises(ValueError, match="found 5 findings"):
        fit([Scored(finding="nodule", score=0.7, right=right)] * 5, tried=False)
