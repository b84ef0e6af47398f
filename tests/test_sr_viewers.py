"""Our SRs in the viewers of others (OHIF in node, dsr2html, Orthanc), and `sr_viewers` held against them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
)

from medmllm_plugin.dicom_bridge.sr_decisions import Decision, Person, Verdict
from medmllm_plugin.dicom_bridge.sr_reader import document_of
from medmllm_plugin.dicom_bridge.sr_verified import verified_sr
from medmllm_plugin.dicom_bridge.sr_viewers import ohif_load
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, points_sr, text_sr
from tests.sr_in_viewers import (
    CASES,
    _drop,
    _groups,
    _in_space,
    _scoords,
    _with_a_nameless_item,
    dsr2html,
    saved,
)

OHIF = Path(__file__).with_name("ohif")


@pytest.fixture(scope="module")
def ohif() -> Callable[[list[Path], list[Dataset], Path], list[dict[str, Any]]]:
    """Runs OHIF's SR code on files; a row for each file and each version of its adapters."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    _install_ohif()

    def run(files: list[Path], headers: list[Dataset], folder: Path) -> list[dict[str, Any]]:
        images = folder / "images.json"
        images.write_text(json.dumps([row for header in headers for row in _open_images(header)]))
        done = subprocess.run(
            [node, str(OHIF / "harness.mjs"), str(images), *map(str, files)],
            capture_output=True,
            text=True,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def _install_ohif() -> None:
    """Fetch the pinned packages once (npm ci); `make test` has done it before."""
    done = OHIF / "node_modules" / ".package-lock.json"
    lock = OHIF / "package-lock.json"
    if done.exists() and done.stat().st_mtime >= lock.stat().st_mtime:
        return
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    try:
        subprocess.run([npm, "ci"], cwd=OHIF, capture_output=True, check=True, timeout=120)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip(
            "OHIF's packages can't be fetched: run npm ci in tests/ohif with the npm registry at hand"
        )


def _open_images(header: Dataset) -> Iterator[dict[str, Any]]:
    orientation = [float(one) for one in header.get("ImageOrientationPatient", [1, 0, 0, 0, 1, 0])]
    for frame in range(1, int(header.get("NumberOfFrames", 1)) + 1):
        yield {
            "sopInstanceUID": header.SOPInstanceUID,
            "frame": frame,
            "frameOfReferenceUID": header.get("FrameOfReferenceUID", "none"),
            "imagePositionPatient": [float(one) for one in header.get("ImagePositionPatient", [0, 0, 0])],
            "rowCosines": orientation[:3],
            "columnCosines": orientation[3:],
            "spacing": [float(one) for one in header.get("PixelSpacing", [1, 1])],
        }


@pytest.mark.parametrize("name", CASES)
def test_ohif_draws_and_takes_over_every_localised_finding_and_throws_on_none(
    name: str, ohif: Any, tmp_path: Path
) -> None:
    case = CASES[name]
    placed = [one for one in case.report.findings if one.box is not None]

    rows = ohif([saved(findings_sr(case.report, case.headers), tmp_path / "a.dcm")], case.headers, tmp_path)

    assert len(rows) == 2
    for row in rows:
        assert row["measurements"]
        assert row["throws"] == ""
        assert row["drawn"] == row["hydrated"] == len(placed)
        assert [label["label"].split(" [")[0] for label in row["labels"]] == [one.sentence for one in placed]
        assert {label["finding"] for label in row["labels"]} <= {"Nodule"}
        assert all(label["sites"] == ["Lower lobe of lung"] for label in row["labels"])


@pytest.mark.parametrize("name", CASES)
def test_ohif_shows_the_report_in_its_text_viewport(name: str, ohif: Any, tmp_path: Path) -> None:
    case = CASES[name]

    rows = ohif([saved(text_sr(case.report, case.headers), tmp_path / "b.dcm")], case.headers, tmp_path)

    assert [(row["measurements"], row["throws"]) for row in rows] == [(False, ""), (False, "")]


def test_ohif_draws_points_in_space_and_the_verified_successor(ohif: Any, tmp_path: Path) -> None:
    case = CASES["three findings"]
    placed = tuple(
        replace(one, center_mm=(1.0, 2.0, 3.0)) if one.box else one for one in case.report.findings
    )
    ai_sr = findings_sr(case.report, case.headers)
    first, *others = case.report.findings
    decisions = [
        Decision(tracking_uid=first.tracking_uid, verdict=Verdict.REJECT),
        *(Decision(tracking_uid=one.tracking_uid, verdict=Verdict.ACCEPT) for one in others),
    ]
    files = [
        saved(points_sr(replace(case.report, findings=placed), case.headers), tmp_path / "points.dcm"),
        saved(
            verified_sr(ai_sr, decisions, Person(name="Reader^One", organization="Ward")),
            tmp_path / "verified.dcm",
        ),
    ]

    rows = ohif(files, case.headers, tmp_path)

    assert [(row["file"], row["drawn"], row["hydrated"], row["throws"]) for row in rows] == [
        ("points.dcm", 3, 3, ""),
        ("points.dcm", 3, 3, ""),
        ("verified.dcm", 2, 2, ""),
        ("verified.dcm", 2, 2, ""),
    ]


def _without_regions(group: Dataset) -> None:
    _drop(group, "111030")
    for one in group.ContentSequence:
        if one.ValueType == "NUM" and "ContentSequence" in one:
            del one.ContentSequence


def _with_flat_numbers(group: Dataset) -> None:
    for one in group.ContentSequence:
        if one.ValueType == "NUM" and "ContentSequence" in one:
            del one.ContentSequence


def _renamed(group: Dataset) -> None:
    for one in group.ContentSequence:
        if one.ConceptNameCodeSequence[0].CodeValue == "112039":
            one.ConceptNameCodeSequence[0].CodeMeaning = "Tracking identifier"


def _with_a_point(group: Dataset) -> None:
    for region in _scoords(group):
        region.GraphicType, region.GraphicData = "POINT", [12.0, 30.0]


def _with_many_points(group: Dataset) -> None:
    for region in _scoords(group):
        region.GraphicType, region.GraphicData = "MULTIPOINT", [12.0, 30.0, 14.0, 30.0]


def _tracked_as_the_first(group: Dataset) -> None:
    for one in group.ContentSequence:
        if one.ValueType == "UIDREF":
            one.UID = "2.25.11"


def _polygon_in_space(group: Dataset) -> None:
    _in_space(group)
    for one in group.ContentSequence:
        for region in (one, *one.get("ContentSequence", [])):
            if region.ValueType == "SCOORD3D":
                region.GraphicType = "POLYGON"
                region.GraphicData = [1.0, 2.0, 3.0, 4.0, 2.0, 3.0, 4.0, 6.0, 3.0, 1.0, 2.0, 3.0]


DEFECTS: dict[str, Callable[[Dataset], None]] = {
    "none": lambda group: None,
    "no tracking UID": lambda group: _drop(group, "112040"),
    "no tracking identifier": lambda group: _drop(group, "112039"),
    "no site": lambda group: _drop(group, "363698007"),
    "no region": _without_regions,
    "flat numbers": _with_flat_numbers,
    "a tracking identifier in other words": _renamed,
    "a nameless item": _with_a_nameless_item,
    "a point": _with_a_point,
    "many points": _with_many_points,
    "the tracking UID of another": _tracked_as_the_first,
    "a point in space": _in_space,
    "a polygon in space": _polygon_in_space,
}


@pytest.mark.parametrize("sop_class", [Comprehensive3DSRStorage, EnhancedSRStorage])
def test_what_we_say_of_ohif_is_what_ohif_does_with_each_defect(
    sop_class: str, ohif: Any, tmp_path: Path
) -> None:
    case = CASES["three findings"]
    files, expected = [], {}
    for name, spoil in DEFECTS.items():
        sr = findings_sr(case.report, case.headers)
        sr.SOPClassUID = sr.file_meta.MediaStorageSOPClassUID = sop_class
        spoil(_groups(sr)[1])
        path = saved(sr, tmp_path / f"{len(files)}.dcm")
        files.append(path)
        load = ohif_load(document_of(pydicom.dcmread(path)))
        expected[name] = (load.drawn, load.hydrated, bool(load.throws))

    rows = ohif(files, case.headers, tmp_path)

    for offset in (0, 1):
        seen = {
            name: (row["drawn"], row["hydrated"], bool(row["throws"]))
            for name, row in zip(DEFECTS, rows[offset::2], strict=True)
        }
        assert seen == expected


@pytest.mark.parametrize("name", CASES)
def test_dsr2html_shows_every_sentence_and_heading(name: str, tmp_path: Path) -> None:
    case = CASES[name]

    shown = dsr2html(text_sr(case.report, case.headers), tmp_path)

    for sentence in case.report.narrative:
        assert sentence.sentence in shown
    assert ("<h2>Findings</h2>" in shown) == bool(case.report.narrative)
    assert "Research use only" in shown
