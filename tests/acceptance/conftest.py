"""The command in a folder of its own, and a phantom that it has read."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.program import Command, left_in, program, surroundings


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """Runs the command in an empty folder, and sees afterwards that no temporary file was left."""
    here, litter = tmp_path / "here", tmp_path / "litter"
    here.mkdir()

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            program(*arguments),
            cwd=here,
            env=surroundings(litter),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )

    yield run

    assert left_in(litter) == []


@pytest.fixture(scope="module")
def read_phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A phantom and its reading by the embedded model: the study, the output, what was printed."""
    folder = tmp_path_factory.mktemp("phantom")
    for arguments in (
        ("phantom", "study", "--seed", "7", "--slices", "32", "--findings", "mass,pleural_effusion"),
        ("read", "study", "-o", "out"),
    ):
        done = subprocess.run(
            program(*arguments),
            cwd=folder,
            env=surroundings(folder / "litter"),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert left_in(folder / "litter") == []
    assert sorted(path.name for path in folder.iterdir()) == ["litter", "out", "study"]
    return folder / "study", folder / "out", done.stdout
