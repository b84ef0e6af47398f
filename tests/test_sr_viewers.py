"""Our SRs in the viewers of others (OHIF in node, dsr2html, Orthanc), and `sr_viewers` held against them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DatasetSequence
from pydicom.uid import (
    Comprehensive3DSRStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedMRImageStorage,
    EnhancedSRStorage,
)

from medmllm_plugin.dicom_bridge.sr_decisions import Decision, Person, Verdict
from medmllm_plugin.dicom_bridge.sr_reader import document_of
from medmllm_plugin.dicom_bridge.sr_verified import verified_sr
from medmllm_plugin.dicom_bridge.sr_viewers import ohif_load, views
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, points_sr, text_sr
from medmllm_plugin.findings import Status
from medmllm_plugin.report import Outcome, Report
from tests.sr_reports import (
    a_header,
    a_nodule,
    a_pneumothorax_not_there,
    a_report,
    a_series,
    an_effusion,
    an_image,
)

OHIF = Path(__file__).with_name("ohif")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A report and the headers that it was read from."""

    report: Report
    headers: list[Dataset]


def a_chest_ct(**values: Any) -> Case:
    headers = a_series(**values)
    images = [an_image(header) for header in headers]
    findings = (
        a_nodule(images[2]),
        a_nodule(
            images[1], tracking_uid="2.25.14", status=Status.INDETERMINATE, size_mm=None, certainty=None
        ),
        a_nodule(images[0], tracking_uid="2.25.15", sentence="右肺下叶见一枚实性结节。"),
        an_effusion(images[0], images[1]),
        a_pneumothorax_not_there(images[0]),
    )
    return Case(report=a_report(*findings), headers=headers)


def one_image(modality: str, sop_class: str, frame: int | None = None, **values: Any) -> Case:
    header = a_header(modality=modality, sop_class=sop_class, **values)
    report = a_report(a_nodule(an_image(header, frame)), modality=modality)
    return Case(report=report, headers=[header])


CASES = {
    "three findings": a_chest_ct(),
    "oblique": a_chest_ct(oblique=True),
    "normal": Case(report=a_report(), headers=a_series()),
    "failed": Case(report=a_report(outcome=Outcome.FAILED, impression=(), narrative=()), headers=a_series()),
    "X-ray": one_image("DX", DigitalXRayImageStorageForPresentation),
    "enhanced MR": one_image("MR", EnhancedMRImageStorage, 7, NumberOfFrames=20, FrameOfReferenceUID="1.2.3"),
}


# OHIF


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


