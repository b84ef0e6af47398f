"""Tests of `medmllm_plugin.strategies`: ways of reading a study in several passes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medmllm_plugin import registry
from medmllm_plugin.checklists import steps_for
from medmllm_plugin.codes import site
from medmllm_plugin.errors import CancelledError, ReplyError, SettingsError
from medmllm_plugin.findings import Change, Finding, Side, Status
from medmllm_plugin.models import Model
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.request import Request
from medmllm_plugin.sliceset import SliceSet, joined
from medmllm_plugin.strategies import Looked, Strategy, View
from medmllm_plugin.strategies.consistency import Consistency
from medmllm_plugin.strategies.merging import groups, medoid, numbered_on, same, told_apart
from medmllm_plugin.strategies.names import NAMES, strategy
from medmllm_plugin.strategies.organs import Organs
from medmllm_plugin.strategies.single import Single
from medmllm_plugin.strategies.zoom import NOTHING, Zoom
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.views import views_of
from tests.tiny_model import tiny_folder
from tests.values import a_said_finding, a_said_reply, a_slice_set, a_volume

TERSE = replace(ANYTHING, terse=True)


def a_box(picture: int = 1, left: int = 10, top: int = 10, side: int = 20) -> dict[str, Any]:
    return {"picture": picture, "bbox_2d": [left, top, left + side, top + side]}


def a_model(*replies: Any, **capabilities: Any) -> ScriptedModel:
    return ScriptedModel(replies, capabilities=replace(ANYTHING, **capabilities))


def a_request(slices: SliceSet | None = None, *, task: str = "report", **asked: Any) -> Request:
    return Request(task=TASKS[task], slices=slices or a_slice_set(5), **asked)


def read(way: Strategy, model: ScriptedModel, request: Request | None = None, **given: Any) -> Looked:
    return way.read(request or a_request(), model, **given)


def findings(*said: dict[str, Any]) -> tuple[Finding, ...]:
    """As a model's reply to one look gives them."""
    return read(Single(), a_model(a_said_reply(*said))).parsed.findings


def keys(looked: Looked) -> list[tuple[str, str]]:
    return [(one.finding, one.status.value) for one in looked.parsed.findings]


@pytest.mark.parametrize("spec", ["single", "zoom", "organs", "organs:chest", "consistency:7"])
def test_each_strategy_is_found_again_by_its_name(spec: str) -> None:
    found = strategy(spec)

    assert found.name == spec
    assert strategy(found.name) == found


