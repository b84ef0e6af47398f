"""Tests of `medmllm_plugin.checks`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmllm_plugin import checks, engine
from medmllm_plugin.checks import after, before
from medmllm_plugin.findings import Box, Finding, Side, Status
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.parsing import Parsed
from medmllm_plugin.report import CheckResult, Diagnosis, Likelihood, Outcome
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.tasks import TASKS
from tests.values import a_said_finding, a_said_reply, a_slice_set, an_image


def a_finding(**changed: Any) -> Finding:
    """A nodule in the left lung, said in few words, without a box."""
    plain: dict[str, Any] = {
        "finding": "nodule",
        "site": "lung",
        "side": Side.LEFT,
        "status": Status.PRESENT,
        "sentence": "Nodule in the left lung.",
        "images": (an_image(1),),
        "pictures": (1,),
        "tracking_uid": "2.25.1",
    }
    return Finding(**{**plain, **changed})


def a_reading(*findings: Finding, impression: tuple[str, ...] = ("Nodule.",)) -> Parsed:
    return Parsed(findings=findings, narrative=(), impression=impression, notes=())


def a_body(*, size: int = 56) -> SliceSet:
    """An axial picture whose body lies in columns 8 to 47, the patient's left on its right."""
    shown = a_slice_set(1, size=size)
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[8:48, 8:48] = 200
    return replace(shown, slices=(replace(shown.slices[0], pixels=pixels),))


def failed(results: tuple[CheckResult, ...]) -> list[str]:
    return [one.name for one in results if not one.passed]


def test_each_check_says_that_it_was_made() -> None:
    shown = before(a_slice_set(2), outside=None)
    _, said = after(a_reading(a_finding()), a_slice_set(2))

    assert [one.name for one in shown] == [one.name for one in checks.BEFORE]
    assert [one.name for one in said] == [one.name for one in checks.AFTER]
    assert failed((*shown, *said)) == []
    assert all(one.message.endswith(".") for one in (*shown, *said))


def test_blank_pictures_are_named() -> None:
    shown = a_slice_set(3)
    first = replace(shown.slices[0], pixels=np.full_like(shown.slices[0].pixels, 7))

    some = before(replace(shown, slices=(first, *shown.slices[1:])), outside=None)
    every = before(replace(shown, slices=(first,) * 3), outside=None)

    assert (some[0].passed, some[0].message) == (True, "1 of 3 pictures are blank: 1.")
    assert (every[0].passed, every[0].message) == (False, "3 of 3 pictures are blank: 1, 2, 3.")


def test_a_model_is_not_asked_about_blank_pictures() -> None:
    shown, model = a_slice_set(1), ScriptedModel([])
    blank = replace(shown, slices=(replace(shown.slices[0], pixels=np.zeros_like(shown.slices[0].pixels)),))

    report = engine.run(TASKS["report"], blank, model)

    assert report.outcome is Outcome.NOT_ASSESSED
    assert model.asked == []
    assert report.findings == ()
    assert report.impression == ("Not assessed: the pictures are blank, so the model was not asked.",)
    assert report.heard == ()


def test_pictures_that_do_not_say_left_and_right_are_told() -> None:
    shown = before(a_slice_set(2, placed=False), outside=None)

    assert failed(shown) == ["oriented"]


def test_images_outside_the_domain_fail_with_the_reason() -> None:
    shown = before(a_slice_set(1), outside="These are not phantoms.")

    assert [one.message for one in shown if not one.passed] == ["These are not phantoms."]


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(Status.PRESENT, "No nodule in the left lung."), (Status.ABSENT, "There is a nodule in the left lung.")],
)
def test_a_sentence_against_its_code_makes_a_finding_indeterminate(status: Status, sentence: str) -> None:
    parsed, said = after(
        a_reading(a_finding(status=status, sentence=sentence), impression=()), a_slice_set(1)
    )

    assert failed(said) == ["words"]
    assert parsed.findings[0].status is Status.INDETERMINATE
    assert parsed.findings[0].side is Side.LEFT


