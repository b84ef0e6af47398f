"""Which rule would fire for a study in a folder: the one that fires when the study is received."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from medmllm_plugin.cli import medmllm
from medmllm_plugin.config import load
from medmllm_plugin.dicom_bridge.explaining import explain_study
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, node_settings
from medmllm_plugin.dicom_bridge.rules import Action
from medmllm_plugin.errors import StudyError
from medmllm_plugin.phantoms import write_study

RULES = """
[[rules]]
name = "heads"
when = { Modality = "MR", PatientName = "*" }
[[rules]]
name = "chests"
when = { Modality = "CT", BodyPartExamined = "*CHEST*", CalledAE = "MEDMLLM" }
[[rules]]
name = "CT from the old scanner"
when = { Modality = "CT", CallingAE = "OLD" }
action = "keep"
[[rules]]
name = "all CT"
when = { Modality = "CT" }
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, seed=4, slices=24)
    return folder


def a_node(folder: Path, text: str = RULES) -> NodeSettings:
    path = folder / "medmllm.toml"
    path.write_text(f'[node]\nfolder = "data"\n{text}')
    return node_settings(load(path))


def test_the_first_rule_that_fits_fires_and_each_says_why(study: Path, tmp_path: Path) -> None:
    explained = explain_study(study, a_node(tmp_path))

    assert [one.name for one in explained.fires] == ["chests"]
    assert explained.action is Action.READ
    assert [one.fits for one in explained.rules] == [False, True, False, True]
    assert explained.rules[2].why == "no series fits CallingAE"


def test_all_rules_that_fit_are_told_where_all_count(study: Path, tmp_path: Path) -> None:
    archive = '[[rules]]\nname = "archive"\naction = "forward"\noutputs = ["vna"]\n'
    outputs = '[outputs.vna]\nfolder = "vna"\n'

    explained = explain_study(study, a_node(tmp_path, f'matching = "all"\n{outputs}{archive}{RULES}'))

    assert [one.name for one in explained.fires] == ["archive", "chests", "all CT"]
    assert explained.action is Action.READ
    assert explained.why == (
        "the rule 'archive' is the first that fits; it is read as 'chests' says, routine, for all outputs; "
        "its images go to vna"
    )


def test_the_sender_can_be_said(study: Path, tmp_path: Path) -> None:
    node = a_node(tmp_path)

    explained = explain_study(study, node, calling_ae="OLD", called_ae="OTHER")

    assert explained.action is Action.KEEP
    assert explained.series[0]["CallingAE"] == "OLD"


def test_who_the_patient_is_is_not_told(study: Path, tmp_path: Path) -> None:
    explained = explain_study(study, a_node(tmp_path))

    assert set(explained.series[0]) == {"BodyPartExamined", "CalledAE", "Modality"}


def test_a_study_that_no_rule_fits_is_kept_or_read_as_the_settings_say(study: Path, tmp_path: Path) -> None:
    kept = explain_study(study, a_node(tmp_path, ""))
    read = explain_study(study, a_node(tmp_path, 'unmatched = "read"'))

    assert (kept.fires, kept.action) == ((), Action.KEEP)
    assert (read.fires, read.action) == ((), Action.READ)
    assert "node.unmatched" in kept.why


def test_a_folder_of_two_studies_is_refused(study: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.mkdir()
    for seed in (1, 2):
        (both / str(seed)).mkdir()
        write_study(both / str(seed), seed=seed, slices=24)

    with pytest.raises(StudyError, match="images of 2 studies"):
        explain_study(both, a_node(tmp_path))


def test_the_command_tells_people_and_machines_the_same(study: Path, tmp_path: Path) -> None:
    a_node(tmp_path)
    arguments = ["serve", "--check", str(study), "--config", str(tmp_path / "medmllm.toml")]

    text = CliRunner().invoke(medmllm, arguments)
    as_json = CliRunner().invoke(medmllm, [*arguments, "--json"])

    assert text.exit_code == as_json.exit_code == 0
    assert "rules[1] 'chests' fires: a series fits Modality" in text.output
    assert "rules[3] 'all CT' fits too, after another" in text.output
    assert json.loads(as_json.output)["fires"] == ["chests"]


def test_the_command_takes_the_senders_title(study: Path, tmp_path: Path) -> None:
    a_node(tmp_path, RULES.partition('[[rules]]\nname = "chests"')[0] + _OLD)
    arguments = ["serve", "--check", str(study), "--config", str(tmp_path / "medmllm.toml")]

    unsaid = CliRunner().invoke(medmllm, arguments)
    said = CliRunner().invoke(medmllm, [*arguments, "--calling-ae", "OLD"])

    assert unsaid.output.splitlines()[-1] == "keep: no rule fits it, and node.unmatched says keep"
    assert said.output.splitlines()[-1] == "read: the rule 'old' is the first that fits"


_OLD = '[[rules]]\nname = "old"\nwhen = { CallingAE = "OLD" }\n'


def test_a_study_without_check_is_refused(study: Path) -> None:
    result = CliRunner().invoke(medmllm, ["serve", str(study)])

    assert result.exit_code == 2