def test_each_strategy_has_a_name_and_says_what_it_does() -> None:
    assert [strategy(name).name.partition(":")[0] for name in NAMES] == list(NAMES)
    assert all(strategy(name).summary for name in NAMES)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("guess", "no strategy is named 'guess'; there are: single, zoom, organs, consistency"),
        ("single:3", "takes no argument"),
        ("consistency:many", "found 'many' samples"),
        ("consistency:1", "1 samples were asked for, expected 2 to 32"),
        ("consistency:99", "expected 2 to 32"),
    ],
)
def test_what_is_no_strategy_is_refused(spec: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        strategy(spec)


def test_samples_at_temperature_0_are_refused_as_all_are_the_same() -> None:
    with pytest.raises(SettingsError, match="at 0 all are the same"):
        Consistency(temperature=0)


def test_findings_of_one_kind_are_the_same_where_their_boxes_are() -> None:
    near, far, other = findings(
        a_said_finding(box=a_box(left=12)),
        a_said_finding(box=a_box(left=36, side=8)),
        a_said_finding(side="right", box=a_box(left=12)),
    )
    (one,) = findings(a_said_finding(box=a_box()))
    (unplaced,) = findings(a_said_finding())

    assert same(one, near)
    assert not same(one, far)
    assert not same(one, other)
    assert same(one, unplaced)


def test_two_lesions_of_one_reply_stay_two() -> None:
    two = findings(a_said_finding(box=a_box()), a_said_finding(box=a_box(left=12)))
    (again,) = findings(a_said_finding(box=a_box(left=13)))

    found = groups([two, [again]])

    assert [[number for number, _ in group] for group in found] == [[0], [0, 1]]


def test_the_medoid_is_the_box_in_the_middle() -> None:
    boxed = findings(*(a_said_finding(box=a_box(left=left)) for left in (2, 10, 11, 30)), a_said_finding())

    assert medoid(boxed) is boxed[1]


def test_tracking_uids_that_clash_are_told_apart() -> None:
    (one,) = findings(a_said_finding())

    first, second, third = told_apart([one, one, one])

    assert first is one
    assert len({first.tracking_uid, second.tracking_uid, third.tracking_uid}) == 3
    assert told_apart([one, one, one]) == (first, second, third)


def test_numbers_of_pictures_move_with_their_boxes_and_priors() -> None:
    (one,) = findings(a_said_finding(pictures=[2], box=a_box(2)))

    moved = numbered_on(replace(one, prior_pictures=(6,)), 24, 10)

    assert moved.box is not None
    assert (moved.pictures, moved.box.picture, moved.prior_pictures) == ((26,), 26, (16,))


def test_one_look_takes_the_reply_as_it_is() -> None:
    model = a_model(a_said_reply(a_said_finding()))

    looked = read(Single(), model)

    assert keys(looked) == [("nodule", "present")]
    assert [one.purpose for one in looked.heard] == ["report"]


def test_what_most_samples_see_is_kept_with_the_share_that_did() -> None:
    nodule, mass = a_said_finding(box=a_box()), a_said_finding(finding="mass", side="right")
    model = a_model(
        a_said_reply(nodule, mass),
        a_said_reply(nodule),
        a_said_reply(a_said_finding(box=a_box(left=14))),
        a_said_reply(),
        a_said_reply(a_said_finding(status="absent")),
    )

    looked = read(Consistency(samples=5), model)

    (kept,) = looked.parsed.findings
    assert (kept.finding, kept.status, kept.agreement) == ("nodule", Status.PRESENT, 0.6)
    assert "left out mass, lung, right: 1 of 5 samples saw it" in looked.notes
    assert [one.sentence for one in looked.parsed.narrative] == ["A nodule."]


def test_samples_differ_by_seed_and_are_drawn() -> None:
    model = a_model(*[a_said_reply()] * 3)

    read(Consistency(samples=3, temperature=0.9), model, a_request(seed=7))

    assert [(one.seed, one.temperature) for one in model.asked] == [(7, 0.9), (8, 0.9), (9, 0.9)]


def test_half_of_the_samples_are_not_most() -> None:
    model = a_model(a_said_reply(a_said_finding()), a_said_reply())

    looked = read(Consistency(samples=2), model)

    assert looked.parsed.findings == ()
    assert any("1 of 2 samples saw it" in note for note in looked.notes)


def test_what_most_see_but_not_surely_is_indeterminate() -> None:
    sure, unsure = a_said_finding(), a_said_finding(status="indeterminate")
    model = a_model(a_said_reply(sure), a_said_reply(unsure), a_said_reply())

    (kept,) = read(Consistency(samples=3), model).parsed.findings

    assert (kept.status, kept.agreement) == (Status.INDETERMINATE, 0.6667)


def test_what_most_say_but_not_at_one_place_is_kept_once() -> None:
    places = [a_said_reply(a_said_finding(box=a_box(left=left, side=4))) for left in (1, 20, 22, 44)]
    model = a_model(*places, a_said_reply())

    looked = read(Consistency(samples=5), model)

    (kept,) = looked.parsed.findings
    assert kept.box is not None
    assert (kept.agreement, kept.status) == (0.8, Status.PRESENT)
    assert 19 < kept.box.column_min < 23
    assert "nodule, lung, left: most samples say it, but not at one place" in looked.notes


def test_the_impression_is_that_of_the_sample_nearest_to_what_was_kept() -> None:
    nodule, mass = a_said_finding(), a_said_finding(finding="mass")
    model = a_model(
        a_said_reply(nodule, mass, impression=["Nodule and mass."]),
        a_said_reply(nodule, impression=["A nodule."]),
        a_said_reply(nodule, impression=["Also a nodule."]),
    )

    looked = read(Consistency(samples=3), model)

    assert looked.parsed.impression == ("A nodule.",)
    assert looked.heard[-1].text == model._replies[1].text
    assert len(looked.heard) == 3


def test_samples_that_can_not_be_used_do_not_count() -> None:
    said = a_said_reply(a_said_finding())
    model = a_model(said, said, "half {", "half again {")

    looked = read(Consistency(samples=3), model)

    assert looked.parsed.findings[0].agreement == 1.0
    assert "1 of 3 samples could not be used and don't count" in looked.notes
    with pytest.raises(ReplyError, match="1 of 3 samples can be used, expected 2 at least"):
        read(Consistency(samples=3), a_model(said, *["{"] * 4))


def test_the_answer_is_that_of_most_samples() -> None:
    def says(choice: str) -> dict[str, Any]:
        answer = {"choice": choice, "pictures": [1], "text": f"I say {choice}."}
        return {"abnormal_pictures": [], "findings": [], "answer": answer}

    model = a_model(says("no"), says("yes"), says("yes"))

    looked = read(Consistency(samples=3), model, a_request(task="question", question="Effusion?"))

    assert looked.parsed.answer is not None
    assert looked.parsed.answer.text == "I say yes."
    assert "the answer was given by 2 of 3 samples" in looked.notes


def test_each_organ_is_asked_about_on_the_same_pictures() -> None:
    model = a_model(*[a_said_reply()] * 99)

    looked = read(Organs(region="chest"), model)

    beginnings = {one.prompt.text.split("<image_5>")[0] for one in model.asked}
    assert len(model.asked) > 3
    assert len(beginnings) == 1
    assert len({one.prompt.text for one in model.asked}) == len(model.asked)
    assert looked.notes[0].startswith(f"read organ by organ (chest) in {len(model.asked)} steps: ")
    assert looked.parsed.impression[0].startswith("No abnormality was reported of: ")


def a_region(name: str) -> dict[str, Any]:
    return {"modality": {"modality": "ct", "plane": "axial", "region": name}}


def steps_with(site: str) -> list[int]:
    return [number for number, step in enumerate(steps_for("CT")) if site in step.sites]


def test_a_finding_of_two_steps_is_stated_once() -> None:
    first, second, *_ = steps_with("thoracic_spine")
    fracture = a_said_finding(finding="fracture", site="thoracic_spine", side="none")
    replies = [a_said_reply() for _ in steps_for("CT")]
    replies[first] = a_said_reply({**fracture, "status": "absent"})
    replies[second] = a_said_reply(fracture, impression=["A fracture."])
    model = a_model(a_region("entire_body"), *replies)

    looked = read(Organs(), model)

    assert keys(looked) == [("fracture", "present")]
    assert looked.parsed.impression[0] == "A fracture."
    assert "findings given in more than one step are stated once: 1" in looked.notes


def test_an_organ_without_a_usable_reply_is_said_not_to_be_assessed() -> None:
    steps = steps_for("CT", region="chest")
    nodule = a_said_reply(a_said_finding(), impression=["A nodule."])
    first = [nodule, "{", *[a_said_reply() for _ in steps[2:]]]

    looked = read(Organs(region="chest"), a_model(*first, "{"))

    assert looked.parsed.impression[0] == "A nodule."
    assert looked.parsed.impression[-1] == f"Not assessed, as the reply could not be used: {steps[1].name}."
    assert any("gave no usable reply: these organs were not assessed" in note for note in looked.notes)


def test_nothing_found_is_not_said_where_not_all_was_assessed() -> None:
    steps = steps_for("CT", region="chest")
    first = [a_said_reply(), "{", *[a_said_reply() for _ in steps[2:]]]

    with pytest.raises(ReplyError, match="can't be used"):
        read(Organs(region="chest"), a_model(*first, "{"))


def test_what_a_strategy_adds_is_said_in_the_language_of_the_request() -> None:
    steps = steps_for("CT", region="chest")
    model = a_model(*[a_said_reply(impression=["无异常。"])] * len(steps), languages=("en", "zh"))

    looked = read(Organs(region="chest"), model, a_request(language="zh"))

    assert looked.parsed.impression[0].startswith("以下部位未报告异常：肺、")


def test_the_organs_are_those_of_the_part_of_the_body_that_the_model_sees() -> None:
    model = a_model(a_region("chest"), *[a_said_reply()] * 99)

    looked = read(Organs(), model)

    assert len(model.asked) == 1 + len(steps_for("CT", region="chest"))
    assert looked.notes[0].startswith("read organ by organ (chest) in ")
    assert [one.purpose for one in looked.heard[:2]] == ["part of the body", "organ"]


@pytest.mark.parametrize(
    ("way", "request_", "capabilities", "words"),
    [
        (Organs(), a_request(), TERSE, "trained on one short prompt"),
        (Organs(), a_request(task="question", question="Why?"), ANYTHING, "asks one thing"),
        (Organs(), a_request(a_slice_set(2, modality="XX", unit="")), ANYTHING, "no checklist for XX"),
        (Zoom(), a_request(), TERSE, "can't look closer"),
        (Zoom(), a_request(), ANYTHING, "only pictures of them are given"),
    ],
)
def test_what_a_strategy_can_not_do_is_refused_in_a_line(
    way: Strategy, request_: Request, capabilities: Any, words: str
) -> None:
    model = ScriptedModel([a_said_reply()], capabilities=capabilities)

    with pytest.raises(SettingsError, match=words):
        way.read(request_, model)

    assert model.asked == []


def a_view(slices: int = 40, **volume: Any) -> tuple[View, list[Mapping[str, Any]]]:
    """A volume to look at again, and what is asked of it."""
    asked: list[Mapping[str, Any]] = []
    views = views_of(a_model(), a_volume(slices, rows=112, columns=112, **volume))

    def view(settings: Mapping[str, Any]) -> SliceSet:
        asked.append(settings)
        return views.again(settings)

    return view, asked


def test_zoom_looks_at_everything_small_and_then_at_what_stood_out() -> None:
    view, asked = a_view(40)
    model = a_model(
        a_said_reply(a_said_finding(pictures=[9, 10], box=a_box(10))),
        a_said_reply(a_said_finding(pictures=[2], box=a_box(2, 40, 40), sentence="Close.")),
    )

    looked = read(Zoom(), model, view=view)

    overview, close = (len(one.prompt.pictures) for one in model.asked)
    assert (overview, close) == (40, 4)
    assert asked[1]["window"] == "ct-lung"
    (finding,) = looked.parsed.findings
    assert finding.box is not None
    assert (finding.sentence, finding.pictures, finding.box.picture) == ("Close.", (42,), 42)
    assert looked.request.slices.picture(42).source == finding.images[0] == finding.box.image
    assert [one.purpose for one in looked.heard] == ["overview", "close look"]
    assert looked.notes[0] == "read as an overview of 40 pictures and 1 close look at 4 slices"


def test_each_window_has_a_close_look_of_its_own() -> None:
    view, asked = a_view(20)
    fracture = a_said_finding(finding="fracture", site="rib", pictures=[15])
    model = a_model(
        a_said_reply(a_said_finding(pictures=[3]), fracture),
        a_said_reply(a_said_finding(pictures=[1])),
        a_said_reply({**fracture, "pictures": [2]}),
    )

    looked = read(Zoom(), model, view=view)

    assert [one.get("window") for one in asked] == [None, "ct-lung", "ct-bone"]
    assert [(one.finding, one.pictures) for one in looked.parsed.findings] == [
        ("nodule", (21,)),
        ("fracture", (25,)),
    ]
    assert len({one.tracking_uid for one in looked.parsed.findings}) == 2


def test_what_the_close_look_does_not_confirm_is_left_out_and_told() -> None:
    view, _ = a_view(20)
    model = a_model(a_said_reply(a_said_finding(pictures=[3])), a_said_reply())

    looked = read(Zoom(), model, view=view)

    assert looked.parsed.findings == ()
    assert "left out nodule, lung, left: seen in the overview, but not at full size" in looked.notes


def test_what_could_not_be_looked_at_closely_is_kept_and_marked() -> None:
    view, _ = a_view(60)
    many = [a_said_finding(pictures=[n], side=side) for n, side in ((1, "left"), (50, "right"))]
    model = a_model(a_said_reply(*many), a_said_reply({**many[0], "pictures": [1]}), pictures=1)
    slices = SlicePlan(count=60, size=56).apply(a_volume(60))

    looked = read(Zoom(own_overview=False), model, a_request(slices), view=view)

    assert [(one.side, one.pictures) for one in looked.parsed.findings] == [
        (Side.LEFT, (61,)),
        (Side.RIGHT, (50,)),
    ]
    assert "nodule, lung, right was seen in the overview only, not at full size" in looked.notes
    assert looked.parsed.impression[-1] == "Seen in the overview only: nodule (lung, right)."


def test_of_a_slab_all_slices_are_looked_at_closely() -> None:
    volume = a_volume(20, rows=112, columns=112, step=2.0)
    views = views_of(a_model(), volume, asked={"slab_mm": 10.0})
    model = a_model(a_said_reply(a_said_finding(pictures=[2])), a_said_reply())

    looked = read(Zoom(own_overview=False), model, a_request(views.slices), view=views.again)

    assert [len(one.prompt.pictures) for one in model.asked] == [4, 7]
    assert "left out nodule, lung, left: seen in the overview, but not at full size" in looked.notes


def test_pictures_marked_without_a_finding_are_looked_at_too() -> None:
    view, asked = a_view(20)
    model = a_model(a_said_reply(abnormal_pictures=[7]), a_said_reply())

    read(Zoom(), model, view=view)

    assert [len(one.prompt.pictures) for one in model.asked] == [20, 3]
    assert "window" not in asked[1]


def test_where_nothing_stands_out_there_is_no_second_look() -> None:
    view, _ = a_view(20)
    model = a_model(a_said_reply())

    looked = read(Zoom(), model, view=view)

    assert looked.notes[-1] == NOTHING
    assert len(looked.request.slices) == 20


def test_a_model_of_few_pictures_gets_its_overview_as_montages() -> None:
    view, _ = a_view(40)
    model = a_model(
        a_said_reply(a_said_finding(pictures=[2], box=a_box(2, 300, 300))), a_said_reply(), pictures=8
    )

    looked = read(Zoom(), model, view=view)

    first, close = (len(one.prompt.pictures) for one in model.asked)
    assert (first, close) == (5, 3)
    assert len(looked.request.slices.shown) == 40 + 3


def test_a_close_look_without_a_usable_reply_takes_nothing_away() -> None:
    view, _ = a_view(20)
    model = a_model(a_said_reply(a_said_finding(pictures=[3])), "{", "{")

    looked = read(Zoom(), model, view=view)

    assert keys(looked) == [("nodule", "present")]
    assert "1 of 1 close looks gave no usable reply and don't count" in looked.notes


def test_one_question_has_one_close_look_and_its_answer() -> None:
    view, asked = a_view(20)

    def says(text: str, *said: dict[str, Any]) -> dict[str, Any]:
        answer = {"choice": "yes", "pictures": [1], "text": text}
        return {"abnormal_pictures": [], "findings": list(said), "answer": answer}

    rib = a_said_finding(finding="fracture", site="rib", pictures=[15])
    model = a_model(says("Perhaps.", a_said_finding(pictures=[3]), rib), says("Yes."))

    looked = read(Zoom(), model, a_request(task="question", question="A nodule?"), view=view)

    assert len(asked) == 2
    assert looked.parsed.answer is not None
    assert (looked.parsed.answer.text, looked.parsed.answer.pictures) == ("Yes.", (21,))


def test_priors_ride_along_and_their_numbers_follow_all_pictures() -> None:
    view, _ = a_view(20)
    said = a_said_finding(pictures=[3], change="unchanged", prior_pictures=[21])
    close = a_said_finding(pictures=[1], change="unchanged", prior_pictures=[5])
    model = a_model(a_said_reply(said), a_said_reply(close))
    request = a_request(task="compare", priors=(a_slice_set(2),))

    looked = read(Zoom(), model, request, view=view)

    (finding,) = looked.parsed.findings
    assert finding.change is Change.UNCHANGED
    assert looked.request.pictures == 20 + 3 + 2
    assert finding.prior_pictures == (25,)


def test_passes_are_told_and_can_be_stopped() -> None:
    view, _ = a_view(20)
    model = a_model(a_said_reply(a_said_finding(pictures=[3])), a_said_reply())
    told: list[tuple[int, int, int, int]] = []

    with pytest.raises(CancelledError):
        read(Zoom(), model, view=view, progress=lambda *one: told.append(one), cancel=lambda: bool(told))

    assert [one[:2] for one in told] == [(1, 2)]
    assert len(model.asked) == 1


def test_slice_sets_of_several_studies_are_not_joined() -> None:
    other = a_slice_set(2)
    other = replace(other, study=replace(other.study, study_instance_uid="9.9"))

    with pytest.raises(ValueError, match="one study"):
        joined([a_slice_set(2), other])


class Knows:
    """A real model that knows few findings and sites, of which any contradicts no other."""

    def __init__(self, model: Model) -> None:
        self._model = model
        steps = steps_for("CT", region="chest")
        sites = tuple(
            key for step in steps for key in step.sites if len(site(key).allowed_sides) == len(Side)
        )
        self.capabilities = replace(model.capabilities, findings=("lesion",), sites=sites)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@pytest.mark.parametrize("spec", ["zoom", "organs:chest", "consistency:3"])
def test_a_real_model_can_be_asked_in_each_way(spec: str) -> None:
    model: Any = Knows(registry.open_model(str(tiny_folder())))
    volume = a_volume(6, values=lambda k: np.full((56, 56), 100 * k, np.float32))
    views = views_of(model, volume, count=6)
    told: list[tuple[int, int]] = []

    looked = strategy(spec).read(
        a_request(views.slices), model, view=views.again, progress=lambda n, of, *_: told.append((n, of))
    )

    assert told
    assert max(told) == ((2, 2) if spec == "zoom" else (1, 1))
    assert looked.parsed.impression
    assert len(looked.heard) >= 2
    assert all(json.loads(one.text)["impression"] for one in looked.heard)
