"""A rule of the node that names a second model: its opinion comes out in the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medmllm_plugin.dicom_bridge.checkpoint import Remembering
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.rules import parse_rules
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.watching import plan_of
from medmllm_plugin.models import Ask
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.prompts import Prompt
from tests.chat_server import serving
from tests.node_runner import SENDER, a_study, one_in, send, settings_for, wait_for

TWO = {"name": "two", "when": {}, "second": "radfm"}


def test_a_rule_names_both_models_and_its_plan_keeps_them() -> None:
    (rule,) = parse_rules([TWO | {"model": "lingshu"}], where="rules")

    assert rule.models == ("lingshu", "radfm")
    assert plan_of(rule)["second"] == "radfm"


def test_replies_of_two_models_are_kept_beside_each_other(tmp_path: Path) -> None:
    ask = Ask(prompt=Prompt(system="?", parts=()), schema=None)
    first = Remembering(ScriptedModel(["one"], name="a"), tmp_path)

    said = [
        first.replies([ask])[0].text,
        first.beside(ScriptedModel(["two"], name="b")).replies([ask])[0].text,
    ]
    again = [first.replies([ask])[0].text, first.beside(ScriptedModel([], name="b")).replies([ask])[0].text]

    assert said == again == ["one", "two"]


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
def test_a_study_that_such_a_rule_fits_is_read_by_both(tmp_path: Path) -> None:
    files = a_study(tmp_path / "study")
    with serving(pictures=64) as server:
        rules = parse_rules([TWO | {"second": f"chat:{server.url}"}], where="rules")
        with Node(settings_for(tmp_path, rules=rules)) as node:
            send(node.port, files)
            row = wait_for(lambda: one_in(node.store, State.DELIVERED, State.PARKED))
            made = node.jobs.report(row.study_uid, 1)
            text = (node.settings.folder / made.folder / "report.json").read_text("utf-8")

    report = json.loads(text)
    assert report["second"] is not None
    assert report["second"]["model"] != report["provenance"]["model"]
    assert any(one["purpose"].startswith("second model: ") for one in report["heard"])
