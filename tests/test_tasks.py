"""Tests of `medmllm_plugin.tasks` and `checklists`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from medmllm_plugin import checklists, codes, engine, tasks
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.models import Ask
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.models.transformers import open_model
from medmllm_plugin.parsing import UnusableReplyError, parse
from medmllm_plugin.prompting import coding_prompt, prompt_for
from medmllm_plugin.reply_forms import schema_for
from medmllm_plugin.report import Report
from medmllm_plugin.tasks import (
    BUILT_IN,
    FOLDER,
    TASKS,
    Task,
    Words,
    all_tasks,
    common_words,
    read_task,
    task,
)
from tests.test_reply_forms import REPLIES
from tests.tiny_model import tiny_folder
from tests.values import a_request

OURS = Task(
    name="ours", summary="what we ask", reply=("answer",), words={"en": Words(instruction="?", prose="?")}
)
"""What an outside package could bring."""
NO_TASK = "a text"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes entry points as if a package with them were installed."""

    def install(**values: str) -> None:
        entries = [EntryPoint(name=name, value=value, group=tasks.GROUP) for name, value in values.items()]
        monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: entries)

    return install


def test_each_file_of_a_prompt_is_a_task() -> None:
    others = {"common", "checklists"}

    assert {path.stem for path in FOLDER.glob("*.toml")} - others == set(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_task_is_put_in_english_and_chinese(name: str) -> None:
    words = task(name).words

    assert list(words) == ["en", "zh"]
    for language, said in words.items():
        chinese = [letter for letter in said.instruction + said.prose if "\u4e00" <= letter <= "\u9fff"]
        assert bool(chinese) == (language == "zh")
        assert ("{box}" in said.instruction) == ("findings" in task(name).reply)


def test_both_languages_have_the_same_words_in_common() -> None:
    def keys(words: Any) -> set[str]:
        return {
            f"{key}.{inner}"
            for key, value in words.items()
            for inner in (value if isinstance(value, dict) else [""])
        }

    assert keys(common_words("en")) == keys(common_words("zh"))


def test_the_built_in_tasks_are_known_by_name_without_being_read() -> None:
    assert list(TASKS) == list(BUILT_IN)
    assert len(TASKS) == len(BUILT_IN)
    assert TASKS["compare"].needs_priors
    assert "ours" not in TASKS


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_version_names_the_file(name: str, tmp_path: Path) -> None:
    copy = tmp_path / f"{name}.toml"
    copy.write_text((FOLDER / f"{name}.toml").read_text("utf-8") + "\n", encoding="utf-8")

    same, other = read_task(FOLDER / f"{name}.toml"), read_task(copy)

    assert task(name).version_line == same.version_line
    assert other.version_line.split()[0] == same.version_line.split()[0]
    assert other.version_line != same.version_line


def test_a_task_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(SettingsError, match="no task is named 'reprot'; there are: report, question, locate"):
        task("reprot")


def test_an_installed_package_can_bring_a_task(installed: Callable[..., None]) -> None:
    installed(ours="tests.test_tasks:OURS", report="tests.test_tasks:OURS")

    assert task("ours") is OURS
    assert task("report").name == "report"
    assert all_tasks()[-1] == ("ours", "what we ask")
    assert len(all_tasks()) == len(BUILT_IN) + 1


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("no_such_package:TASK", "no_such_package:TASK can't be loaded (ModuleNotFoundError"),
        ("tests.test_tasks:NO_TASK", "found a str at tests.test_tasks:NO_TASK, expected a Task"),
    ],
)
def test_a_broken_task_says_so_and_hides_no_other(
    value: str, says: str, installed: Callable[..., None]
) -> None:
    installed(broken=value, ours="tests.test_tasks:OURS")

    listed = dict(all_tasks())

    assert says in listed["broken"]
    assert listed["ours"] == "what we ask"
    with pytest.raises(SettingsError) as caught:
        task("broken")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("reply = ", "found no TOML of a task"),
        ('summary = "?"', "found fields that don't make a task ('reply')"),
        ('summary = "?"\nreply = ["answer"]', "needs words in a language"),
        ('summary = "?"\nreply = ["answer"]\nspeed = 1\n[en]\ninstruction = ""\nprose = ""', "'speed'"),
    ],
    ids=["no TOML", "no reply", "no words", "another field"],
)
def test_a_file_that_is_no_task_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(SettingsError) as caught:
        read_task(path)

    assert str(caught.value).startswith("mine.toml: ")
    assert says in str(caught.value)


