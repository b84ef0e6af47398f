"""Phantoms through a node that runs: what comes back is judged, and what goes wrong is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from medmllm_plugin.cli import medmllm
from medmllm_plugin.dicom_bridge.rules import Rule, parse_rules
from medmllm_plugin.errors import RetrieveError, SettingsError
from medmllm_plugin.phantoms.study import sample_study
from medmllm_plugin.selftest import SelfTest
from medmllm_plugin.selftest_node import NodeUnderTest, run
from tests.http_node import HttpNode, http_node
from tests.node_runner import ROOT

SMALL: dict[str, Any] = {"kinds": ("ct-chest",), "studies": 3, "slices": 64, "matrix": 128}
PHANTOMS = {"PatientID": "PHANTOM-*", "ManufacturerModelName": "MedMLLM phantom"}


def rules(**values: object) -> tuple[Rule, ...]:
    return parse_rules([{"name": "self-test", "when": PHANTOMS, "outputs": [], **values}], where="rules")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[HttpNode]:
    with http_node(tmp_path, rules=rules(), reads_at_once=4, evidence_quiet_s=0.3) as one:
        yield one


def result_of(running: HttpNode, *, calling_ae: str = "SELFTEST", **how: Any) -> SelfTest:
    node = NodeUnderTest(
        f"MEDMLLM@127.0.0.1:{running.node.port}", url=running.server.url, calling_ae=calling_ae
    )
    with closing(node):
        return run(node, **{**SMALL, **how})


def test_a_node_that_is_well_passes(running: HttpNode, tmp_path: Path) -> None:
    first, again = result_of(running), result_of(running)

    values = {one.key: one for one in first.verdicts}
    assert first.model == "embedded"
    assert [one.failure for one in first.outcomes] == ["", "", ""]
    assert (values["failed"].value, values["differing"].value) == (0.0, 0.0)
    assert values["side"].bar is not None, "what the node's model reached is known"
    assert first.passed, [one for one in first.verdicts if not one.passed]
    assert first.notes == ()
    assert [one.value for one in again.verdicts] == [one.value for one in first.verdicts]
    assert len(running.client.get("/api/studies").json()["studies"]) == 6, "each run is read anew"
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_mirrored_images_are_found_out(running: HttpNode, monkeypatch: pytest.MonkeyPatch) -> None:
    send = NodeUnderTest.send

    def mirrored(self: NodeUnderTest, folder: Path) -> None:
        for path in folder.rglob("*.dcm"):
            one = dcmread(path)
            one.PixelData = np.ascontiguousarray(one.pixel_array[..., ::-1]).tobytes()
            one.save_as(path)
        send(self, folder)

    monkeypatch.setattr(NodeUnderTest, "send", mirrored)

    result = result_of(running, studies=8)

    assert "side" in {one.key for one in result.verdicts if not one.passed}


def test_phantoms_that_no_rule_reads_are_told(tmp_path: Path) -> None:
    with http_node(tmp_path, rules=rules(action="keep")) as running:
        result = result_of(running, studies=1)

    (outcome,) = result.outcomes
    assert not result.passed
    assert "found kept: the rule 'self-test' keeps it" in outcome.failure
    assert "give the node a rule for phantoms" in outcome.failure


def test_reports_that_went_somewhere_are_told(tmp_path: Path) -> None:
    with http_node(tmp_path, rules=rules(outputs=["out"])) as running:
        result = result_of(running, studies=1)

    assert result.notes[0].startswith("Reports on phantoms went to out: give phantoms a rule")
    assert result.notes[0] in "\n".join(result.lines())
    assert result.to_json()["notes"] == list(result.notes)


def test_a_node_that_lets_nobody_in_is_told(tmp_path: Path) -> None:
    with http_node(tmp_path, rules=rules(), calling_aes=("CT1",)) as running:
        refused = result_of(running, studies=1)
        let_in = result_of(running, calling_ae="CT1", studies=1)

    assert "doesn't know our AE title" in refused.outcomes[0].failure
    assert let_in.outcomes[0].failure == ""


def test_a_node_that_is_not_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="AE@host:port"):
        NodeUnderTest("nobody")
    with (
        closing(NodeUnderTest("MEDMLLM@127.0.0.1:9", url="http://127.0.0.1:9")) as nowhere,
        pytest.raises(RetrieveError, match="can't be reached"),
    ):
        run(nowhere)


def test_the_same_phantom_in_another_run_has_other_uids() -> None:
    one = sample_study(seed=3, slices=24, matrix=128)

    other = replace(one, run="other")

    assert one.study.study_instance_uid != other.study.study_instance_uid
    assert one.source(0) != other.source(0)
    assert np.array_equal(one.values(3), other.values(3))


def test_the_command_tests_a_node(running: HttpNode) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "medmllm_plugin", "selftest", "--kind", "ct-chest", "-n", "1", "--json"),
            *("--node", f"MEDMLLM@127.0.0.1:{running.node.port}", "--http", running.server.url),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )

    said = json.loads(done.stdout)
    assert said["where"] == "node one (MEDMLLM)"
    assert next(one for one in said["verdicts"] if one["key"] == "failed")["value"] == 0
    assert done.returncode == (0 if said["passed"] else 1)
    assert "selftest" in medmllm.commands
