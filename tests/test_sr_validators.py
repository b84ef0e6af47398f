"""Structured reports held against other people's validators and readers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
)

from medmllm_plugin.dicom_bridge.sr_decisions import Decision, Person, Verdict
from medmllm_plugin.dicom_bridge.sr_key_objects import key_object_selection
from medmllm_plugin.dicom_bridge.sr_verified import verified_sr
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, points_sr, text_sr
from tests.sr_cases import CASES, NOON, a_chest_ct
from tests.sr_reports import (
    a_header,
    a_report,
    a_series,
)


def other_kinds() -> dict[str, Dataset]:
    """The chest CT, and where said another case, as everything else that we write."""
    report, headers = a_chest_ct()
    placed = [replace(one, center_mm=(1.5, 2.0, 10.0)) if one.box else one for one in report.findings]
    first = findings_sr(report, headers, written=NOON)
    said = (Verdict.ACCEPT, Verdict.ACCEPT, Verdict.ACCEPT, Verdict.REJECT, Verdict.ACCEPT)
    decisions = [
        Decision(tracking_uid=one.tracking_uid, verdict=verdict)
        for one, verdict in zip(report.findings, said, strict=True)
    ]
    person = Person(name="Müller^Jürgen", organization="Radiology 3")
    normal = findings_sr(*CASES["normal"], written=NOON)
    sizes = [*a_series(2), a_header(9, Rows=128)]
    return {
        "points": points_sr(replace(report, findings=tuple(placed)), headers, written=NOON),
        "findings as Comprehensive": findings_sr(report, headers, sop_class=ComprehensiveSRStorage),
        "findings as Enhanced": findings_sr(report, headers, sop_class=EnhancedSRStorage),
        "text as Basic Text": text_sr(report, headers, sop_class=BasicTextSRStorage),
        "text as Comprehensive": text_sr(report, headers, sop_class=ComprehensiveSRStorage),
        "amended findings": findings_sr(report, headers, predecessors=[first]),
        "amended text": text_sr(report, headers, predecessors=[text_sr(report, headers)]),
        "key objects": key_object_selection(report, headers, written=NOON),
        "key objects on frames": key_object_selection(*CASES["multi-frame MR"], written=NOON),
        "verified": verified_sr(first, decisions, person, written=NOON),
        "verified normal": verified_sr(normal, [], person, written=NOON),
        "images of two sizes": findings_sr(a_report(), sizes, written=NOON),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both SRs of every case as files, by "<case> A" and "<case> B", and what else we write by its kind."""
    folder = tmp_path_factory.mktemp("sr")
    paths = {}
    for name, (report, headers) in CASES.items():
        for tree, write in (("A", findings_sr), ("B", text_sr)):
            path = folder / f"{name}-{tree}.dcm".replace(" ", "-")
            write(report, headers, written=NOON).save_as(path, enforce_file_format=True)
            paths[f"{name} {tree}"] = path
    for name, dataset in other_kinds().items():
        path = folder / f"{name}.dcm".replace(" ", "-")
        dataset.save_as(path, enforce_file_format=True)
        paths[name] = path
    return paths


