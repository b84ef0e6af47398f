"""A Postgres server for tests: its own folder and port, on this machine alone."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.orthanc import free_port

_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
BINARIES = next((place for place in _PLACES if (place / "initdb").is_file()), None)
_NOBODY = "postgres"
"""Who runs it where tests are run by root, which the server refuses to be."""


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A server that runs; its URL."""
    assert BINARIES is not None
    data, port = folder / "postgres", free_port()
    as_nobody = _as_nobody(folder)
    data.mkdir()
    if as_nobody:
        shutil.chown(data, _NOBODY)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=60"
    commands = {
        "initdb": [BINARIES / "initdb", "-D", data, "-U", "test", "-A", "trust", "--no-sync"],
        "start": [BINARIES / "pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", options, "start"],
        "stop": [BINARIES / "pg_ctl", "-D", data, "-m", "immediate", "stop"],
    }
    for name in ("initdb", "start"):
        subprocess.run(
            [*as_nobody, *map(str, commands[name])], check=True, stdout=subprocess.DEVNULL, cwd="/"
        )
    try:
        yield f"postgresql://test@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*as_nobody, *map(str, commands["stop"])], stdout=subprocess.DEVNULL, cwd="/")


def _as_nobody(folder: Path) -> list[str]:
    if os.geteuid() != 0:
        return []
    pwd.getpwnam(_NOBODY)
    for one in (folder, *folder.parents):
        if one.stat().st_uid == 0 and one != Path("/"):
            one.chmod(one.stat().st_mode | 0o111)
    return ["runuser", "-u", _NOBODY, "--"]