def test_a_language_without_words_is_refused() -> None:
    with pytest.raises(SettingsError, match="the task report: found no words in the language 'fr', expected"):
        task("report").said_in("fr")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_each_task_makes_a_report_that_can_be_kept(name: str, language: str) -> None:
    able = replace(ANYTHING, languages=("en", "zh"), text_only=True)
    model = ScriptedModel([REPLIES[name]], capabilities=able)

    report = engine.read(a_request(name, language=language), model).report

    (asked,) = model.asked
    assert asked.schema is not None
    assert asked.prompt.text == prompt_for(a_request(name, language=language), able).text
    assert report.provenance.task_version == task(name).version_line
    assert report.provenance.language == language
    assert Report.from_json(json.loads(report.to_text())) == report
    assert (report.answer is not None) == ("answer" in REPLIES[name] or name == "modality")
    assert bool(report.differential) == (name in ("diagnosis", "differential"))


def test_a_model_that_computes_can_write_the_reply_to_each_task() -> None:
    model = open_model(str(tiny_folder(seed=1)))
    able = model.capabilities
    prose = "A 7 mm nodule in the left lung (images 2 and 3). No effusion. The heart is normal (image 1)."
    requests = [a_request(name, focus=("lung", "pleura")) for name in BUILT_IN]
    drawn: dict[str, Any] = {"temperature": 1.0, "seed": 3, "max_tokens": 600}
    asks = [Ask(prompt=prompt_for(one, able), schema=schema_for(one, able), **drawn) for one in requests]
    text = schema_for(requests[0], able, prose=prose)
    asks.append(Ask(prompt=coding_prompt(requests[0], prose, able), schema=text, **drawn))

    replies = model.replies(asks)

    for request, ask, reply in zip([*requests, requests[0]], asks, replies, strict=True):
        assert ask.schema is not None
        assert reply.finished
        jsonschema.validate(json.loads(reply.text), ask.schema)
        with suppress(UnusableReplyError):  # a random model may put a side where there is none
            parsed = parse(reply, request=request, schema=ask.schema, model=model)
            assert all(one.probabilities is not None for one in parsed.findings)


def test_the_checklists_hold_keys_of_the_table_only() -> None:
    table = tomllib.loads(checklists.FILE.read_text("utf-8"))["regions"]

    for name, region in table.items():
        codes.site(region.get("site", name))
        for step in region["steps"]:
            sites = [codes.site(key).key for key in step["sites"]]
            assert len(set(sites)) == len(sites)
            for key in step["findings"]:
                assert any(codes.site_allowed(key, site) for site in sites), f"{key} can't be at {sites}"


def test_a_step_keeps_the_sites_asked_for_and_what_can_be_there() -> None:
    (step,) = checklists.steps_for("CT", region="abdomen", sites=["ureter"])

    assert step.sites == ("ureter",)
    assert step.name == "ureter"
    assert step.findings == tuple(key for key in step.findings if codes.site_allowed(key, "ureter"))
    assert "renal_cell_carcinoma" not in step.findings


def test_a_region_that_a_modality_does_not_show_is_refused() -> None:
    with pytest.raises(SettingsError, match="found the region 'breast', expected one of chest, spine, limbs"):
        checklists.steps_for("DX", region="breast")


def test_a_modality_without_a_checklist_has_no_steps() -> None:
    assert checklists.steps_for("ES") == ()
