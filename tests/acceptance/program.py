"""The command as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "medmllm_plugin", *map(str, arguments)]


def surroundings(litter: Path) -> dict[str, str]:
    """The environment of a run whose temporary files go to a folder that we can look into."""
    litter.mkdir(exist_ok=True)
    return {**os.environ, "TMPDIR": str(litter), "OMP_NUM_THREADS": "1"}


def left_in(litter: Path) -> list[str]:
    """What runs left among temporary files; torch keeps an empty folder there for its compiler's cache."""
    names = [path.name for path in litter.rglob("*")] if litter.exists() else []
    return [name for name in names if not name.startswith("torchinductor_")]
