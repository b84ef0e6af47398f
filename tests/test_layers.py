"""Imports point downwards only, and the light core stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "medmllm_plugin"
FOLDERS = {"transforms": ROOT / "transforms", "dicom_bridge": ROOT / "dicom_bridge", "": ROOT / PACKAGE}
"""Where the modules lie, by what stands between the package's name and theirs."""

LAYERS = (
    {
        "errors",
        "source",
        "geometry",
        "volume",
        "headers",
        "resampled",
        "slice",
        "sliceset",
        "codes",
        "lookup",
        "findings",
        "report",
        "schemas",
        "outputs",
        "pictures",
    },
    {"transforms"},
    {
        "tasks",
        "checklists",
        "place",
        "request",
        "prompts",
        "quoting",
        "described",
        "prompting",
        "volumes",
        "two_eyes",
        "calibration",
        "reliability",
        "capabilities",
        "guard",
        "models",
        "reply_forms",
        "token_odds",
        "placing",
        "parsing",
        "config",
        "registry",
        "thoughts",
        "asking",
        "strategies",
        "counterfactual",
        "trials",
        "closer",
        "evidence",
        "certainty",
        "statements",
        "checks",
        "engine",
    },
    {"dicom_bridge", "fhir", "page", "page_evidence", "page_pictures", "phantoms", "scoring"},
    {
        "truth_reader",
        "sr_read_back",
        "verdicts",
        "coverage",
        "views",
        "priors",
        "opening",
        "writing",
        "pipeline",
    },
    {"selftest", "selftest_node", "selftest_page", "calibrating", "calibrating_page"},
    {"evaluation"},
    {
        f"dicom_bridge.{name}"
        for name in (
            *("worker", "picturing", "node", "checking", "on_request", "wishes", "health", "metrics"),
            *("http_files", "http_api", "http_jobs", "http_server", "http_stow", "http_studies"),
        )
    },
    {"transforms.monai_array", "transforms.monai"},
    {
        "console",
        "cli_ask",
        "cli_calibrate",
        "cli_eval",
        "cli_eval_clinical",
        "cli_common",
        "cli_models",
        "cli_pictures",
        "cli_pull",
        "cli_read",
        "cli_selftest",
        "cli_serve",
        "cli_serve_check",
        "cli_sr",
        "cli",
        "__main__",
    },
)
"""Modules and subpackages from the lowest layer, the values, to the highest, the command.

A module of a subpackage may stand in a layer of its own: MONAI's transforms lie beside the others, but some
of them run the whole line.
"""

APART = ({"dicom_bridge"}, {"page", "page_evidence", "page_pictures"}, {"phantoms"})
"""These stand in one layer and know nothing of each other."""

RAS_DOORS = {f"{PACKAGE}.{name}" for name in ("transforms.nifti", "transforms.metatensor", "phantoms.nifti")}
"""Everything else is LPS; each door has a test of the way there and back."""

HEAVY = ("torch", "torchvision", "transformers", "monai", "highdicom", "nibabel", "SimpleITK", "PIL", "rich")


def modules() -> dict[str, Path]:
    """Every module of the package by its full name, found in the real folders and not through the links."""
    found = {}
    for between, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder)
            if between or inside.parts[0] not in FOLDERS:
                parts = [part for part in (PACKAGE, between, *inside.with_suffix("").parts) if part]
                found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported(source: str, *, known: set[str]) -> set[str]:
    """Our modules that a source imports anywhere: at its top, in functions, and for type checkers."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import, expected an absolute one"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in known else str(node.module))
    return {name for name in names if name == PACKAGE or name.startswith(f"{PACKAGE}.")}


def layer(module: str) -> int:
    """The number of a module's layer from 0, the lowest."""
    _, subpackage, *rest = module.split(".")
    for name in (".".join([subpackage, *rest]), subpackage):
        numbers = [number for number, names in enumerate(LAYERS) if name in names]
        assert len(numbers) < 2, (
            f"{module} stands in {len(numbers)} layers of tests/test_layers.py, expected one"
        )
        if numbers:
            return numbers[0]
    raise AssertionError(f"{module} stands in no layer of tests/test_layers.py, expected one")


def imports() -> Iterator[tuple[str, str]]:
    """(importing, imported) for all modules but the package itself, whose public names come from all."""
    known = modules()
    for module, path in known.items():
        if module != PACKAGE:
            for other in imported(path.read_text("utf-8"), known=set(known)) - {PACKAGE, module}:
                yield module, other


def test_imports_are_found_wherever_they_stand() -> None:
    source = """
from typing import TYPE_CHECKING
import numpy
import medmllm_plugin.codes
from medmllm_plugin import __version__
if TYPE_CHECKING:
    from medmllm_plugin.report import Report
def late():
    from medmllm_plugin import page, pipeline
    from medmllm_plugin.transforms.window import PRESETS
"""

    found = imported(source, known=set(modules()))

    assert found == {
        "medmllm_plugin",
        *(f"medmllm_plugin.{name}" for name in ("codes", "report", "page", "pipeline", "transforms.window")),
    }


def test_modules_of_all_three_folders_are_looked_at() -> None:
    names = set(modules())

    assert {"medmllm_plugin", "medmllm_plugin.engine", "medmllm_plugin.models.embedded"} <= names
    assert {"medmllm_plugin.transforms.window", "medmllm_plugin.dicom_bridge.sr_writer"} <= names
    assert len(set(modules().values())) == len(names)


def test_imports_point_downwards_only() -> None:
    upwards = [f"{above} imports {below}" for above, below in imports() if layer(below) > layer(above)]

    assert upwards == []


def test_page_phantoms_and_bridge_know_nothing_of_each_other() -> None:
    def group(module: str) -> set[str]:
        return next((names for names in APART if module.split(".")[1] in names), set())

    sideways = [
        f"{one} imports {other}"
        for one, other in imports()
        if group(one) and group(other) and group(one) != group(other)
    ]

    assert sideways == []


def test_ras_is_spoken_at_its_doors_only() -> None:
    speakers = {
        module
        for module, path in modules().items()
        if any(
            isinstance(node, ast.Name | ast.alias)
            and "RAS_FROM_LPS" in (getattr(node, "id", ""), getattr(node, "name", ""))
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
        )
    }

    assert speakers - RAS_DOORS == {f"{PACKAGE}.geometry"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for one, other in imports():
        graph.setdefault(one, set()).add(other)

    order = list(TopologicalSorter(graph).static_order())

    assert set(graph) <= set(order)


def test_the_package_imports_nothing_that_lies_beside_it() -> None:
    beside = {"tests", "tools", "benchmarks", "slicer_module", *filter(None, FOLDERS)}

    strangers = [
        f"{module} imports {name}"
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([one.name for one in node.names] if isinstance(node, ast.Import) else [str(node.module)])
        if name.split(".")[0] in beside
    ]

    assert strangers == []


@pytest.mark.parametrize("module", ["medmllm_plugin", "medmllm_plugin.cli", "medmllm_plugin.transforms"])
def test_importing_leaves_heavy_packages_alone(module: str) -> None:
    script = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & sys.modules.keys()))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("module", ["medmllm_plugin.pipeline", "medmllm_plugin.phantoms"])
def test_the_whole_line_is_imported_without_the_engine(module: str) -> None:
    script = (
        f"import sys, {module}; print(*sorted({{'torch', 'transformers', 'monai'}} & sys.modules.keys()))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
