"""Figures and their intervals, curves, and two runs held against each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Kind, Verdict
from medmllm_plugin.evaluation.benchmarks import benchmark, sample
from medmllm_plugin.evaluation.compare_runs import compare, compare_records, mcnemar
from medmllm_plugin.evaluation.grounding import froc, sensitivity
from medmllm_plugin.evaluation.measures import MEASURES, estimate
from medmllm_plugin.evaluation.metrics import abstention, figures, negation, summary
from medmllm_plugin.evaluation.records import Record
from medmllm_plugin.evaluation.run import begin, items_of, plan_of, run
from tests.evaluating import told

A_RECORD = Record(
    item="1",
    kind=Kind.YES_NO,
    task="question",
    question="Is it?",
    choices=(),
    gold=("yes",),
    verdict=Verdict.RIGHT,
    answer="yes",
    reply="{}",
    prompt_sha256="0" * 64,
    seconds=1.0,
    cluster="1",
)


def records(*verdicts: Verdict, per_cluster: int = 1) -> list[Record]:
    return [
        replace(A_RECORD, item=f"{k:04d}", cluster=str(k // per_cluster), verdict=one)
        for k, one in enumerate(verdicts)
    ]


def test_abstaining_and_saying_nothing_is_not_right() -> None:
    found = figures(records(Verdict.RIGHT, Verdict.WRONG, Verdict.NO_ANSWER, Verdict.ABSTAINED))

    assert found["accuracy"]["value"] == 0.25
    assert found["answered"]["value"] == 0.5
    assert found["accuracy_answered"]["value"] == 0.5


def test_the_interval_of_a_share_is_that_of_the_binomial() -> None:
    found = estimate("accuracy", [(str(k), float(k < 300)) for k in range(400)])

    wide = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert found.value == 0.75
    assert (found.low, found.high) == pytest.approx((0.75 - wide, 0.75 + wide), abs=0.01)


def test_questions_on_one_picture_count_together_in_the_interval() -> None:
    scores = [(k, float(k % 2)) for k in range(40) for _ in range(10)]
    alone = estimate("accuracy", [(f"{n}", score) for n, (_, score) in enumerate(scores)])

    together = estimate("accuracy", [(str(picture), score) for picture, score in scores])

    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_figures_are_the_same_every_time_and_in_every_order() -> None:
    some = records(*[Verdict.RIGHT, Verdict.WRONG, Verdict.NO_ANSWER] * 20)

    assert summary(some) == summary(some[::-1])


def test_medians_are_of_all_values() -> None:
    found = estimate("centre_mm", [("a", [1.0, 9.0]), ("b", [3.0]), ("c", [])])

    assert found.value == 3.0


def test_a_figure_without_cases_is_not_known() -> None:
    assert np.isnan(estimate("side", [("a", [0.0, 0.0])]).value)


def test_always_saying_the_commonest_answer_is_told_beside_yes_and_no() -> None:
    some = [
        replace(one, gold=("no",) if n < 7 else ("yes",))
        for n, one in enumerate(records(*[Verdict.RIGHT] * 10))
    ]

    assert figures(some)["commonest"]["value"] == 0.7


def test_every_score_that_is_written_has_words() -> None:
    assert all(one.words and one.unit in ("%", "mm", "") for one in MEASURES.values())


def test_froc_by_hand() -> None:
    studies = [
        (2, [(0.9, 0), (0.8, -1), (0.3, 1)]),
        (1, [(0.8, -1), (0.6, 0)]),
        (0, [(0.5, -1)]),
    ]

    curve = froc(studies)

    by_hand = [(0, 1 / 3), (2 / 3, 1 / 3), (2 / 3, 2 / 3), (1, 2 / 3), (1, 1)]
    assert np.allclose(curve, by_hand)
    assert sensitivity(curve, 0.5) == pytest.approx(1 / 3)
    assert sensitivity(curve, 1.0) == 1


def test_a_lesion_hit_twice_is_found_once() -> None:
    assert froc([(2, [(0.9, 0), (0.8, 0)])])[-1] == (0.0, 0.5)


def test_abstention_keeps_the_surest() -> None:
    curve = abstention([[(0.9, True)], [(0.5, True)], [(0.2, False)], [(0.1, False)]])

    assert curve == [(1.0, 0.5), (0.75, pytest.approx(2 / 3)), (0.5, 1.0), (0.25, 1.0)]


def test_asking_both_ways_must_be_answered_both_ways() -> None:
    def both(name: str, *answers: str) -> list[Record]:
        return [
            replace(
                A_RECORD,
                item=f"{name}{k}",
                pair=name,
                cluster=name,
                answer=answer,
                gold=(("yes", "no")[k],),
                verdict=Verdict.RIGHT if answer == ("yes", "no")[k] else Verdict.WRONG,
            )
            for k, answer in enumerate(answers)
        ]

    found = negation(
        [
            *both("a", "yes", "no"),
            *both("b", "yes", "yes"),
            *both("c", "no", "yes"),
            *both("d", "no answer", "no"),
        ]
    )

    assert (found["pairs"], found["answered"]) == (4, 3)
    assert found["consistent"]["value"] == 0.5
    assert found["both_right"]["value"] == 0.25


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (10, 2, 0.0386), (3, 3, 1.0)])
def test_mcnemar_is_exact(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p, abs=1e-4)


def test_two_runs_are_compared_item_by_item() -> None:
    first = records(*[Verdict.WRONG] * 12, *[Verdict.RIGHT] * 28)
    second = records(*[Verdict.RIGHT] * 38, *[Verdict.WRONG] * 2)

    found = compare_records(first, second[::-1], names=("base", "tuned"))

    assert (len(found.gained), found.lost) == (12, ("0038", "0039"))
    (one,) = [each for each in found.differences if each.key == "accuracy"]
    assert (one.first, one.second) == (0.7, 0.95)
    assert one.low < 0.25 < one.high
    assert found.mcnemar == pytest.approx(0.0129, abs=1e-4)
    assert one.p < 0.05
    assert any("McNemar p = 0.0129" in line for line in found.lines())


def test_two_equal_runs_do_not_differ() -> None:
    some = records(*[Verdict.RIGHT, Verdict.WRONG] * 10)

    found = compare_records(some, some, names=("one", "two"))

    assert (found.gained, found.lost, found.mcnemar) == ((), (), 1.0)
    assert {one.p for one in found.differences} == {1.0}


def test_runs_of_other_items_are_not_compared(tmp_path: Path) -> None:
    vqa = benchmark("vqa-rad")
    items = items_of(vqa, sample(vqa))
    for name, mine in (("first", items), ("second", items[:3])):
        begin(tmp_path / name, plan_of(vqa, mine, told(mine), name=name, folder=sample(vqa), seed=0))
        run(mine, told(mine), out=tmp_path / name)

    with pytest.raises(SettingsError, match="differ in items_sha256"):
        compare(tmp_path / "first", tmp_path / "second")
