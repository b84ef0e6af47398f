"""Free memory, on a bare computer and in a container."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from medmllm_plugin.models.main_memory import available_bytes


def a_group(folder: Path, *, limit: str, used: int, caches: int = 0) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\nfile {caches}\nfile_mapped 7\n")
    return folder


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    group = a_group(tmp_path, limit="1000000", used=700_000, caches=100_000)

    assert available_bytes(group=group) == 400_000


def test_a_full_container_has_nothing(tmp_path: Path) -> None:
    assert available_bytes(group=a_group(tmp_path, limit="1000", used=2000)) == 0


@pytest.mark.parametrize("limit", ["max", str(1 << 60)])
def test_a_container_without_a_limit_has_what_the_computer_has(tmp_path: Path, limit: str) -> None:
    found = available_bytes(group=a_group(tmp_path, limit=limit, used=0))

    assert 0 < found <= psutil.virtual_memory().total


def test_a_computer_without_control_groups_is_asked_itself(tmp_path: Path) -> None:
    assert 0 < available_bytes(group=tmp_path) <= psutil.virtual_memory().total
