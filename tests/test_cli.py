"""Each command parses, calls one function, prints, and gives the right exit code; errors are one line."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib

import click
import pytest

from medmllm_plugin import __version__
from medmllm_plugin.cli import medmllm
from tests.cli_called import ROOT, run


def commands(group: click.Group = medmllm, *before: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found += commands(command, *before, name) if isinstance(command, click.Group) else [(*before, name)]
    return found


def test_the_version_is_that_of_the_distribution() -> None:
    result = run("--version")

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert result.stdout == f"medmllm {__version__}\n"
    assert __version__ == project["version"] == importlib.metadata.version("medmllm-plugin")


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_each_command_has_help_with_its_options_explained(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")

    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: medmllm {' '.join(command)} ")
    assert "--json" in result.stdout


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_each_command_is_documented(command: tuple[str, ...]) -> None:
    pages = [page for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")) if page.exists()]
    if not (ROOT / "README.md").exists():
        pytest.skip("there is no README.md beside these tests, as in an installed wheel")

    documented = "\n".join(page.read_text("utf-8") for page in pages)

    assert re.search(rf"medmllm {' '.join(command)}\b", documented)


def test_without_a_command_the_help_is_shown() -> None:
    assert run().exit_code == 0
    assert "medmllm read study" in run().stdout
    assert "show" in run("sr").stdout
