"""Folders, links, packaging and pins agree with each other."""

from __future__ import annotations

import ast
import fnmatch
import re
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import medmllm_plugin

ROOT = Path(__file__).parents[1]
LINKED = ("dicom_bridge", "transforms")
"""Folders of the root that are subpackages of `medmllm_plugin`."""

MODULES = (".py", ".pyc", ".c", ".h", ".so", ".pyd")
"""Modules, what they are compiled from, and what they are compiled to."""


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def packages() -> dict[str, Path]:
    """The packages that are there, by their full names: each folder with an `__init__.py`."""
    found = {}
    for folder in ("medmllm_plugin", *LINKED):
        for init in (ROOT / folder).rglob("__init__.py"):
            inside = init.parent.relative_to(ROOT)
            if folder in LINKED:
                found["medmllm_plugin." + ".".join(inside.parts)] = init.parent
            elif not set(inside.parts) & set(LINKED):
                found[".".join(inside.parts)] = init.parent
    return found


def requirements() -> dict[str, list[Requirement]]:
    """What is required, by the name of the extra; the empty name is the core."""
    project = pyproject()["project"]
    texts = {"": project["dependencies"], **project["optional-dependencies"]}
    return {name: [Requirement(one) for one in lines] for name, lines in texts.items()}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_each_package_is_listed_with_its_folder() -> None:
    setuptools = pyproject()["tool"]["setuptools"]

    assert sorted(setuptools["packages"]) == sorted(packages())
    assert {name: ROOT / folder for name, folder in setuptools["package-dir"].items()} == packages()


@pytest.mark.parametrize("name", LINKED)
def test_each_link_leads_to_its_folder(name: str) -> None:
    link = ROOT / "medmllm_plugin" / name

    target = str(link.readlink()) if link.is_symlink() else link.read_text("utf-8").strip()

    assert target == f"../{name}"
    assert (ROOT / name / "__init__.py").is_file()


def test_each_file_of_a_package_is_shipped() -> None:
    shipped = pyproject()["tool"]["setuptools"]["package-data"]

    forgotten = []
    for name, folder in packages().items():
        inner = {path for other, path in packages().items() if other.startswith(f"{name}.")}
        for path in folder.rglob("*"):
            inside = path.relative_to(folder)
            if path.is_dir() or path.suffix in MODULES or inside.parts[0] in LINKED:
                continue
            if any(other in path.parents for other in inner) or path.is_symlink():
                continue
            if not any(fnmatch.fnmatch(inside.as_posix(), pattern) for pattern in shipped.get(name, [])):
                forgotten.append(f"{name}: {inside}")

    assert forgotten == []


def test_each_pattern_of_shipped_files_finds_one() -> None:
    shipped = pyproject()["tool"]["setuptools"]["package-data"]

    found = {
        f"{name}: {pattern}": any(packages()[name].glob(pattern))
        for name, patterns in shipped.items()
        for pattern in patterns
    }

    assert "medmllm_plugin: py.typed" in found
    assert all(found.values()), found


def test_the_version_is_said_the_same_everywhere() -> None:
    version = pyproject()["project"]["version"]

    assert medmllm_plugin.__version__ == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("extra", ["", "imaging", "engine", "node", "eval", "bench", "dev"])
def test_each_requirement_has_an_exact_pin_that_satisfies_it(extra: str) -> None:
    pinned = pins()

    wrong = [
        f"{one}: pinned {pinned.get(canonicalize_name(one.name))}"
        for one in requirements()[extra]
        if one.name != "medmllm-plugin"
        and (
            canonicalize_name(one.name) not in pinned
            or not one.specifier.contains(pinned[canonicalize_name(one.name)])
        )
    ]

    assert requirements()[extra]
    assert wrong == []


def test_pins_name_versions_and_not_builds_for_one_machine() -> None:
    assert len(pins()) > 50
    assert [
        f"{name}=={version}"
        for name, version in pins().items()
        if not re.fullmatch(r"[\d.]+(?:post\d+)?", version)
    ] == []


def test_vllm_is_installed_only_where_it_is_asked_for() -> None:
    asking = [
        extra
        for extra, lines in requirements().items()
        for one in lines
        if one.name == "vllm" or "vllm" in one.extras
    ]

    assert asking == ["vllm"]
    assert "vllm" not in pins()


def test_the_light_core_requires_no_engine() -> None:
    core = {canonicalize_name(one.name) for one in requirements()[""]}
    engine = {canonicalize_name(one.name) for one in requirements()["engine"]}

    assert core & engine == set()
    assert {"torch", "transformers"} <= engine


def test_each_module_is_imported_by_a_test_or_by_a_module() -> None:
    """A module that nothing imports is dead, or its test is missing; entry points are tested by name."""
    started = {"medmllm_plugin.__main__", "medmllm_plugin.models.embedded", "medmllm_plugin.models.scripted"}
    sources = [
        *(ROOT / "tests").rglob("*.py"),
        *(path for one in packages().values() for path in one.glob("*.py")),
    ]
    named: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                named |= {str(node.module), *(f"{node.module}.{one.name}" for one in node.names)}
            elif isinstance(node, ast.Import):
                named |= {one.name for one in node.names}

    modules = {
        f"{name}.{path.stem}"
        for name, folder in packages().items()
        for path in folder.glob("*.py")
        if path.stem != "__init__"
    }

    assert sorted(modules - named - started) == []


def test_no_module_is_loaded_twice_under_two_names() -> None:
    names: dict[Path, list[str]] = defaultdict(list)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None:
            names[Path(file).resolve()].append(name)

    twice = {
        str(path): found
        for path, found in names.items()
        if len(found) > 1 and any((ROOT / folder) in path.parents for folder in ("medmllm_plugin", *LINKED))
    }

    assert names[ROOT / "medmllm_plugin" / "__init__.py"] == ["medmllm_plugin"]
    assert twice == {}
