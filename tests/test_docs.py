"""README and docs say what is true: their commands, options, examples, links and fields are there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from medmllm_plugin.cli import medmllm
from medmllm_plugin.phantoms import sample_study, write_study
from medmllm_plugin.phantoms.dicom import truth
from medmllm_plugin.report import Provenance, Report, finding_to_json
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volume import Study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "slicer_module/README.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def example_commands() -> Iterator[tuple[str, str]]:
    """(page, line) for each line of a shell block that calls `medmllm`."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("medmllm "):
                    yield str(page.relative_to(ROOT)), line


def commands(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The names of every command that does something, such as ("sr", "show")."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))
        if not isinstance(command, click.Group) or command.params:
            yield (*above, name)


def test_the_table_of_the_readme_has_each_command_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    table = readme.partition("| command | does |")[2].partition("\n\n")[0]

    told = [
        name
        for row in re.findall(r"^\| (`.*?) \| ", table, flags=re.MULTILINE)
        for name in re.findall(r"`medmllm ([a-z ]+?)(?: [A-Z].*?)?`", row)
    ]

    assert sorted(told) == sorted(" ".join(names) for names in commands(medmllm))


@pytest.mark.parametrize(("page", "line"), [pytest.param(*one, id=one[1]) for one in example_commands()])
def test_an_example_names_a_command_and_its_options(page: str, line: str) -> None:
    command: click.Command = medmllm
    words = shlex.split(line)[1:]

    while isinstance(command, click.Group) and (not command.params or command.commands.keys() & words[:1]):
        assert words[0] in command.commands, f"{page}: {line}"
        command = command.commands[words.pop(0)]
    options = [word.partition("=")[0] for word in words if word.startswith("-")]

    known = {option for parameter in command.params for option in parameter.opts}
    assert set(options) <= known, f"{page}: {line}"
    command.make_context("example", words)


def test_there_are_examples_to_check() -> None:
    assert len(list(example_commands())) > 8


def test_each_make_target_that_is_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))

    named = {
        (str(page.relative_to(ROOT)), target)
        for page in PAGES
        for target in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text("utf-8"), flags=re.MULTILINE)
    }

    assert {"demo", "test", "check"} <= {target for _, target in named}
    assert [one for one in named if one[1] not in targets] == []


def test_each_link_leads_to_a_file() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]

    assert broken == []


@pytest.mark.parametrize(
    "name", ["README.md", "docs/python-api.md", "docs/codes.md", "docs/evaluation.md", "docs/monai.md"]
)
def test_the_python_examples_run(name: str, tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    write_study(study, seed=4, slices=24)
    script = "\n".join(blocks(ROOT / name, "python"))

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )

    assert script
    assert done.returncode == 0, done.stderr


def test_each_field_of_the_files_is_described() -> None:
    told = set(re.findall(r"`([a-z_0-9]+)`", (ROOT / "docs" / "formats.md").read_text("utf-8")))
    phantom = sample_study(seed=4, findings=("nodule",))
    finding = finding_to_json(phantom.truth()[0])
    slices = SlicePlan(count=2, size=112).apply(phantom.volume()).to_json()

    written = {
        *(field.name for value in (Report, Provenance, Study) for field in fields(value)),
        *truth(phantom),
        *finding,
        *finding["box"],
        *finding["images"][0],
        *slices,
        *slices["series"],
        *slices["slices"][0],
    }

    assert {"to_patient", "outcome", "box", "weights_sha256"} <= written
    assert sorted(written - told) == []
