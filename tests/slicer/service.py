"""What the tests of the extension ask of the package: its engine service, its phantoms, its checks of an SR.

All of it runs in processes of the package's own Python, for the extension never imports the package.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("MEDMLLM_PYTHON") or str(ROOT / ".venv" / "bin" / "python")
_ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

CONFIG = """[node]
folder = "{folder}"
port = 0
http_port = {port}
unmatched = "keep"
low_disk_bytes = 0
{more}
"""


def run(*arguments: str, check: bool = True) -> str:
    """What a command of the package's Python prints."""
    done = subprocess.run(
        [PYTHON, *arguments], capture_output=True, text=True, env=_ENVIRONMENT, cwd=ROOT, timeout=240
    )
    if check and done.returncode:
        raise AssertionError(f"{arguments}: {done.stdout}{done.stderr}")
    return done.stdout


def phantom(folder: Path, *more: str) -> list[Path]:
    """The files of a synthetic study."""
    run("-m", "medmllm_plugin", "phantom", str(folder), *more)
    return sorted(folder.rglob("*.dcm"))


def truth(folder: Path) -> list[dict[str, Any]]:
    """What a synthetic study really shows."""
    found: list[dict[str, Any]] = json.loads((folder / "truth.json").read_text())["findings"]
    return found


def errors_of(path: str | Path) -> int:
    """How many errors dciodvfy finds in an SR."""
    tool = Path(PYTHON).parent / "dciodvfy"
    done = subprocess.run([str(tool), "-new", str(path)], capture_output=True, text=True)
    assert "Comprehensive3DSR" in done.stdout + done.stderr
    return sum(line.startswith("Error") for line in (done.stdout + done.stderr).splitlines())


@dataclass
class Service:
    """An engine service."""

    folder: Path
    seconds: float = 0.0
    more: str = ""
    """Lines of its settings."""
    environment: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    """Who is trusted, where the settings say that it speaks https."""
    certificate: Path | None = None
    port: int = 0
    running: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    def start(self) -> Service:
        """Start it, on the port and folder it had before if it had, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.port:
            with socket.socket() as one:
                one.bind(("127.0.0.1", 0))
                self.port = one.getsockname()[1]
        config = self.folder / "medmllm.toml"
        config.write_text(CONFIG.format(folder=self.folder / "node", port=self.port, more=self.more))
        with (self.folder / "log").open("ab") as log:
            self.running = subprocess.Popen(
                [PYTHON, str(Path(__file__).parent / "engine_process.py"), str(config), str(self.seconds)],
                stdout=log,
                stderr=log,
                env={**_ENVIRONMENT, **self.environment},
                cwd=ROOT,
            )
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health/live", timeout=2, context=self.tls).close()
                return self
            except (urllib.error.URLError, OSError):
                assert self.running.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < until, "it never answered"
                time.sleep(0.1)

    def kill(self) -> None:
        """End it at once."""
        if self.running is not None:
            self.running.kill()
            self.running.wait()
            self.running = None

    def jobs(self) -> list[dict[str, Any]]:
        """As it tells them itself."""
        with urllib.request.urlopen(f"{self.url}/api/jobs", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["jobs"]
            return found

    def wishes(self) -> list[dict[str, Any]]:
        """What was asked of it, the first first, as its own records say."""
        records = self.folder.rglob("jobs/*/*/job.json")
        found = sorted(
            (json.loads(one.read_text()) for one in records), key=lambda one: float(one["created"])
        )
        return [dict(one["wish"]) for one in found]
