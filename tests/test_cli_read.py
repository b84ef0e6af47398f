"""`medmllm read`: what it prints, leaves and refuses; the line behind it is stood in for."""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmllm_plugin.errors import ModelError, OutputError, ReplyError, StudyError
from medmllm_plugin.report import DISCLAIMER, Outcome, Report
from medmllm_plugin.request import Context
from tests.cli_called import Line, a_report, run


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Line]:
    def put(**settings: Any) -> Line:
        stand_in = Line(**settings)
        module = types.ModuleType("medmllm_plugin.pipeline")
        vars(module).update(read_each=stand_in.read_each, write=stand_in.write)
        monkeypatch.setitem(sys.modules, "medmllm_plugin.pipeline", module)
        monkeypatch.setattr("medmllm_plugin.pipeline", module, raising=False)
        return stand_in

    monkeypatch.chdir(tmp_path)
    return put


def fail(error: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


def test_a_reading_is_told_in_a_few_lines(line: Callable[..., Line]) -> None:
    line()

    result = run("read", "study", "-o", "out")

    assert result.exit_code == 0
    assert "Findings reported: CT, 1 picture, model scripted" in result.stdout
    assert "1. Nodule, lung, left: present, 12.3 mm, certainty 93 %, pictures/001.png" in result.stdout
    assert "Nodule ≤ 2 cm." in result.stdout
    assert "Left out: a localiser." in result.stdout
    assert "out/report.html  the page, with pictures and boxes\n" in result.stdout
    assert DISCLAIMER in result.stdout
    assert "\x1b" not in result.stdout
    assert (Path("out") / "report.html").read_text() == "whole"


def test_stages_are_told_on_stderr_once_each(line: Callable[..., Line]) -> None:
    line()

    result = run("read", "study", "-o", "out")

    assert result.stderr.splitlines() == [
        "medmllm: reading the study",
        "medmllm: opening the model",
        "medmllm: making pictures",
        "medmllm: the model reads",
        "medmllm: writing the report",
    ]


def test_json_is_the_report_with_its_files_and_nothing_else(line: Callable[..., Line]) -> None:
    line()

    result = run("read", "study", "-o", "out", "--json")

    printed = json.loads(result.stdout)
    files = printed.pop("files")
    assert Report.from_json(printed) == a_report()[0]
    assert {name: Path(path).read_text() for name, path in files.items()} == dict.fromkeys(files, "whole")
    assert result.stderr == ""


def test_options_reach_the_reading(line: Callable[..., Line]) -> None:
    asked = line()

    source = ["--series", "1.2", "--modality", "MR", "--volume", "3"]
    words = ["--ask", "Why?", "--ask", "And then?", "--context", "age=64 years", "--context", "sex=female"]
    run("read", "a", "b", "-o", "out", *words, "--model", "m", "--samples", "7", *source)
    with_questions = asked.asked
    run("read", "a", "-o", "out", "--slices", "7", "--seed", "3", "--plan", "radfm", "--language", "zh")
    plain = asked.asked
    compared = ["--prior", "before", "--prior-report", "before.json", "--study", "--strategy", "zoom"]
    run("read", "a", "-o", "out", *compared)
    with_prior = asked.asked

    told = with_questions.pop("cancel")
    assert not told()
    assert with_questions == {
        "paths": (Path("a"), Path("b")),
        "task": None,
        "questions": ("Why?", "And then?"),
        "choices": (),
        "context": Context(age="64 years", sex="female"),
        "language": "en",
        "model": "m",
        "settings": None,
        "strategy": "consistency:7",
        "second": None,
        "evidence": False,
        "second_pass": True,
        "series": "1.2",
        "volume": "3",
        "modality": "MR",
        "study": False,
        "prior": None,
        "prior_report": None,
        "count": None,
        "plan": None,
        "seed": 0,
    }
    assert (plain["model"], plain["count"], plain["seed"], plain["plan"]) == ("embedded", 7, 3, "radfm")
    assert (plain["questions"], plain["context"], plain["language"]) == ((), None, "zh")
    assert (with_prior["prior"], with_prior["prior_report"]) == (Path("before"), Path("before.json"))
    assert (with_prior["study"], with_prior["strategy"]) == (True, "zoom")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--context", "name=Doe"], "found 'name=Doe', expected KEY=TEXT"),
        (["--context", "age"], "found 'age', expected KEY=TEXT"),
        (["--context", "age=1", "--context", "age=2"], "found 'age=2'"),
        (["--context", f"history={'x' * 2001}"], "context history: found 2001 characters, expected 2000"),
        (["--config", "nowhere.toml"], "nowhere.toml: can't be read"),
        (["--samples", "3", "--strategy", "zoom"], "--samples goes with --strategy consistency"),
        (["--ask", "A?", "--ask", "B?", "--choice", "yes"], "--choice goes with one question"),
    ],
)
def test_options_that_contradict_are_refused_before_anything_is_read(
    line: Callable[..., Line], options: list[str], words: str
) -> None:
    asked = line()

    result = run("read", "a", "-o", "out", *options)

    assert result.exit_code == 2
    assert words in result.stderr
    assert asked.asked == {}


def test_several_questions_get_a_folder_each(line: Callable[..., Line]) -> None:
    line(readings=2)

    told = run("read", "a", "-o", "out", "--ask", "One?", "--ask", "Two?")
    as_json = run("read", "a", "-o", "out", "--ask", "One?", "--ask", "Two?", "--json")

    assert told.exit_code == 0
    assert {path.relative_to("out").as_posix() for path in Path("out").rglob("report.json")} == {
        "1/report.json",
        "2/report.json",
    }
    assert "Question 2:" in told.stdout
    assert [one["files"]["report"] for one in json.loads(as_json.stdout)] == [
        str(Path("out", "1", "report.json")),
        str(Path("out", "2", "report.json")),
    ]


