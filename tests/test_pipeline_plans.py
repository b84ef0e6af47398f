"""Which plan a study is read by, and how many pictures a server takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medmllm_plugin import pipeline
from medmllm_plugin.errors import (
    ModelError,
    SettingsError,
    TooManyPicturesError,
    TooManyTokensError,
)
from medmllm_plugin.models import Ask, PlanFor, Reply
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.transforms.recipes import RECIPES, settings_of
from medmllm_plugin.transforms.slices import SlicePlan
from tests.builders import write_ct_series
from tests.pipeline_models import a_model, an_answer
from tests.values import a_said_finding, a_said_reply, a_volume


@pytest.mark.parametrize(
    ("capabilities", "text", "count", "plan"),
    [
        ({"pictures": 64}, "count=7,crop=yes", None, SlicePlan(count=7, crop=True)),
        ({"pictures": 64, "plan": {"size": 112}}, "count=7", None, SlicePlan(count=7, size=112)),
        ({"pictures": 64, "plan": {"size": 112}}, "radfm", None, RECIPES["radfm"].plan),
        ({"pictures": 64}, "radfm", 5, replace(RECIPES["radfm"].plan, count=5)),
        ({"pictures": 64, "tokens": 4096}, "size=224", None, SlicePlan(size=224, tokens=4096)),
        ({"pictures": 64, "tokens": 4096}, "tokens=99", None, SlicePlan(tokens=99)),
        ({"pictures": 10}, "count=auto,tokens=4096", None, SlicePlan(count=10, tokens=4096)),
        ({"pictures": 64}, "count=auto,tokens=4096", None, SlicePlan(count=16, tokens=4096)),
    ],
)
def test_what_a_user_asks_for_stands_before_the_model_s_own_plan(
    capabilities: dict[str, Any], text: str, count: int | None, plan: SlicePlan
) -> None:
    model = a_model(**capabilities)

    assert pipeline.plan_for(model, a_volume(3), count=count, asked=settings_of(text)) == plan


def test_a_plan_that_is_none_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no setting is named 'slices'"):
        pipeline.read(tmp_path / "nowhere", plan="slices=3", model=a_model())


def test_a_study_is_read_by_the_plan_that_is_asked_for(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=9)

    reading = pipeline.read(
        tmp_path, plan="count=3,size=56,select=numbers:2/5/9", model=a_model(a_said_finding())
    )

    assert reading.report.provenance.slice_plan.startswith("3 of 9 slices, by number, longer side 56 px")


def test_a_window_for_ct_that_is_asked_for_is_not_left_out_silently() -> None:
    model = a_model(plan={"window": "ct"})
    plan = pipeline.plan_for(model, a_volume(3, modality="MR", unit=""), asked={"window": "ct-lung"})

    with pytest.raises(SettingsError, match="needs Hounsfield units"):
        plan.apply(a_volume(3, modality="MR", unit=""))


def test_a_ct_window_is_left_out_for_other_modalities() -> None:
    model = a_model(plan={"window": "ct", "size": 112})

    plan = pipeline.plan_for(model, a_volume(3, modality="MR", unit=""))

    assert plan == SlicePlan(size=112)


def test_a_plan_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^scripted: its slice plan .* is not one"):
        pipeline.plan_for(a_model(plan={"slices": 3}), a_volume(3))


PLANS = (
    PlanFor(names=("ct-chest", "CT"), plan={"size": 112}),
    PlanFor(names=("ct-head", "CT"), plan={"size": 140, "window": "ct-head"}),
    PlanFor(names=("DX", "CR"), plan={"count": 1}),
)


@pytest.mark.parametrize(
    ("modality", "phantom", "plans"),
    [
        ("CT", "ct-head", [SlicePlan(size=140, window="ct-head")]),
        ("CT", None, [SlicePlan(size=112), SlicePlan(size=140, window="ct-head")]),
        ("CR", "xr-chest", [SlicePlan(count=1)]),
        ("MR", None, [SlicePlan(size=56)]),
    ],
)
def test_a_model_may_have_a_plan_for_each_kind_of_study(
    modality: str, phantom: str | None, plans: list[SlicePlan]
) -> None:
    model = a_model(plan={"size": 56}, plans=PLANS)
    volume = a_volume(3, modality=modality, unit="HU" if modality == "CT" else "")
    volume = replace(volume, study=replace(volume.study, phantom=phantom))

    assert list(pipeline.plans_for(model, volume)) == plans
    assert pipeline.plan_for(model, volume) == plans[0]


class _Knows112(ScriptedModel):
    """A model that knows pictures of 112 px only."""

    def outside_domain(self, slices: SliceSet) -> str | None:
        return None if max(slices.picture(1).pixels.shape) == 112 else "They are not of 112 px."


@pytest.mark.parametrize(("sizes", "size"), [((56, 112, 140), 112), ((56, 84), 56), ((140,), 140)])
def test_of_several_plans_the_first_that_the_model_knows_is_shown(sizes: tuple[int, ...], size: int) -> None:
    plans = [SlicePlan(count=2, size=one) for one in sizes]

    slices = pipeline.shown_to(_Knows112([]), a_volume(3), plans=plans)

    assert max(slices.picture(1).pixels.shape) == size


class TakesFew(ScriptedModel):
    """Finds that pictures are too many only when it is asked, as a server does."""

    def __init__(self, *limits: ModelError, **settings: Any) -> None:
        super().__init__([a_said_reply(a_said_finding(pictures=[2]))] * 2, **settings)
        self.limits = list(limits)

    def replies(self, asks: Sequence[Ask], **given: Any) -> list[Reply]:
        if self.limits:
            raise self.limits.pop(0)
        return super().replies(asks, **given)


def test_a_server_that_takes_fewer_pictures_is_shown_fewer_and_the_report_says_so(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=20)
    model = TakesFew(TooManyPicturesError("server: at most 8 images", limit=8))

    reading = pipeline.read(tmp_path, model=model)

    assert len(model.asked[0].prompt.pictures) == len(reading.slices) == 8
    assert "8 pictures were shown instead of 20: server: at most 8 images" in reading.report.notes
    assert reading.report.coverage is not None
    assert (reading.report.coverage.slices_shown, reading.report.coverage.slices_total) == (8, 20)


@pytest.mark.parametrize(("found", "expected"), [(6400, 9), (None, 10)])
def test_a_prompt_beyond_the_context_is_shown_with_fewer_pictures(
    tmp_path: Path, found: int | None, expected: int
) -> None:
    write_ct_series(tmp_path, slices=20)  # 16 x 14 squares of 28 px each: 4480 tokens of pictures
    model = TakesFew(TooManyTokensError("too long", found=found, limit=4096))

    reading = pipeline.read(tmp_path, model=model)

    assert len(reading.slices) == expected


def test_the_next_question_is_asked_of_as_few_pictures(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=20)
    model = TakesFew(TooManyPicturesError("server: at most 8 images", limit=8))
    model._replies = [Reply(text=json.dumps(an_answer(one)), seconds=0) for one in ("Yes.", "There.")]

    readings = pipeline.read_each(tmp_path, questions=["A nodule?", "Where?"], model=model)

    assert [len(one.prompt.pictures) for one in model.asked] == [8, 8]
    for one in readings:
        assert any("8 pictures were shown instead of 20" in note for note in one.report.notes)


def test_a_strategy_shows_no_more_than_the_server_takes(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=40)
    model = TakesFew(TooManyPicturesError("server: at most 8 images", limit=8))

    reading = pipeline.read(tmp_path, model=model, strategy="zoom")

    assert [len(one.prompt.pictures) for one in model.asked] == [8, 3]
    assert len(reading.slices) == 11
    assert any("were shown instead of" in note for note in reading.report.notes)


def test_a_model_that_finds_any_number_too_many_fails_in_the_end(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=20)
    errors = [TooManyPicturesError(f"server: at most {n}", limit=n) for n in (16, 12, 8, 4)]

    with pytest.raises(TooManyPicturesError, match="at most 8"):
        pipeline.read(tmp_path, model=TakesFew(*errors))
    with pytest.raises(TooManyPicturesError, match="at most 0"):
        pipeline.read(tmp_path, model=TakesFew(TooManyPicturesError("at most 0", limit=0)))
