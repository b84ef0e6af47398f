"""Answers by parsing: what substring search gets wrong, and what has no answer."""

from __future__ import annotations

import pytest

from medmllm_plugin.evaluation.answers import chosen, contained, exact, named, token_scores, yes_or_no

LUNGS = {"A": "left lung", "B": "right lung", "C": "both lungs", "D": "No abnormality"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes, there is a nodule", "yes"),
        ("yes.", "yes"),
        ("**Yes** - the nodule is not calcified", "yes"),
        ("No. Yesterday's film showed one.", "no"),
        ("No, but there is a known mass", "no"),
        ("There is no evidence of effusion", "no"),
        ("There is an abnormality in the north of the lung", "yes"),
        ("The answer is: No", "no"),
        ("Answer: yes", "yes"),
        (r"The lungs are clear, so \boxed{no}", "no"),
        ("<think>is it? yes, no</think> <answer>No</answer>", "no"),
        ("Unclear.", "unclear"),
        ("It cannot be determined from this image", "unclear"),
        ("I am not sure", "unclear"),
        ("The heart is enlarged", None),
        ("Normal", None),
        ("", None),
        ("Nodule", None),
        ("Noticeable effusion", None),
        ("是", "yes"),
        ("否。", "no"),
        ("不是", "no"),
        ("不确定", "unclear"),
        ("对比增强扫描", None),
    ],
)
def test_yes_and_no_are_parsed_and_never_searched_for_in_words(text: str, said: str | None) -> None:
    assert yes_or_no(text) == said


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b.", "B"),
        ("(B)", "B"),
        ("B) right lung", "B"),
        ("B: right lung", "B"),
        ("The answer is B", "B"),
        ("Option C is correct", "C"),
        (r"\boxed{A}", "A"),
        ("right lung", "B"),
        ("In the RIGHT LUNG.", "B"),
        ("It is not the right lung", None),
        ("A nodule is seen", None),
        ("left lung or right lung", None),
        ("no abnormality", "D"),
        ("the spleen", None),
        ("", None),
    ],
)
def test_a_choice_is_taken_by_letter_or_text_and_never_guessed(text: str, letter: str | None) -> None:
    assert chosen(text, LUNGS) == letter


def test_the_longer_choice_wins_where_it_holds_the_shorter() -> None:
    choices = {"A": "edema", "B": "pulmonary edema"}

    assert chosen("This is pulmonary edema.", choices) == "B"


def test_several_choices_are_named_by_letters_or_words() -> None:
    choices = ["left hilum", "right hilum", "no selection"]

    assert named("A and B", choices) == {0, 1}
    assert named("the left hilum and the right hilum", choices) == {0, 1}
    assert named("nothing of these", choices) == frozenset()


@pytest.mark.parametrize(
    ("text", "gold", "same"),
    [
        ("The left lung.", "left lung", True),
        ("Posterior-Anterior", "PA", True),
        ("X-ray", "xray", True),
        ("Magnetic resonance imaging", "MRI", True),
        ("two", "2", True),
        ("left", "left lung", False),
        ("right lung", "left lung", False),
    ],
)
def test_answers_are_the_same_in_normal_form(text: str, gold: str, same: bool) -> None:
    assert exact(text, gold) is same


@pytest.mark.parametrize(
    ("text", "gold", "says"),
    [
        ("It is in the right lung", "right lung", True),
        ("There is no fracture", "fracture", False),
        ("fracture or dislocation", "fracture", False),
        ("Not without contrast, I think", "without contrast", False),
        (" ".join(["word"] * 40) + " fracture", "fracture", False),
    ],
)
def test_a_short_answer_may_say_a_little_more_and_must_not_deny(text: str, gold: str, says: bool) -> None:
    assert contained(text, gold) is says


def test_token_scores_are_what_they_are_called() -> None:
    scores = token_scores("left lower lung", "left lung")

    assert scores["token_precision"] == pytest.approx(2 / 3)
    assert scores["token_recall"] == 1
    assert scores["token_f1"] == pytest.approx(0.8)
    assert token_scores("", "left lung") == {"token_precision": 0, "token_recall": 0, "token_f1": 0}