def test_an_earlier_study_can_not_hold_the_output(line: Callable[..., Line], tmp_path: Path) -> None:
    line()
    (tmp_path / "before" / "images").mkdir(parents=True)

    result = run("read", "a", "-o", "before", "--prior", "before/images")

    assert result.exit_code == 2
    assert "holds the input" in result.stderr


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        (Outcome.NO_FINDINGS, 0, "No findings reported"),
        (Outcome.OUTSIDE_DOMAIN, 0, "Outside the model's domain"),
        (Outcome.FAILED, 3, "The reading failed"),
    ],
)
def test_every_outcome_is_said_clearly(
    line: Callable[..., Line], outcome: Outcome, code: int, words: str
) -> None:
    line(outcome=outcome)

    result = run("read", "study", "-o", "out")

    assert result.exit_code == code
    assert words in result.stdout


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            StudyError(found="2 patients", expected="1", where="study", remedy="read each"),
            2,
            "found 2 patients",
        ),
        (ModelError("no model\nat all"), 3, "no model at all"),
        (OutputError("disk full"), 4, "disk full"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("DOE^JANE has a bad header"), 1, "a defect of ours: RuntimeError at test_cli_read.py:"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code_and_leaves_nothing(
    line: Callable[..., Line], error: BaseException, code: int, words: str
) -> None:
    line(fails=fail(error))

    result = run("read", "study", "-o", "out", "--json")

    assert result.exit_code == code
    assert result.stdout == ""
    assert words in result.stderr
    assert "DOE" not in result.stderr
    assert result.stderr.strip().startswith("medmllm: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("where", ["option", "variable"])
def test_debug_shows_the_traceback_before_the_line(
    line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    line(fails=fail(RuntimeError("inner words")))
    if where == "variable":
        monkeypatch.setenv("MEDMLLM_DEBUG", "1")

    result = run("read", "study", "-o", "out", *(["--debug"] if where == "option" else []))

    assert "Traceback" in result.stderr
    assert "inner words" in result.stderr
    assert result.exit_code == 1


def test_replies_that_break_the_schema_are_kept_beside_an_earlier_report(line: Callable[..., Line]) -> None:
    line()
    run("read", "study", "-o", "out")
    line(fails=fail(ReplyError("the reply breaks the schema twice", raw_replies=("first", "second \udc80"))))

    result = run("read", "study", "-o", "out")

    assert result.exit_code == 3
    assert "the reply breaks the schema twice; its replies are kept in out-failed" in result.stderr
    assert Path("out/report.json").read_text() == "whole"
    assert Path("out-failed/raw-reply-1.txt").read_text() == "first"
    assert Path("out-failed/raw-reply-2.txt").read_text() == r"second \udc80"


def test_an_unusable_output_folder_is_found_before_the_study_is_read(line: Callable[..., Line]) -> None:
    asked = line()
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("mine")

    result = run("read", "study", "-o", "out")

    assert result.exit_code == 2
    assert "not an output of ours" in result.stderr
    assert asked.asked == {}
    assert Path("out/thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("out", ["study", "."])
def test_an_output_folder_that_holds_the_input_is_refused(line: Callable[..., Line], out: str) -> None:
    asked = line()
    Path("study").mkdir()

    result = run("read", "study/series", "-o", out)

    assert result.exit_code == 2
    assert asked.asked == {}


def test_without_an_output_folder_each_reading_has_its_own_and_the_same_one_again(
    line: Callable[..., Line],
) -> None:
    line()

    for _ in range(2):
        run("read", "DOE_JANE")
    run("read", "DOE_JANE", "--ask", "Why?")

    folders = sorted(one.name for one in Path("medmllm-out").iterdir())
    assert len(folders) == 2
    assert all(re.fullmatch(r"ct-[0-9a-f]{8}", name) for name in folders)


def test_without_an_output_folder_a_report_that_someone_changed_is_left_alone(
    line: Callable[..., Line],
) -> None:
    line()
    run("read", "study")
    (first,) = Path("medmllm-out").iterdir()
    (first / "report.json").write_text("corrected by hand")

    result = run("read", "study")

    assert result.exit_code == 0
    assert (first / "report.json").read_text() == "corrected by hand"
    assert {one.name for one in Path("medmllm-out").iterdir()} == {first.name, f"{first.name}-2"}


@pytest.mark.parametrize(
    "arguments",
    [["read"], ["read", "study", "--nonsense"], ["nonsense"], ["read", "s", "--slices", "0"], ["sr", "show"]],
)
def test_a_wrong_call_is_one_line_that_points_to_the_help(arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert re.fullmatch(r"medmllm: error: .* See: medmllm.* --help\n", result.stderr)


def test_the_profile_of_the_dicom_objects_is_passed_on_and_another_refused(line: Callable[..., Line]) -> None:
    asked = line()

    plain = run("read", "study", "-o", "one")
    usual = asked.sr
    legacy = run("read", "study", "--sr", "legacy", "-o", "two")
    other = run("read", "study", "--sr", "ohif", "-o", "three")

    assert (plain.exit_code, legacy.exit_code, other.exit_code) == (0, 0, 2)
    assert (usual, asked.sr) == ("default", "legacy")


def test_the_tasks_and_models_are_listed_for_people_and_machines() -> None:
    tasks, models = run("tasks"), run("models", "--json")

    assert tasks.stdout.startswith("report ")
    assert {"embedded", "transformers"} <= {one["name"] for one in json.loads(models.stdout)}
    assert json.loads(run("tasks", "--json").stdout)[0]["name"] == "report"
