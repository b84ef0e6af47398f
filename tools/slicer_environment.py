"""Makes the environment of `make slicer`: Slicer's own libraries, and Qt, in a Python of its own.

Python 3.12 is Slicer's own; 3.11 will do. A second pydicom lies in it apart: that of Slicer 5.10.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "tests" / "slicer" / "requirements.txt"
OLDER_PYDICOM = "pydicom==2.4.4"
"""Of Slicer 5.10."""


def main() -> int:
    """Make it, unless it is there already for the same requirements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the environment is made")
    parser.add_argument("flags", nargs="*", help="options for pip, after --")
    asked = parser.parse_args()
    stamp = asked.folder / "slicer.stamp"
    content = hashlib.sha256(REQUIREMENTS.read_bytes() + OLDER_PYDICOM.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text("utf-8") == content:
        return 0
    python = _python()
    print(f"Installing Slicer's libraries into {asked.folder}; the first time takes minutes", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", str(asked.folder)], check=True)
    pip = [
        str(asked.folder / "bin" / "python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
    ]
    pip += asked.flags
    subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
    subprocess.run(
        [*pip, "--target", str(asked.folder / "slicer-5.10"), "--no-deps", OLDER_PYDICOM], check=True
    )
    stamp.write_text(content, "utf-8")
    return 0


def _python() -> str:
    """A Python 3.12 on the path or of a pyenv, or this one."""
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.12.*/bin/python3.12"))
    for found in (shutil.which("python3.12"), *map(str, pyenv)):
        if found is not None:
            tried = subprocess.run([found, "-c", "import ensurepip, venv"], capture_output=True)
            if tried.returncode == 0:
                return found
    return sys.executable


if __name__ == "__main__":
    sys.exit(main())
