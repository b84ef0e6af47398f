"""Nodes for tests: in this process or one of their own, sent to by a real storescu, looked at afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy import Engine

from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, Output
from medmllm_plugin.dicom_bridge.rules import parse_rules
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Store, StudyRow
from medmllm_plugin.dicom_bridge.tables import open_database
from medmllm_plugin.phantoms import write_study

ROOT = Path(__file__).parents[1]
SENDER = shutil.which("storescu")
SALT = b"a salt of tests only"


def settings_for(folder: Path, **values: Any) -> NodeSettings:
    """A quick node that reads everything and delivers into the folder `out`."""
    plain: dict[str, Any] = {
        "folder": folder / "node",
        "node": "one",
        "port": 0,
        "http_port": None,
        "low_disk_bytes": 0,
        "quiet_s": 2.0,
        "evidence_quiet_s": 0.4,
        "reads_at_once": 1,
        "outputs": {"out": Output(folder=folder / "out")},
        "rules": parse_rules([{"name": "all", "when": {}}], where="rules"),
    }
    return NodeSettings(**{**plain, **values})


def a_study(folder: Path, *, seed: int = 7, slices: int = 16, matrix: int = 64) -> list[Path]:
    """The files of a small phantom."""
    write_study(folder, kind="ct-chest", seed=seed, slices=slices, matrix=matrix)
    return sorted(folder.rglob("*.dcm"))


def send(port: int, files: list[Path], *, calling: str = "CT1", called: str = "MEDMLLM") -> int:
    """Send files with storescu; how many were acknowledged with Success."""
    done = subprocess.run(
        [
            str(SENDER),
            "-v",
            "-R",
            "-aet",
            calling,
            "-aec",
            called,
            "127.0.0.1",
            str(port),
            *map(str, files),
        ],
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


@dataclass
class Process:
    """A node that runs as a process of its own."""

    config: Path
    running: subprocess.Popen[str] | None = None
    port: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    """Variables beside ours."""

    def start(self, *, dying: str | None = None) -> None:
        """Start it; `dying` says where it shall end, as `tests.dying_node` takes it."""
        command = ["-m", "medmllm_plugin", "serve", "--config", str(self.config)]
        if dying is not None:
            command = ["-m", "tests.dying_node", str(self.config), dying]
        with self.config.with_suffix(".log").open("a") as log:
            self.running = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TCP_NODELAY": "1", **self.environment},
            )
        assert self.running.stdout is not None
        said = self.running.stdout.readline()
        self.port = int(said.split(":")[1].split(",")[0]) if "listens on" in said else 0

    def is_running(self) -> bool:
        """Whether it hasn't ended."""
        return self.running is not None and self.running.poll() is None

    def kill(self) -> None:
        """End it at once."""
        if self.running is not None:
            self.running.kill()
            self.wait()

    def stop(self) -> int:
        """End it in order; its exit code."""
        assert self.running is not None
        self.running.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended; its exit code."""
        assert self.running is not None
        code = self.running.wait(timeout=60)
        if self.running.stdout is not None:
            self.running.stdout.close()
        return code


def write_config(path: Path, *, folder: Path, model: str, more: Sequence[str] = (), **node: Any) -> Path:
    """A settings file of a quick node that reads everything and delivers into the folder `out` beside it.

    Args:
        path: The file.
        folder: Of the node.
        model: As `--model` takes it.
        more: Lines of TOML.
        **node: Of the table `node`.
    """
    said = {
        "folder": str(folder),
        "node": path.stem,
        "port": 0,
        "quiet_s": 2.0,
        "evidence_quiet_s": 0.3,
        "reads_at_once": 1,
        "low_disk_bytes": 0,
        "http_port": False,
        "model": model,
        "retry_max_s": 2.0,
        "salt_file": str(path.parent / "salt"),
        **node,
    }
    (path.parent / "salt").write_bytes(SALT)
    lines = ["[node]", *(f"{name} = {_toml(value)}" for name, value in said.items())]
    lines += ["[outputs.out]", f"folder = {_toml(str(path.parent / 'out'))}"]
    lines += [*more, "[[rules]]", 'name = "all"', "when = {}"]
    path.write_text("\n".join(lines) + "\n")
    return path


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | int | float) else json.dumps(value)


def open_store(url: str) -> tuple[Engine, Store]:
    """The store of a node, for looking at."""
    engine = open_database(url)
    return engine, Store(engine, salt=SALT)


@dataclass(frozen=True)
class Sr:
    """A report as it lies at a destination."""

    uid: str
    study: str
    sop_class: str
    predecessors: tuple[str, ...]
    words: str
    """All text in it."""
    evidence: frozenset[str]
    """SOP Instance UIDs of the images it is about."""


def reports_in(folder: Path) -> Mapping[str, list[Sr]]:
    """The SRs of a folder by Study Instance UID."""
    return reports_among(dcmread(path) for path in sorted(folder.rglob("*.dcm")))


def reports_among(objects: Iterable[Dataset]) -> Mapping[str, list[Sr]]:
    """The SRs among DICOM objects by Study Instance UID."""
    found: dict[str, list[Sr]] = defaultdict(list)
    for one in objects:
        if one.Modality != "SR":
            continue
        predecessors = [
            str(reference.ReferencedSOPInstanceUID)
            for item in one.get("PredecessorDocumentsSequence", ())
            for series in item.ReferencedSeriesSequence
            for reference in series.ReferencedSOPSequence
        ]
        evidence = [
            str(reference.ReferencedSOPInstanceUID)
            for item in one.CurrentRequestedProcedureEvidenceSequence
            for series in item.ReferencedSeriesSequence
            for reference in series.ReferencedSOPSequence
        ]
        sr = Sr(
            uid=str(one.SOPInstanceUID),
            study=str(one.StudyInstanceUID),
            sop_class=str(one.SOPClassUID),
            predecessors=tuple(predecessors),
            words=str(one),
            evidence=frozenset(evidence),
        )
        found[sr.study].append(sr)
    return found


def current(reports: list[Sr]) -> list[Sr]:
    """Those that no other report takes the place of."""
    replaced = {uid for one in reports for uid in one.predecessors}
    return [one for one in reports if one.uid not in replaced]


def hashes(folder: Path) -> dict[str, str]:
    """The content of the objects in a folder, by name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.dcm"))
    }