def tool(name: str) -> str:
    """The path of a program beside this Python or on the PATH; skips the test without it."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_dciodvfy_finds_no_error_and_only_known_warnings(written: dict[str, Path]) -> None:
    known = ("/DeviceUID(0018,1002)>", "/SpecificCharacterSet(0008,0005)>")

    said = {
        name: subprocess.run(
            [tool("dciodvfy"), "-new", str(path)], capture_output=True, text=True, check=False
        ).stderr.splitlines()
        for name, path in written.items()
    }

    bad = {name: [one for one in lines if one.startswith("Error")] for name, lines in said.items()}
    odd = [one for lines in said.values() for one in lines if one.startswith("Warning")]
    assert bad == {name: [] for name in written}
    assert [one for one in odd if not any(mark in one for mark in known)] == []


def test_highdicom_reads_every_sr_and_a_planar_group_for_each_box(
    written: dict[str, Path],
) -> None:
    highdicom_sr = pytest.importorskip("highdicom.sr")

    readable = {
        name: path for name, path in written.items() if "key objects" not in name and "Basic" not in name
    }

    contents = {name: highdicom_sr.srread(path).content for name, path in readable.items()}

    for name, (report, _) in CASES.items():
        groups = contents[f"{name} A"].get_planar_roi_measurement_groups()
        placed = [one for one in report.findings if one.box is not None]
        assert [group.tracking_uid for group in groups] == [one.tracking_uid for one in placed]
    for name, uids in (("points", ["2.25.11", "2.25.14"]), ("verified", ["2.25.11"])):
        groups = contents[name].get_planar_roi_measurement_groups()
        assert [group.tracking_uid for group in groups] == uids


def test_dcmqi_reads_the_findings_that_were_written(written: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "read.json"

    done = subprocess.run(
        [tool("tid1500reader"), "--inputDICOM", str(written["chest CT A"]), "--outputMetadata", str(out)],
        capture_output=True,
        check=False,
    )

    first, second = json.loads(out.read_text())["Measurements"]
    comments = [
        one["conceptValue"]
        for one in first["qualitativeEvaluations"]
        if one["conceptCode"]["CodeValue"] == "121106"
    ]
    assert done.returncode == 0
    assert [first["Finding"]["CodeValue"], first["FindingSite"]["CodeValue"]] == ["27925004", "90572001"]
    assert first["Laterality"]["CodeMeaning"] == "Right"
    assert [first["TrackingUniqueIdentifier"], second["TrackingUniqueIdentifier"]] == ["2.25.11", "2.25.14"]
    assert [float(one["value"]) for one in first["measurementItems"]] == [16.0, 7.25, 87.0]
    assert [float(one["value"]) for one in second["measurementItems"]] == [33.3]
    assert comments == ["Solid nodule ≤ 16 mm, 12 µm rim – 右肺下叶結節."]
    assert len(first["measurementAlgorithmIdentification"]["AlgorithmParameters"]) == 1


def test_dsrdump_reads_every_sr_without_complaint(written: dict[str, Path]) -> None:
    dsrdump = tool("dsrdump")
    known = ("does not support this Specific Character Set", "template constraints not yet supported")

    said = {
        name: subprocess.run([dsrdump, str(path)], capture_output=True, text=True, check=False)
        for name, path in written.items()
    }

    for name, done in said.items():
        lines = [one for one in done.stderr.splitlines() if not any(mark in one for mark in known)]
        assert (name, done.returncode, lines) == (name, 0, [])


def test_pixelmed_finds_no_error_in_an_sr_of_any_kind(written: dict[str, Path], tmp_path: Path) -> None:
    java, javac = tool("java"), tool("javac")
    jars = Path("/usr/share/java")
    if not (jars / "pixelmed.jar").exists():
        pytest.skip("PixelMed is not installed (Debian libpixelmed-java)")
    classes = ":".join(map(str, [tmp_path, *sorted(jars.glob("*.jar"))]))
    (tmp_path / "Validate.java").write_text(
        "public class Validate { public static void main(String[] files) throws Exception {"
        " var validator = new com.pixelmed.validate.DicomSRValidator();"
        " for (String file : files) System.out.println(validator.validate(file)); } }"
    )
    subprocess.run([javac, "-cp", classes, "-d", str(tmp_path), str(tmp_path / "Validate.java")], check=True)
    cases = [f"{case} {tree}" for case in ("chest CT", "normal", "CR", "multi-frame MR") for tree in "AB"]
    kinds = ("points", "findings as Enhanced", "text as Basic Text", "amended findings", "key objects")
    cases += ["failed A", "SC A", *kinds, "verified", "verified normal", "images of two sizes"]
    paths = [str(written[case]) for case in cases]
    limits = [f"-Djdk.xml.xpath{limit}=0" for limit in ("ExprOpLimit", "TotalOpLimit", "ExprGrpLimit")]

    done = subprocess.run(
        [java, *limits, "-Xss64m", "-cp", classes, "Validate", *paths],
        capture_output=True,
        text=True,
        check=True,
    )

    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("Error")] == []
    assert lines.count("IOD validation complete") == len(paths)
