"""An SR as text and as JSON, whatever is in it."""

from __future__ import annotations

import json
from pathlib import Path

from pydicom.dataset import Dataset

from medmllm_plugin.dicom_bridge.sr_reader import document_of, read_sr
from medmllm_plugin.dicom_bridge.sr_tree import read_tree
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, text_sr
from tests.sr_read import a_chest_report, written
from tests.sr_reports import (
    SERIES,
    a_series,
)


def test_the_text_shows_findings_and_says_they_are_unverified_but_names_no_patient(tmp_path: Path) -> None:
    report = a_chest_report()

    shown = read_sr(written(findings_sr(report, a_series()), tmp_path)).to_text()

    assert "AI findings (unverified): COMPLETE, UNVERIFIED, PRELIMINARY" in shown
    assert "1. Nodule, Lower lobe of lung, Right: present" in shown
    assert "3. Pneumothorax, Pleura: absent" in shown
    assert "columns 10 to 30, rows 20.5 to 40" in shown
    assert "Test^" not in shown


def test_the_json_is_json_and_holds_the_same(tmp_path: Path) -> None:
    document = read_sr(written(findings_sr(a_chest_report(), a_series()), tmp_path))

    data = json.loads(json.dumps(document.to_json()))

    assert data["findings"][0]["regions"][0]["image"]["sop_instance_uid"] == f"{SERIES}.3"
    assert data["findings"][2]["status"] == "absent"
    assert data["outcome"]["value"] == "111242"
    assert "Test^" not in json.dumps(data)


def test_control_characters_of_a_foreign_sr_never_reach_the_terminal() -> None:
    sr = text_sr(a_chest_report(), a_series())
    sr.ContentSequence[-1].ContentSequence[0].TextValue = "\x1b[2Jwiped"

    shown = document_of(sr).to_text()

    assert "\x1b" not in shown
    assert " [2Jwiped" in shown


def test_the_tree_counts_runs_of_images_and_hides_the_name_of_a_person() -> None:
    sr = findings_sr(a_chest_report(), a_series(9))
    person = Dataset()
    person.RelationshipType, person.ValueType, person.PersonName = "HAS OBS CONTEXT", "PNAME", "Reader^One"
    sr.ContentSequence.append(person)

    lines = list(document_of(sr).tree.lines())

    assert "      (8 more images)" in lines
    assert not any("Reader" in line for line in lines)


def test_an_sr_of_an_unknown_template_is_shown_as_its_tree() -> None:
    sr = text_sr(a_chest_report(), a_series())
    sr.ContentSequence = sr.ContentSequence[:3]
    del sr.ContentTemplateSequence

    shown = document_of(sr).to_text()

    assert "no template" in shown
    assert "  has obs context CODE Observer Type = Device (121007, DCM)" in shown


def test_what_cannot_be_read_is_said_with_its_place_and_the_rest_is_read() -> None:
    sr = findings_sr(a_chest_report(), a_series())
    group = next(one for one in sr.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue == "126010")
    number = next(one for one in group.ContentSequence[0].ContentSequence if one.ValueType == "SCOORD")
    number.GraphicData = [1.0, 2.0, 3.0]

    document = document_of(sr)

    assert len(document.problems) == 1
    assert "(SCOORD): 3 numbers in Graphic Data, expected a multiple of 2" in document.problems[0]
    assert [one.bounds for one in document.findings[0].regions] == [
        (10, 20.5, 30, 40)
    ]  # its number has it too
    assert len(document.findings) == 3
    assert "Not read: item 1." in document.to_text()


def test_letters_that_pydicom_replaces_are_said_with_their_item(tmp_path: Path) -> None:
    path = written(findings_sr(a_chest_report(), a_series()), tmp_path)
    path.write_bytes(path.read_bytes().replace("右".encode(), b"\xff\xfe\xfd"))

    document = read_sr(path)

    assert document.problems
    assert all("Failed to decode byte string" in problem for problem in document.problems)
    assert all(problem.startswith("item 1.") for problem in document.problems)


def test_an_item_with_nothing_in_it_is_no_obstacle() -> None:
    root = Dataset()
    root.ValueType = "CONTAINER"
    empty, bad = Dataset(), Dataset()
    bad.ValueType = "IMAGE"
    root.ContentSequence = [empty, bad]

    tree, problems = read_tree(root)

    assert len(tree.children) == 2
    assert [problem.split(":")[0] for problem in problems] == ["item 1.2 (IMAGE)"]
