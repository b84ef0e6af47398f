"""Tests of `medmllm_plugin.cli_ask`: questions in words alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from medmllm_plugin import pipeline
from medmllm_plugin.cli import medmllm
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.report import DISCLAIMER, Outcome


def says(text: str, choice: str | None = None) -> dict[str, Any]:
    return {"answer": {"choice": choice, "text": text}}


def a_model(*replies: Any, text_only: bool = True) -> ScriptedModel:
    return ScriptedModel(replies, capabilities=replace(ANYTHING, text_only=text_only))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(medmllm, [str(one) for one in arguments])


def test_a_question_is_answered_without_a_picture() -> None:
    model = a_model(says("It suggests malignancy.", "yes"))

    (report,) = pipeline.answer(["Is a spiculated nodule suspicious?"], model=model)

    assert report.answer is not None
    assert (report.answer.choice, report.answer.text) == ("yes", "It suggests malignancy.")
    assert report.outcome is Outcome.NOT_ASSESSED
    assert model.asked[0].prompt.pictures == ()


def test_the_next_question_knows_the_answer_before() -> None:
    model = a_model(says("A small one."), says("A large one."))

    pipeline.answer(["What is 4 mm?", "And 12 mm?"], model=model)

    assert [turn.text for turn in model.asked[1].prompt.turns[:1]] == ["A small one."]
    assert "And 12 mm?" in model.asked[1].prompt.turns[1].text


def test_a_model_that_needs_pictures_is_refused() -> None:
    with pytest.raises(SettingsError, match="pictures"):
        pipeline.answer(["Why?"], model=a_model(says("So."), text_only=False))


def test_the_command_prints_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    models = iter([a_model(says("Yes, often.", "yes"), says("No."))] * 2)
    monkeypatch.setattr("medmllm_plugin.registry.open_model", lambda name, **_: next(models))

    told = run("ask", "Often?", "Never?", "--model", "m")

    assert told.exit_code == 0
    assert told.stdout.splitlines() == [
        *("Question: Often?", "yes. Yes, often.", "", "Question: Never?", "No.", ""),
        DISCLAIMER,
    ]


def test_the_command_prints_reports_for_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = a_model(says("Yes.", "yes"))
    monkeypatch.setattr("medmllm_plugin.registry.open_model", lambda name, **_: model)

    told = run("ask", "Often?", "--model", "m", "--json", "--context", "age=64 years")

    assert json.loads(told.stdout)["answer"]["text"] == "Yes."
    assert "64 years" in model.asked[0].prompt.text


def test_choices_go_with_one_question() -> None:
    told = run("ask", "One?", "Two?", "--choice", "yes", "--model", "m")

    assert (told.exit_code, "--choice goes with one question" in told.stderr) == (2, True)
