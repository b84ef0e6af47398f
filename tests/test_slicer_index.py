"""What the Extensions Index and Slicer's build read of the extension: lists, metadata, rule, sample."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydicom
import pytest
import rule_engine
from PIL import Image

ROOT = Path(__file__).parents[1]
EXTENSION = ROOT / "slicer_module"
LIB = EXTENSION / "MedMLLM" / "MedMLLMLib"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"

SLICER_CONFIG = """
set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/use.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_DIR}/nothing.cmake)
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_DIR}/nothing.cmake)
"""
USE_FILE = """
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(ONE "WITH_GENERIC_TESTS;WITH_SUBDIR" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  foreach(file ${ONE_SCRIPTS} ${ONE_RESOURCES})
    file(APPEND ${CMAKE_BINARY_DIR}/listed "${CMAKE_CURRENT_SOURCE_DIR}/${file}\\n")
  endforeach()
endfunction()
function(slicer_add_python_unittest)
  cmake_parse_arguments(ONE "" "SCRIPT" "" ${ARGN})
  file(APPEND ${CMAKE_BINARY_DIR}/listed "${CMAKE_CURRENT_SOURCE_DIR}/${ONE_SCRIPT}\\n")
endfunction()
"""


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> set[Path]:
    """The files that CMake is told of; Slicer's own functions are stood in for, CMake is real."""
    if shutil.which("cmake") is None:
        pytest.skip("CMake isn't installed: make system-packages")
    slicer, build = tmp_path_factory.mktemp("slicer"), tmp_path_factory.mktemp("build")
    (slicer / "SlicerConfig.cmake").write_text(SLICER_CONFIG)
    (slicer / "use.cmake").write_text(USE_FILE)
    (slicer / "nothing.cmake").write_text("")
    told = [f"-DSlicer_DIR={slicer}", "-DBUILD_TESTING=ON", "-S", str(ROOT), "-B", str(build)]
    subprocess.run(["cmake", "-Wno-dev", *told], check=True, capture_output=True, text=True)
    return {Path(line) for line in (build / "listed").read_text().splitlines()}


def test_cmake_lists_every_file_of_the_modules_and_no_other(listed: set[Path]) -> None:
    there = {
        path
        for module in ("MedMLLM", "DICOMMedMLLMPlugin")
        for path in (EXTENSION / module).rglob("*")
        if path.is_file() and path.name != "CMakeLists.txt" and path.suffix != ".pyc"
    }

    assert listed == there


@pytest.fixture(scope="module")
def entry() -> dict[str, Any]:
    text = (EXTENSION / "extensions_index" / "MedMLLM.json").read_text("utf-8")
    assert "\r" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def root_settings() -> dict[str, str]:
    text = (ROOT / "CMakeLists.txt").read_text("utf-8")
    return dict(re.findall(r'set\(EXTENSION_(\w+)\s+"([^"]*)"\)', text))


def test_the_entry_of_the_index_has_the_fields_of_its_schema(entry: dict[str, Any]) -> None:
    kinds = {
        "$schema": str,
        "build_dependencies": list,
        "build_subdirectory": str,
        "category": str,
        "dicom_support_rule": str,
        "enabled": bool,
        "scm_revision": str,
        "scm_type": str,
        "scm_url": str,
        "tier": int,
    }

    assert {"$schema", "category", "scm_url"} <= set(entry) <= set(kinds)
    assert all(isinstance(value, kinds[key]) for key, value in entry.items())
    assert entry["tier"] == 1


def test_the_root_file_names_the_project_and_holds_what_the_index_looks_for() -> None:
    text, settings = (ROOT / "CMakeLists.txt").read_text("utf-8"), root_settings()

    assert re.search(r"^project\(MedMLLM\)$", text, re.MULTILINE)
    assert {"HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"} == set(
        settings
    )
    assert "not a medical device" in settings["DESCRIPTION"]


def test_the_addresses_of_icon_and_screenshots_are_those_of_files_here() -> None:
    settings = root_settings()
    addresses = [settings["ICONURL"], *settings["SCREENSHOTURLS"].split()]

    paths = [ROOT / address.split("/main/", 1)[1] for address in addresses]

    assert [path for path in paths if not path.is_file()] == []


def test_the_icon_has_the_size_of_the_catalog() -> None:
    with Image.open(EXTENSION / "MedMLLM" / "Resources" / "Icons" / "MedMLLM.png") as icon:
        assert icon.size == (128, 128)
        assert icon.mode == "RGBA"


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(LIB.parent))
    import MedMLLMLib.samples as found

    yield found
    for name in [name for name in sys.modules if name.startswith("MedMLLMLib")]:
        del sys.modules[name]


def test_slicer_suggests_the_extension_for_our_structured_reports_and_for_nothing_else(
    entry: dict[str, Any], samples: Any, tmp_path: Path
) -> None:
    rule = rule_engine.Rule(entry["dicom_support_rule"])
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in samples.unpack(tmp_path)]

    matches = [
        one.Modality
        for one in headers
        if rule.matches({"Modality": one.Modality, "SOPClassUID": str(one.SOPClassUID)})
    ]

    assert matches == ["SR"]


def test_the_sample_is_a_phantom_with_the_report_of_its_images(samples: Any, tmp_path: Path) -> None:
    files = [pydicom.dcmread(path, stop_before_pixels=True) for path in samples.unpack(tmp_path)]

    (report,) = [one for one in files if one.Modality == "SR"]
    images = {one.SOPInstanceUID for one in files if one.Modality == "CT"}
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert report.SOPClassUID == COMPREHENSIVE_3D_SR
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence} <= images
    assert {str(one.PatientName).split("^")[0] for one in files} == {"PHANTOM"}


def test_a_sample_that_was_changed_is_refused(
    samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / samples.ARCHIVE.name
    changed.write_bytes(samples.ARCHIVE.read_bytes() + b" ")
    monkeypatch.setattr(samples, "ARCHIVE", changed)

    with pytest.raises(ValueError, match=hashlib.sha256(changed.read_bytes()).hexdigest()):
        samples.unpack(tmp_path / "out")


def test_the_repository_is_small_enough_for_the_index() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    sizes = [
        path.stat().st_size for path in map(ROOT.joinpath, listed.decode().split("\0")) if path.is_file()
    ]

    assert sum(sizes) < 100 * 2**20
