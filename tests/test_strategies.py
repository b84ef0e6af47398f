"""Tests of `medmllm_plugin.strategies`: ways of reading a study in several passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from medmllm_plugin.checklists import steps_for
from medmllm_plugin.errors import ReplyError, SettingsError
from medmllm_plugin.findings import Finding, Status
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.request import Request
from medmllm_plugin.strategies import Strategy
from medmllm_plugin.strategies.consistency import Consistency
from medmllm_plugin.strategies.merging import groups, medoid, numbered_on, same, told_apart
from medmllm_plugin.strategies.names import NAMES, strategy
from medmllm_plugin.strategies.organs import Organs
from medmllm_plugin.strategies.single import Single
from medmllm_plugin.strategies.zoom import Zoom
from tests.scripted_looks import a_box, a_model, a_request, keys, read
from tests.values import a_said_finding, a_said_reply, a_slice_set

TERSE = replace(ANYTHING, terse=True)


def findings(*said: dict[str, Any]) -> tuple[Finding, ...]:
    """As a model's reply to one look gives them."""
    return read(Single(), a_model(a_said_reply(*said))).parsed.findings


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
