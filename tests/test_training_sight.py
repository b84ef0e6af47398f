"""Tests of `tools.training.sight`: what the heads of a vision part are read to say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

sys.path.append(str(Path(__file__).parents[1]))  # `tools` is in the repository and not in the package
from tools.training.labels import dense_labels, edge_labels
from tools.training.lessons import FINDINGS
from tools.training.sight import Glimpse, best_f1, glimpses
from tools.training.stream import met


def test_heads_that_say_the_truth_see_all_there_is_where_it_is() -> None:
    studies = (met(seed, "ct-head") for seed in range(20))
    study = next(one for one in studies if one.boxes[..., 4].any(dim=0).sum() == 1)
    truth = dense_labels(study.labels)
    _, edges, _ = edge_labels(truth, study.boxes)

    seen = {one.finding: one for one in glimpses(study, 30 * truth - 1, edges)}

    present = {FINDINGS[n] for n in study.boxes[..., 4].any(dim=0).nonzero()[:, 0].tolist()}
    assert {key for key, one in seen.items() if one.score > 0.5} == present
    assert {key for key, one in seen.items() if one.there} == present
    assert [seen[key].overlap for key in present] == [pytest.approx(1, abs=1e-4)]


def test_heads_that_see_nothing_are_no_better_than_saying_it_is_always_there() -> None:
    some = [Glimpse(finding="mass", score=0.5, there=n < 2, overlap=0.0) for n in range(8)]

    assert best_f1(some) == (2, 0, 6)


def test_the_threshold_is_that_with_the_best_f1() -> None:
    scores = [(0.9, True), (0.8, True), (0.7, False), (0.6, True), (0.1, False)]
    some = [Glimpse(finding="mass", score=score, there=there, overlap=0.0) for score, there in scores]

    assert best_f1(some) == (3, 0, 1)