@pytest.mark.parametrize(
    "sentence", ["Nodule or scar.", "No mass, nodule.", "The left lung.", "No longer any nodule."]
)
def test_a_sentence_that_is_not_plain_contradicts_nothing(sentence: str) -> None:
    parsed, said = after(a_reading(a_finding(sentence=sentence)), a_slice_set(1))

    assert failed(said) == []
    assert parsed.findings == (a_finding(sentence=sentence),)


def test_a_side_in_words_against_the_code_leaves_the_side_open() -> None:
    parsed, said = after(a_reading(a_finding(sentence="Nodule in the right lung.")), a_slice_set(1))

    assert failed(said) == ["side"]
    assert parsed.findings[0].side is Side.NONE
    assert parsed.findings[0].status is Status.INDETERMINATE


def test_both_sides_in_words_contradict_no_code() -> None:
    sentence = "Nodule in the left lung, the right is clear."

    _, said = after(a_reading(a_finding(sentence=sentence)), a_slice_set(1))

    assert failed(said) == []


@pytest.mark.parametrize(
    ("columns", "side", "agrees"),
    [
        ((40, 44), Side.LEFT, True),
        ((10, 14), Side.RIGHT, True),
        ((40, 44), Side.RIGHT, False),
        ((10, 14), Side.LEFT, False),
        ((29, 31), Side.RIGHT, True),
        ((24, 27), Side.LEFT, True),
    ],
)
def test_a_box_on_the_other_side_of_the_body_leaves_the_side_open(
    columns: tuple[int, int], side: Side, agrees: bool
) -> None:
    shown = a_body()
    left, top, right, bottom = shown.box_in_source(
        1, column_min=columns[0], row_min=20, column_max=columns[1], row_max=24
    )
    box = Box(
        picture=1,
        image=shown.slices[0].images[0],
        column_min=left,
        row_min=top,
        column_max=right,
        row_max=bottom,
    )

    parsed, said = after(a_reading(a_finding(box=box, side=side, sentence="Nodule.")), shown)

    assert failed(said) == ([] if agrees else ["place"])
    assert parsed.findings[0].side is (side if agrees else Side.NONE)


@pytest.mark.parametrize(
    ("words", "agrees"), [("12 mm", True), ("2.1 cm", False), ("1.4 cm", True), ("3 mm", False)]
)
def test_a_length_in_words_is_held_against_the_box(words: str, agrees: bool) -> None:
    finding = a_finding(size_mm=10.0, sentence=f"Nodule of {words}.")

    parsed, said = after(a_reading(finding), a_slice_set(1))

    assert failed(said) == ([] if agrees else ["number"])
    assert parsed.findings == (finding,)


def test_a_finding_said_twice_is_told() -> None:
    one, other = a_finding(), a_finding(side=Side.RIGHT, sentence="Nodule in the right lung.")

    _, said = after(a_reading(one, other, replace(one, tracking_uid="2.25.2")), a_slice_set(1))

    assert [(one.name, one.about) for one in said if not one.passed] == [("twice", 2)]


@pytest.mark.parametrize(
    "impression", ["No abnormality.", "No nodule.", "Pleural effusion on the right.", "Normal study."]
)
def test_an_impression_against_the_findings_is_told(impression: str) -> None:
    _, said = after(a_reading(a_finding(), impression=(impression,)), a_slice_set(1))

    assert failed(said) == ["impression"]


@pytest.mark.parametrize(
    "impression", ["Nodule.", "Left lung nodule; no pleural effusion.", "Possible mass.", "As above."]
)
def test_an_impression_that_fits_the_findings_passes(impression: str) -> None:
    _, said = after(a_reading(a_finding(), impression=(impression,)), a_slice_set(1))

    assert failed(said) == []


