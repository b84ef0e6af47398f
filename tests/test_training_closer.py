"""Tests of `tools.training.closer`: what a close look is taught, and that it is what a reading shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from medmllm_plugin.findings import reply_schema
from medmllm_plugin.phantoms import KINDS, sample_study
from medmllm_plugin.phantoms.study import mask_box
from medmllm_plugin.transforms.slices import SlicePlan

sys.path.append(str(Path(__file__).parents[1]))  # `tools` is in the repository and not in the package
from tools.training import closer
from tools.training.closer import close_example
from tools.training.lessons import CLOSER, FINDINGS, LESSONS
from tools.training.stream import met

SIDE = 112

TAUGHT = [(kind, seed) for kind in LESSONS if LESSONS[kind].closer for seed in range(9)]


@pytest.mark.parametrize(("kind", "seed"), TAUGHT)
def test_an_example_is_a_sound_reply_to_pictures_of_a_close_look(kind: str, seed: int) -> None:
    one, known = close_example(LESSONS[kind], seed), KINDS[kind]

    count, rows, columns, colours = one.pictures.shape
    assert 1 <= count <= CLOSER
    assert (rows, columns, colours) == (SIDE, SIDE, 3)
    schema = reply_schema(pictures=count, findings=known.findings, sites=known.sites, box_limit=SIDE)
    Draft202012Validator(schema).validate(json.loads(one.target))
    for said in json.loads(one.target)["findings"]:
        number, index = said["box"]["picture"], FINDINGS.index(said["finding"])
        assert said["box"]["bbox_2d"] == [round(float(edge)) for edge in one.boxes[number - 1, index, :4]]
        assert one.labels[number - 1, ..., index].any()


@pytest.mark.parametrize("kind", [kind for kind in LESSONS if LESSONS[kind].closer])
def test_most_looks_show_what_they_were_taken_for_and_some_nothing(kind: str) -> None:
    said = [json.loads(close_example(LESSONS[kind], seed).target)["findings"] for seed in range(40)]

    assert 2 <= sum(not findings for findings in said) <= 14
    near = [bool({one["finding"] for one in findings} & set(LESSONS[kind].closer)) for findings in said]
    assert sum(near) >= 26


def test_the_box_taught_is_where_the_finding_is_in_the_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The box, taken back through the pictures, frames the mask on its image to a pixel and a half."""
    shown: list[Any] = []
    apply = SlicePlan.apply
    monkeypatch.setattr(
        SlicePlan, "apply", lambda self, volume: shown.append((volume, apply(self, volume))) or shown[-1][1]
    )
    tried = 0
    for seed in range(30):
        said = json.loads(close_example(LESSONS["ct-chest"], seed).target)["findings"]
        volume, slices = shown[-1]
        nodules = [one for one in said if one["finding"] == "nodule"]
        if not nodules or len(said) > 1:
            continue
        number, (left, top, right, bottom) = nodules[0]["box"]["picture"], nodules[0]["box"]["bbox_2d"]
        one = slices.picture(number)
        study = next(
            study
            for findings in (None, ("nodule",))
            if (
                study := sample_study(
                    kind="ct-chest",
                    seed=seed,
                    findings=findings,
                    slices=len(volume),
                    matrix=volume.planes[0].rows,
                )
            ).study
            == volume.study
        )
        k = next(k for k in range(study.slices) if study.source(k) == one.source)
        index = next(n for n, lesion in enumerate(study.lesions) if lesion.finding == "nodule")
        corners = one.to_source @ np.array([(left - 0.5, top - 0.5, 1), (right - 0.5, bottom - 0.5, 1)]).T
        found = corners[:2].T.ravel() + 0.5
        true = mask_box(study.masks(k)[index])
        if min(left, top) > 0 and max(right, bottom) < SIDE:
            np.testing.assert_allclose(found, true, atol=1.5)
            tried += 1
    assert tried >= 5


def test_the_same_seed_is_the_same_look() -> None:
    one, other = (met(3, "ct-head", closer=True) for _ in range(2))

    assert (one.pictures == other.pictures).all()
    assert one.target == other.target
    assert one.target != met(3, "ct-head").target


def test_a_finding_between_the_slices_of_a_coarse_scan_is_looked_for_in_a_finer_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(closer, "COARSE", (16, 64))
    found = [closer._twin(LESSONS["ct-chest"], seed, ("nodule",))[1] for seed in range(30)]

    assert all(len(one) == 1 for one in found)