def saved(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


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


def _groups(sr: Dataset) -> list[Dataset]:
    container = next(
        one for one in sr.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue == "126010"
    )
    return list(container.ContentSequence)


def _drop(group: Dataset, value: str) -> None:
    group.ContentSequence = DatasetSequence(
        one for one in group.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue != value
    )


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


def _with_a_nameless_item(group: Dataset) -> None:
    del group.ContentSequence[-1].ConceptNameCodeSequence


def _with_a_point(group: Dataset) -> None:
    for region in _scoords(group):
        region.GraphicType, region.GraphicData = "POINT", [12.0, 30.0]


def _with_many_points(group: Dataset) -> None:
    for region in _scoords(group):
        region.GraphicType, region.GraphicData = "MULTIPOINT", [12.0, 30.0, 14.0, 30.0]


def _scoords(group: Dataset) -> Iterator[Dataset]:
    for one in group.ContentSequence:
        if one.ValueType == "SCOORD":
            yield one
        yield from (child for child in one.get("ContentSequence", []) if child.ValueType == "SCOORD")


def _tracked_as_the_first(group: Dataset) -> None:
    for one in group.ContentSequence:
        if one.ValueType == "UIDREF":
            one.UID = "2.25.11"


def _in_space(group: Dataset) -> None:
    for region in _scoords(group):
        region.ValueType, region.GraphicType, region.GraphicData = "SCOORD3D", "POINT", [1.0, 2.0, 3.0]
        region.ReferencedFrameOfReferenceUID = a_series()[0].FrameOfReferenceUID
        del region.ContentSequence


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


# dsr2html


def dsr2html(sr: Dataset, folder: Path) -> str:
    """The page that DCMTK makes of an SR."""
    program = shutil.which("dsr2html")
    if program is None:
        pytest.skip("dsr2html is not installed (Debian dcmtk)")
    page = folder / "sr.html"
    subprocess.run([program, str(saved(sr, folder / "sr.dcm")), str(page)], check=True, capture_output=True)
    return page.read_text("utf-8")


@pytest.mark.parametrize("name", CASES)
def test_dsr2html_shows_every_sentence_and_heading(name: str, tmp_path: Path) -> None:
    case = CASES[name]

    shown = dsr2html(text_sr(case.report, case.headers), tmp_path)

    for sentence in case.report.narrative:
        assert sentence.sentence in shown
    assert ("<h2>Findings</h2>" in shown) == bool(case.report.narrative)
    assert "Research use only" in shown


# Orthanc


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """An Orthanc on the loopback interface only; its DICOM and its HTTP port."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None:
        pytest.skip("Orthanc is not installed (Debian orthanc)")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler, without which Orthanc would listen to the network")
    folder = tmp_path_factory.mktemp("orthanc")
    _build_loopback(compiler, folder)
    dicom, http = _free_port(), _free_port()
    settings = {
        "Name": "Test", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "HttpPort": http, "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "TcpNoDelay": True,
        "DicomAet": "PACS", "DicomPort": dicom, "DicomCheckCalledAet": False, "DicomAlwaysAllowStore": True,
        "Plugins": [],
    }  # fmt: skip
    (folder / "db").mkdir()
    (folder / "orthanc.json").write_text(json.dumps(settings))
    environment = {**os.environ, "LD_PRELOAD": str(folder / "loopback.so"), "TCP_NODELAY": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(folder / "orthanc.json")], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait_for(http, process)
            yield dicom, http
        finally:
            process.terminate()
            process.wait(20)


def _build_loopback(compiler: str, folder: Path) -> None:
    """A library that lets a program bind to the loopback address where it asks for all addresses."""
    source = folder / "loopback.c"
    source.write_text(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <netinet/in.h>\n#include <sys/socket.h>\n"
        "int bind(int fd, const struct sockaddr *address, socklen_t size) {\n"
        '  int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");\n'
        "  struct sockaddr_in local;\n"
        "  if (address == 0 || address->sa_family != AF_INET) return real(fd, address, size);\n"
        "  local = *(const struct sockaddr_in *)address;\n"
        "  if (local.sin_addr.s_addr == INADDR_ANY) local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);\n"
        "  return real(fd, (struct sockaddr *)&local, sizeof local);\n}\n"
    )
    library = folder / "loopback.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            _get(port, "/system")
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("Orthanc did not start")


def _get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return bytes(answer.read())


def test_orthanc_stores_our_srs_and_gives_them_back_whole(orthanc: tuple[int, int]) -> None:
    from pynetdicom import AE

    dicom, http = orthanc
    case = CASES["three findings"]
    srs = [findings_sr(case.report, case.headers), text_sr(case.report, case.headers)]
    client = AE("TEST")
    for sr in srs:
        client.add_requested_context(sr.SOPClassUID)

    association = client.associate("127.0.0.1", dicom, ae_title="PACS")
    statuses = [association.send_c_store(sr).Status for sr in srs]
    association.release()

    assert statuses == [0x0000, 0x0000]
    for sr in srs:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{http}/tools/lookup", data=sr.SOPInstanceUID.encode(), method="POST"
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            (found,) = json.loads(answer.read())
        back = pydicom.dcmread(pydicom.filebase.DicomBytesIO(_get(http, f"{found['Path']}/file")))
        assert back == sr
        assert json.loads(_get(http, f"{found['Path']}/simplified-tags"))["VerificationFlag"] == "UNVERIFIED"
    series = [json.loads(_get(http, f"/series/{one}")) for one in json.loads(_get(http, "/series"))]
    assert sorted(one["MainDicomTags"]["SeriesNumber"] for one in series) == ["9001", "9002"]


# What we say of the others


def test_every_viewer_is_said_to_show_a_report_of_ours_and_to_break_on_none() -> None:
    for case in CASES.values():
        for sr in (findings_sr(case.report, case.headers), text_sr(case.report, case.headers)):
            seen = views(document_of(sr))

            assert [view.viewer for view in seen][:2] == ["OHIF 3.13", "3D Slicer 5.12"]
            assert [view.breaks for view in seen] == [()] * len(seen)


def test_slicer_is_said_to_break_without_site_without_finding_and_on_mixed_regions() -> None:
    case = CASES["three findings"]
    said = {}
    for name, spoil in {
        "site": lambda group: _drop(group, "363698007"),
        "finding": lambda group: _drop(group, "121071"),
        "mixed": _in_space,
    }.items():
        sr = findings_sr(case.report, case.headers)
        spoil(_groups(sr)[0])
        said[name] = views(document_of(sr))[1].breaks

    assert [len(breaks) for breaks in said.values()] == [1, 1, 1]
    assert "IndexError" in said["site"][0]
    assert "no Finding" in said["finding"][0]
    assert "points in space" in said["mixed"][0]


def test_what_is_lost_is_counted() -> None:
    case = CASES["three findings"]
    sr = findings_sr(case.report, case.headers)

    ohif_view, slicer, ours, _, weasis, dcmqi = views(document_of(sr))

    assert ohif_view.shows == "3 drawn, 3 become measurements"
    assert "2 findings without a place" in ohif_view.loses
    assert slicer.shows == "a table of 3 findings and the regions"
    assert ours.shows == "5 findings, 3 with a region; 0 sentences"
    assert weasis.loses == ("the drawing of 3 regions",)
    assert dcmqi.loses == ("the coordinates of 3 regions",)


def test_dsr2html_loses_the_names_of_items_in_continuous_containers_as_we_say(tmp_path: Path) -> None:
    case = CASES["three findings"]
    sr = text_sr(case.report, case.headers)
    for item in sr.ContentSequence:
        if item.ValueType == "CONTAINER":
            item.ContinuityOfContent = "CONTINUOUS"

    shown = dsr2html(sr, tmp_path)

    names = sum(len(one.ContentSequence) for one in sr.ContentSequence if one.ValueType == "CONTAINER")
    assert views(document_of(sr))[3].loses == (f"the {names} names of items in CONTINUOUS containers",)
    assert "<b>Finding:</b>" not in shown
    assert "<b>Finding:</b>" in dsr2html(text_sr(case.report, case.headers), tmp_path)


def test_dsr2html_refuses_a_nameless_text_as_we_say(tmp_path: Path) -> None:
    case = CASES["three findings"]
    sr = findings_sr(case.report, case.headers)
    _with_a_nameless_item(_groups(sr)[1])

    assert "refuses the file" in views(document_of(sr))[3].breaks[0]
    with pytest.raises(subprocess.CalledProcessError):
        dsr2html(sr, tmp_path)
