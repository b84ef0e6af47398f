"""Progress is a live bar on a terminal, plain lines elsewhere, and silent where machines listen."""

from __future__ import annotations

import sys

import pytest

from medmllm_plugin.console import STAGES, shown_progress


def go_through_all_stages(*, hidden: bool) -> None:
    with shown_progress(hidden=hidden) as show:
        for stage in STAGES:
            show(stage, 0, 0)
            show(stage, 1, 2)
            show(stage, 2, 2)


def test_a_terminal_sees_each_stage_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")

    go_through_all_stages(hidden=False)

    said = capsys.readouterr()
    assert said.out == ""
    assert [words for words in STAGES.values() if words not in said.err] == []


def test_elsewhere_each_stage_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    go_through_all_stages(hidden=False)

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [f"medmllm: {words.lower()}" for words in STAGES.values()]


def test_hidden_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    go_through_all_stages(hidden=True)

    assert capsys.readouterr() == ("", "")


def test_a_stage_that_is_not_known_is_called_by_its_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress(hidden=False) as show:
        show("checking", 0, 0)

    assert capsys.readouterr().err == "medmllm: checking\n"


def test_of_several_passes_each_says_which_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress(hidden=False) as show:
        for number in (1, 2):
            show(f"thinking {number}/2", 0, 9)

    assert capsys.readouterr().err.splitlines() == [
        "medmllm: the model reads, pass 1 of 2",
        "medmllm: the model reads, pass 2 of 2",
    ]


def test_a_terminal_counts_the_tokens_that_a_model_wrote(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")

    with shown_progress(hidden=False) as show:
        show("thinking", 123, 3072)

    assert "123 tokens" in capsys.readouterr().err