@pytest.mark.parametrize(
    "disclaimer",
    [
        "As an AI language model, I can't diagnose.",
        "Please consult a qualified radiologist.",
        "This is not medical advice.",
        "本结果仅供参考。",
    ],
)
def test_the_models_own_disclaimers_are_left_out(disclaimer: str) -> None:
    parsed, said = after(a_reading(a_finding(), impression=("Nodule.", disclaimer)), a_slice_set(1))

    assert failed(said) == ["disclaimers"]
    assert parsed.impression == ("Nodule.",)


def test_failed_checks_reach_the_report() -> None:
    said = a_said_finding(side="left", sentence="Nodule in the right lung.")

    report = engine.run(TASKS["report"], a_slice_set(3), ScriptedModel([a_said_reply(said)]))

    assert failed(report.checks) == ["side"]
    assert report.findings[0].side is Side.NONE
    assert report.outcome is Outcome.FINDINGS


@pytest.mark.parametrize(
    ("finding", "site", "impression"),
    [
        ("pleural_effusion", "pleura", "No right pleural effusion."),
        ("mass", "kidney", "No mass of the liver."),
        ("mass", "frontal_lobe", "No mass effect."),
        ("nodule", "lung", "No other nodules."),
        ("nodule", "lung", "Nodule without calcification."),
        ("nodule", "lung", "Lesion in the left lung."),
        ("pleural_effusion", "pleura", "Left effusion."),
        ("consolidation", "lung", "Findings consistent with pneumonia."),
    ],
)
def test_an_impression_that_agrees_raises_no_alarm(finding: str, site: str, impression: str) -> None:
    reading = a_reading(a_finding(finding=finding, site=site, sentence="Seen."), impression=(impression,))

    _, results = after(reading, a_slice_set(2))

    assert failed(results) == []


@pytest.mark.parametrize("impression", ["No nodule.", "No left nodule.", "Left effusion.", "未见结节。"])
def test_an_impression_that_disagrees_raises_an_alarm(impression: str) -> None:
    _, results = after(a_reading(a_finding(), impression=(impression,)), a_slice_set(2))

    assert failed(results) == ["impression"]


def test_an_impression_may_name_what_the_sentence_of_a_finding_names() -> None:
    sentence = "Rounded mass with oedema in the left frontal lobe."
    mass = a_finding(finding="mass", site="frontal_lobe", sentence=sentence)

    _, said = after(a_reading(mass, impression=(sentence,)), a_slice_set(2))
    _, of_another = after(
        a_reading(replace(mass, sentence="A mass."), impression=(sentence,)), a_slice_set(2)
    )

    assert [one.passed for one in said if one.name == "impression"] == [True]
    assert [one.passed for one in of_another if one.name == "impression"] == [False]


def test_an_impression_that_states_what_is_indeterminate_raises_an_alarm() -> None:
    doubted = a_finding(status=Status.INDETERMINATE, sentence="Possible nodule in the left lung.")

    _, plain = after(a_reading(doubted, impression=("Nodule.",)), a_slice_set(2))
    _, careful = after(a_reading(doubted, impression=("Possible nodule.",)), a_slice_set(2))

    assert failed(plain) == ["impression"]
    assert failed(careful) == []


def test_a_differential_may_name_what_is_no_finding() -> None:
    named = Diagnosis(
        name="Glioblastoma", likelihood=Likelihood.HIGH, why="Edema.", images=(an_image(1),), pictures=(1,)
    )
    reading = replace(
        a_reading(a_finding(), impression=("Glioblastoma (high): edema.",)), differential=(named,)
    )

    _, results = after(reading, a_slice_set(2))

    assert failed(results) == []


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    spread=st.sampled_from([0.0, 0.4, 0.9, 1.1, 3.0, 40.0]),
    grey=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_picture_is_blank_by_the_spread_of_all_its_pixels(
    shape: tuple[int, int], spread: float, grey: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(128, spread, (*shape, 1 if grey else 3)).clip(0, 255).astype(np.uint8)
    pixels = np.broadcast_to(values, (*shape, 3)) if grey else values

    assert checks._is_blank(pixels) == (float(pixels.std(axis=(0, 1)).max()) < checks.BLANK)
