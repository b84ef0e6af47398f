"""What the SR says in words: summary, any script, long texts, sentences found again."""

from __future__ import annotations

import io
from dataclasses import replace

import pydicom
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.dicom_bridge.sr_items import clean, has_words
from medmllm_plugin.dicom_bridge.sr_words import comment, sentence_of
from medmllm_plugin.dicom_bridge.sr_writer import text_sr
from medmllm_plugin.findings import Status
from medmllm_plugin.report import DISCLAIMER, Sentence
from tests.sr_cases import CASES, a_chest_ct
from tests.sr_items import items, texts
from tests.sr_reports import (
    a_nodule,
    a_report,
    a_series,
    an_image,
)


def test_the_summary_holds_disclaimer_notes_model_and_hashes() -> None:
    (summary,) = items(text_sr(*CASES["normal"]), "55112-7")

    said = texts(summary)
    assert said[0] == DISCLAIMER
    assert "5 of 5 slices shown." in said
    assert said[-1] == (
        "Written by phantom-reader 0.1 (weights sha256 abababababababab, prompt sha256 cdcdcdcdcdcdcdcd) "
        "through medmllm-plugin 0.1.0."
    )


def test_without_a_narrative_the_findings_speak_for_it() -> None:
    report, headers = a_chest_ct()

    sr = text_sr(replace(report, narrative=()), headers)

    assert "No pneumothorax. [absent]" not in texts(sr)[:1]
    assert [one.TextValue for one in items(sr, "121071")] == [comment(one) for one in report.findings]


def test_text_of_any_script_comes_back_byte_for_byte_and_no_language_is_claimed() -> None:
    sentence = "≤ 8 mm, µ, “quotes”, naïve, 結節 소견 узел نتيجة 🫁"
    headers = a_series()
    report = a_report(narrative=(Sentence(sentence=sentence),))
    buffer = io.BytesIO()

    text_sr(report, headers).save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    sr = pydicom.dcmread(buffer)

    assert sentence in texts(sr)
    assert sentence.encode() in buffer.getvalue()
    assert next(items(sr, "121049")).ConceptCodeSequence[0].CodeValue == "und"


def test_control_characters_and_broken_letters_never_reach_the_sr() -> None:
    headers = a_series()
    report = a_report(
        narrative=(Sentence(sentence="a\x00b\x1b[2J\ud800\u202ec\r\nd"),), notes=("\x07", "n\x9b")
    )

    said = texts(text_sr(report, headers))

    assert "a b [2J? c\nd" in said
    assert all(clean(text) == text for text in said)


def test_very_long_text_is_kept_whole() -> None:
    headers = a_series()
    long = "nodule " * 20_000
    report = a_report(narrative=(Sentence(sentence=long),))

    assert long in texts(text_sr(report, headers))


@given(text=st.text(max_size=40).filter(has_words), status=st.sampled_from(Status))
def test_the_sentence_is_found_again_in_a_comment(text: str, status: Status) -> None:
    finding = a_nodule(an_image(a_series(1)[0]), sentence=text, status=status)

    for seen_on in (None, "", "image 3"):
        assert sentence_of(comment(finding, seen_on=seen_on)) == text


def test_a_finding_without_a_sentence_is_said_in_our_words() -> None:
    finding = a_nodule(an_image(a_series(1)[0]), sentence="")

    assert comment(finding) == "nodule"


def test_a_sentence_that_ends_like_our_brackets_is_found_again() -> None:
    finding = a_nodule(an_image(a_series(1)[0]), sentence="Odd [absent; image 1]")

    assert comment(finding) == "Odd [absent; image 1] [present]"
    assert sentence_of(comment(finding)) == finding.sentence
