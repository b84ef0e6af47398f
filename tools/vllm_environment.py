"""Makes the environment of `make test-vllm`: the real vLLM, built for the CPU, and this package.

It has to be one of its own, as vLLM asks for an older transformers, and needs the CPU build of torch, which
PyPI doesn't have. Where pip finds none, nothing is installed, and the tests of vLLM are skipped.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "tests" / "vllm" / "requirements.txt"
HOOK = Path(__file__).parent / "torchvision_hook.py"
NEEDED = "torch==2.13.0+cpu"
"""As in the requirements; what decides whether vLLM can be tried here."""

LACKING = f"""
== vLLM is NOT tested here: pip finds no {NEEDED} for this machine.
   With an index that has it: make test-vllm PIP_FLAGS='--extra-index-url URL'
"""


def main() -> int:
    """Make it, unless it is there already for the same requirements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the environment is made")
    parser.add_argument("flags", nargs="*", help="options for pip, after --")
    asked = parser.parse_args()
    pip = [str(asked.folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    pip += ["--quiet", "--no-deps", *asked.flags]
    stamp = asked.folder / "vllm.stamp"
    if not _fresh(stamp, REQUIREMENTS, HOOK):
        venv.create(asked.folder, with_pip=True, clear=True)
        tried = subprocess.run([*pip, "--dry-run", NEEDED], capture_output=True, text=True)
        if f"No matching distribution found for {NEEDED}" in tried.stderr:
            print(LACKING)
            return 0
        print(f"Installing vLLM into {asked.folder}; the first time takes minutes", flush=True)
        subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
        (packages,) = asked.folder.glob("lib/python*/site-packages")
        shutil.copy(HOOK, packages)
        (packages / f"{HOOK.stem}.pth").write_text(f"import {HOOK.stem}\n", "utf-8")
        stamp.write_text(_content(REQUIREMENTS, HOOK), "utf-8")
    stamp = asked.folder / "package.stamp"
    if not _fresh(stamp, ROOT / "pyproject.toml"):
        subprocess.run([*pip, "--no-build-isolation", "-e", str(ROOT)], check=True)
        stamp.write_text(_content(ROOT / "pyproject.toml"), "utf-8")
    return 0


def _fresh(stamp: Path, *paths: Path) -> bool:
    return stamp.is_file() and stamp.read_text("utf-8") == _content(*paths)


def _content(*paths: Path) -> str:
    return "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)


if __name__ == "__main__":
    sys.exit(main())
