"""A node for tests: started in this process or as one of its own, sent to by a real storescu."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, Output
from medmllm_plugin.dicom_bridge.rules import parse_rules
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Store, StudyRow
from medmllm_plugin.phantoms import write_study

SENDER = shutil.which("storescu")


def settings_for(folder: Path, **values: Any) -> NodeSettings:
    """A quick node that reads everything and writes into the folder `out`."""
    plain: dict[str, Any] = {
        "folder": folder / "node",
        "node": "one",
        "port": 0,
        "http_port": None,
        "low_disk_bytes": 0,
        "quiet_s": 2.0,
        "evidence_quiet_s": 0.4,
        "outputs": {"out": Output(folder=folder / "out")},
        "rules": parse_rules([{"name": "all", "when": {}}], where="rules"),
    }
    return NodeSettings(**{**plain, **values})


def a_study(folder: Path, *, seed: int = 7, slices: int = 16, matrix: int = 64) -> list[Path]:
    """The files of a small phantom."""
    write_study(folder, kind="ct-chest", seed=seed, slices=slices, matrix=matrix)
    return sorted(folder.rglob("*.dcm"))


def send(port: int, files: list[Path], *, calling: str = "CT1") -> int:
    """Send files with storescu; how many were acknowledged with Success."""
    done = subprocess.run(
        [str(SENDER), "-v", "-aet", calling, "-aec", "MEDMLLM", "127.0.0.1", str(port), *map(str, files)],
        capture_output=True,
        text=True,
        timeout=120,
        env={"TCP_NODELAY": "1"},
    )
    return (done.stdout + done.stderr).count("Received Store Response (Success)")


def wait_for(condition: Callable[[], Any], *, within_s: float = 60.0) -> Any:
    """What the condition gives, once that is true."""
    until = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)
    return found


def one_in(store: Store, *states: State) -> StudyRow | None:
    """The one study of a store, once it is in one of these states."""
    found = store.studies(*states)
    return found[0] if len(found) == 1 else None
