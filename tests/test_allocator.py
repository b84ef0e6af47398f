"""A node's threads share arenas of the C library, unless the environment says how many there are."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from tests.node_runner import Process, write_config

_HEAP = 64 * 2**20
"""On 64 bits each heap of an arena, but for the first arena's, begins at a multiple of this."""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about glibc")


def arenas(node: Process) -> int:
    """Anonymous regions of a process that begin where heaps of arenas do."""
    assert node.running is not None
    maps = Path(f"/proc/{node.running.pid}/maps").read_text().splitlines()
    found = (re.match(r"([0-9a-f]+)-[0-9a-f]+ rw-p 00000000 00:00 0\s*$", line) for line in maps)
    return sum(int(one[1], 16) % _HEAP == 0 for one in found if one)


@pytest.mark.parametrize(("environment", "fewest", "most"), [({}, 0, 2), ({"MALLOC_ARENA_MAX": "64"}, 3, 64)])
def test_the_threads_of_a_node_share_arenas(
    tmp_path: Path, environment: dict[str, str], fewest: int, most: int
) -> None:
    config = write_config(tmp_path / "one.toml", folder=tmp_path / "node", model="embedded")
    node = Process(config, environment=environment)
    node.start()
    try:
        found = arenas(node)
    finally:
        code = node.stop()

    assert code == 0
    assert fewest <= found <= most
