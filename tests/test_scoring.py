"""Readings compared with the truth, and the bars of a self-test."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medmllm_plugin.findings import Finding, Side, Status
from medmllm_plugin.models.card import CARD, read_card
from medmllm_plugin.models.embedded import WEIGHTS
from medmllm_plugin.phantoms import PhantomStudy, sample_study
from medmllm_plugin.scoring import MEASURES, compare, measured
from medmllm_plugin.verdicts import bar_of


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    return sample_study(seed=4, findings=("mass", "pneumothorax"), slices=16, matrix=96)


@pytest.fixture(scope="module")
def normal() -> PhantomStudy:
    return sample_study(seed=5, findings=(), slices=16, matrix=64)


def other_side(one: Finding) -> Finding:
    return replace(one, side=Side.LEFT if one.side is Side.RIGHT else Side.RIGHT)


def test_the_truth_itself_is_without_fault(study: PhantomStudy, normal: PhantomStudy) -> None:
    values = measured([compare(study, study.truth()), compare(normal, ())])

    assert {key: one.value for key, one in values.items()} == {
        **dict.fromkeys(("f1", "side", "slice", "iou"), 1.0),
        **dict.fromkeys(("centre", "size", "false"), 0.0),
    }
    assert {key: one.cases for key, one in values.items()} == {
        **dict.fromkeys(("f1", "side", "slice", "iou", "centre", "size"), 2),
        "false": 1,
    }


def test_what_is_missed_false_or_on_the_other_side_counts(study: PhantomStudy, normal: PhantomStudy) -> None:
    mass, air = study.truth()
    absent = replace(mass, status=Status.ABSENT)

    comparison = compare(study, [absent, other_side(air)])
    wrong = compare(normal, [mass])

    assert [pair.said is None for pair in comparison.pairs] == [True, False]
    assert [pair.side_right for pair in comparison.pairs] == [False, False]
    assert (comparison.false, len(wrong.false)) == ((), 1)
    values = measured([comparison, wrong])
    assert values["f1"].value == pytest.approx(2 * 1 / (2 + 1 + 1))
    assert values["side"].value == 0
    assert values["false"].value == 1


def test_of_two_the_one_on_the_right_side_is_taken(study: PhantomStudy) -> None:
    mass, _ = study.truth()

    comparison = compare(study, [other_side(mass), mass])

    assert comparison.pairs[0].said == mass
    assert comparison.false == (other_side(mass),)


def test_a_box_is_measured_on_the_image_it_lies_on(study: PhantomStudy) -> None:
    mass, _ = study.truth()
    assert mass.box is not None
    wide = replace(mass.box, column_max=2 * mass.box.column_max - mass.box.column_min)
    elsewhere = replace(mass.box, image=study.source(0))

    doubled, off = (compare(study, [replace(mass, box=box)]).pairs[0] for box in (wide, elsewhere))

    assert doubled.iou == pytest.approx(0.5)
    assert doubled.edge_px == mass.box.column_max - mass.box.column_min
    assert (off.in_lesion, off.iou, off.edge_px) == (False, 0.0, None)


def test_centres_and_sizes_are_compared_in_the_patient(study: PhantomStudy) -> None:
    mass, _ = study.truth()
    assert mass.center_mm is not None
    assert mass.size_mm is not None
    x, y, z = mass.center_mm

    pair = compare(study, [replace(mass, center_mm=(x + 3, y, z - 4), size_mm=1.5 * mass.size_mm)]).pairs[0]

    assert pair.off_mm == pytest.approx(5)
    assert pair.size_off == pytest.approx(0.5)


def test_the_card_of_the_shipped_model_has_each_figure() -> None:
    for kind in read_card(WEIGHTS / CARD).specialists or ():
        card = read_card(WEIGHTS / kind / CARD)

        assert card.phantoms == (kind,)
        assert card.measured is not None
        assert set(card.measured) == {kind}
        assert card.measured[kind].keys() <= MEASURES.keys()
        assert card.measured[kind].keys() >= {"f1", "side", "slice", "iou", "false"}


@pytest.mark.parametrize("key", ["f1", "side", "slice", "iou"])
def test_a_share_may_fall_further_where_there_are_fewer(key: str) -> None:
    bars = [bar_of(MEASURES[key], 0.9, cases) for cases in (1, 8, 40, 1000)]

    assert bars == sorted(bars, key=lambda bar: bar or 0)
    assert bars[0] == 0
    assert bars[-1] == pytest.approx(0.85, abs=0.01)


def test_bars_of_errors_and_of_false_findings() -> None:
    assert bar_of(MEASURES["centre"], 2.0, 50) == 6.0
    assert bar_of(MEASURES["size"], 0.2, 50) == 0.4
    assert bar_of(MEASURES["false"], 0.0, 1) == 2.0
    assert bar_of(MEASURES["false"], 0.02, 1000) == pytest.approx(0.075, abs=0.01)
    assert bar_of(MEASURES["f1"], None, 10) is None
    assert bar_of(MEASURES["f1"], 0.9, 0) is None
