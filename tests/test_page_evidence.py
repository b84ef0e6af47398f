"""Tests of `medmllm_plugin.page_evidence`: answer, differential, coverage, checks and trials on the page."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from medmllm_plugin.console import report_lines
from medmllm_plugin.findings import Effect, StatusProbabilities, Trial, TrialResult
from medmllm_plugin.page import render
from medmllm_plugin.report import Answer, CheckResult, Coverage, Diagnosis, Heard, Likelihood, Report
from medmllm_plugin.sliceset import SliceSet
from tests.page_reports import Parsed, a_finding, a_report, a_set, a_slice
from tests.test_page_alone import HOSTILE

SLICES = a_set()


def a_full_report(words: str = "Words.") -> Report:
    """All that can stand in a report besides its findings, each text being `words`."""
    image = SLICES.picture(2).images
    finding = a_finding(
        SLICES,
        image_supported=False,
        agreement=0.6,
        probabilities=StatusProbabilities(present=0.71, absent=0.2, indeterminate=0.09),
        trials=(
            TrialResult(trial=Trial.MASKED, effect=Effect.KEPT, certainty=0.9),
            TrialResult(trial=Trial.MIRRORED, effect=Effect.FLIPPED),
        ),
        prior_pictures=(4,),
    )
    return a_report(
        finding,
        question=words,
        answer=Answer(text=words, choice=words, certainty=0.83, why=words, images=image, pictures=(2,)),
        differential=(
            Diagnosis(name=words, likelihood=Likelihood.HIGH, why=words, images=image, pictures=(2,)),
            Diagnosis(name=words, likelihood=Likelihood.LOW, why=words),
        ),
        coverage=Coverage(slices_shown=3, slices_total=30, share=0.42, smallest_mm=5.0, words=words),
        checks=(
            CheckResult(name="side", passed=False, message=words, about=0),
            CheckResult(name="words", passed=True, message=words),
        ),
        heard=(
            Heard(purpose=words, prompt_sha256="ab", text=words, seconds=1.25),
            Heard(purpose=words, prompt_sha256="cd", text=words, seconds=0.5),
        ),
    )


PRIOR = replace(SLICES, slices=(a_slice(k=9),), days_before=365)


def shown(report: Report, priors: tuple[SliceSet, ...] = (PRIOR,)) -> Parsed:
    return Parsed(render(report, SLICES, priors=priors))


@pytest.mark.parametrize(
    "words",
    [
        "certainty 83 %",
        "present 71 %, absent 20 %",
        "in 60 % of them",
        "with its pictures covered: still there (90 %); with left and right exchanged: on the other side",
        "not supported",
        "1 passed",
        "2 raw replies",
        "1. Words., 1.2 s",
        "Picture 4 of the prior study",
        "The picture of the prior study, 365 days before",
        "Picture 2 of 3",
    ],
)
def test_the_page_tells_all_that_a_report_knows(words: str) -> None:
    assert words in re.sub(r"\s+", " ", shown(a_full_report()).words)


def test_a_report_that_knows_none_of_it_shows_none_of_it() -> None:
    words = shown(a_report(a_finding(SLICES)), priors=()).words

    for heading in ("Answer", "Differential diagnosis", "What the model saw", "Checks", "prior study"):
        assert heading not in words


def test_checks_that_all_passed_say_so() -> None:
    report = a_report(checks=(CheckResult(name="side", passed=True, message="Passed."),))

    words = shown(report).words

    assert "All checks passed." in words
    assert "Passed." in words


def a_report_that_concludes(*impression: str) -> Report:
    answer = Answer(text="No effusion is seen.", choice=None)
    cancer = Diagnosis(name="lung cancer", likelihood=Likelihood.HIGH, why="spiculated")
    return a_report(question="Effusion?", answer=answer, differential=(cancer,), impression=impression)


def test_what_the_answer_and_the_differential_say_is_no_impression_too() -> None:
    report = a_report_that_concludes(
        "No effusion is seen.", "Lung cancer is likely: lung cancer (high): spiculated.", "As before."
    )

    page, lines = shown(report).words, "\n".join(report_lines(report, SLICES, files={}))

    for words in (page, lines):
        assert words.count("No effusion is seen.") == 1
        assert words.count("spiculated") == 1
        assert words.count("As before.") == 1


def test_an_impression_that_only_repeats_has_no_heading() -> None:
    report = a_report_that_concludes("No effusion is seen.")

    assert "Impression" not in shown(report).words
    assert "Impression" not in list(report_lines(report, SLICES, files={}))


def test_how_much_was_seen_is_told_once() -> None:
    said = "12 of 48 images were shown, 25 % of the volume."
    seen = Coverage(slices_shown=12, slices_total=48, share=0.25, smallest_mm=None, words=said)

    page = shown(a_report(coverage=seen))

    assert re.sub(r"\s+", " ", page.words).count("of the volume") == 1
    assert "25%" not in page.words


def test_foreign_text_stays_text() -> None:
    plain, hostile = shown(a_full_report()), shown(a_full_report(HOSTILE))

    assert Counter(tag for tag, _ in hostile.tags) == Counter(tag for tag, _ in plain.tags)
    assert "<script>alert(1)</script>" in hostile.words


def test_links_lead_somewhere() -> None:
    page = shown(a_full_report())

    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert {"#finding-1", "#picture-2", "#picture-4"} <= links
    assert {link.removeprefix("#") for link in links} <= targets


def test_a_terminal_is_told_the_same_in_lines() -> None:
    lines = list(report_lines(a_full_report(), SLICES, files={}))

    assert "Answer: Words. (certainty 83 %). Words. Why: Words." in lines
    assert "  - Words. (high): Words." in lines
    assert "  - side, finding 1: Words." in lines
    assert "Checks that failed" in lines
    assert not any("words: Words." in line for line in lines)
    assert any("in 60 % of the samples, not image-supported" in line for line in lines)
