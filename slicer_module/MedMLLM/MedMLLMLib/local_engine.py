"""An engine that this extension starts on this machine, where the package is installed beside Slicer."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path

from .client import Address

_SETTINGS = """# Written by the 3D Slicer extension MedMLLM at each start of the local engine.
[node]
folder = {folder}
port = 0
http_port = {http_port}
http_token_env = "MEDMLLM_TOKEN"
unmatched = "keep"
model = {model}
"""


class NoLocalEngineError(Exception):
    """It can't be started; the message says what to do."""


def command(setting: str = "") -> str:
    """The program `medmllm`.

    Args:
        setting: What the reader entered, if anything.

    Raises:
        NoLocalEngineError: If it is nowhere.
    """
    found = setting if setting and Path(setting).is_file() else shutil.which(setting or "medmllm")
    if found is None:
        raise NoLocalEngineError(
            "the program medmllm isn't on this machine's path: install it beside Slicer, in a Python of "
            "its own "
            "(pip install 'medmllm-plugin[engine,node]'), or enter where it is under Engine"
        )
    return found


class LocalEngine:
    """One engine of ours. It reads what is asked, and nothing by itself, for it has no rules."""

    def __init__(self, folder: Path, *, setting: str = "", model: str = "embedded", port: int = 0) -> None:
        """Start it; it answers some seconds later.

        Args:
            folder: Its studies, jobs and log.
            setting: As `command` takes it.
            model: As `medmllm serve` takes it.
            port: Of HTTP; 0 for any that is free.

        Raises:
            NoLocalEngineError: If it can't be started.
        """
        program = command(setting)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        port = port or _free_port()
        token = secrets.token_urlsafe(32)
        config = folder / "medmllm.toml"
        config.write_text(
            _SETTINGS.format(folder=_quoted(str(folder / "node")), http_port=port, model=_quoted(model)),
            "utf-8",
        )
        self.log = folder / "engine.log"
        self.address = Address(url=f"http://127.0.0.1:{port}", token=token)
        with self.log.open("ab") as log:
            try:
                self._running = subprocess.Popen(
                    [program, "serve", "--config", str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**_plain_environment(), "MEDMLLM_TOKEN": token},
                )
            except OSError as error:
                raise NoLocalEngineError(f"{program} can't be started ({error.strerror})") from error

    @property
    def is_running(self) -> bool:
        """Whether it hasn't ended."""
        return self._running.poll() is None

    def last_words(self) -> str:
        """The end of its log, for whoever wants to know why it ended."""
        try:
            return self.log.read_text("utf-8", errors="replace")[-2000:].strip()
        except OSError:
            return ""

    def stop(self, timeout_s: float = 10.0) -> None:
        """End it."""
        if self.is_running:
            self._running.terminate()
            try:
                self._running.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._running.kill()
                self._running.wait(timeout_s)


def _plain_environment() -> dict[str, str]:
    """The environment without what makes another Python load Slicer's libraries."""
    slicers = ("PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "QT_PLUGIN_PATH")
    return {name: value for name, value in os.environ.items() if name not in slicers}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
