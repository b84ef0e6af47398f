"""The command as a program of its own: streams, locale, interrupts, and what it loads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from medmllm_plugin.findings import Finding
from medmllm_plugin.report import Report
from medmllm_plugin.sliceset import SliceSet
from tests.cli_called import ROOT


def program(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "medmllm_plugin", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, cwd=ROOT, check=False, timeout=120, **settings)


def test_help_and_import_leave_what_is_heavy_alone() -> None:
    code = """
        import sys
        import medmllm_plugin
        from click.testing import CliRunner
        from medmllm_plugin.cli import medmllm
        CliRunner().invoke(medmllm, ["read", "--help"])
        heavy = {"torch", "transformers", "highdicom", "numpy", "pydicom", "PIL", "rich"}
        print(sorted(heavy & set(sys.modules)))
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, cwd=ROOT, check=True, timeout=60
    )

    assert done.stdout.decode().strip() == "[]"


def test_a_program_without_an_error_stream_works_all_the_same(tmp_path: Path) -> None:
    study, out = tmp_path / "study", tmp_path / "out"
    program("phantom", study, "--slices", 16, "--matrix", 64)
    command = [sys.executable, "-m", "medmllm_plugin", "read", str(study), "-o", str(out)]

    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *command],
        capture_output=True,
        cwd=ROOT,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0
    assert (out / "report.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_can_not_be_written_is_told_in_a_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "medmllm_plugin", "tasks"],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            check=False,
        )

    assert done.returncode == 4
    assert done.stderr.decode().splitlines() == [
        "medmllm: error: standard output can't be written (No space left on device); send it elsewhere"
    ]


def test_public_names_are_loaded_when_asked_for() -> None:
    import medmllm_plugin

    assert medmllm_plugin.Report is Report
    assert medmllm_plugin.Finding is Finding
    assert medmllm_plugin.SliceSet is SliceSet
    assert issubclass(medmllm_plugin.errors.ModelError, medmllm_plugin.errors.MedMLLMError)
    assert {"read", "Volume"} <= set(dir(medmllm_plugin))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = medmllm_plugin.nonsense  # type: ignore[attr-defined]


def test_the_program_speaks_on_a_bare_c_locale(tmp_path: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii:strict"}

    done = program("sr", "show", tmp_path / "Röntgen ≤", env={**plain, **bare})

    assert done.returncode == 2
    assert done.stderr.startswith(b"medmllm: error: R")
    assert done.stderr.isascii()


INTERRUPTED = """
    import sys, time, types
    from pathlib import Path

    def read_each(paths, *, progress, cancel, **asked):
        if THINKING:
            progress("thinking 2/5", 1, 9)
            print("thinking", flush=True)
            while not cancel():
                time.sleep(0.01)
            from medmllm_plugin.errors import CancelledError
            raise CancelledError("stopped between two tokens")
        return [types.SimpleNamespace()]

    def write(reading, folder, sr):
        (folder / "report.json").write_text("half")
        print("writing", flush=True)
        for _ in range(6000):  # a signal just before a long sleep would go unseen till its end
            time.sleep(0.01)

    module = types.ModuleType("medmllm_plugin.pipeline")
    module.read_each, module.write = read_each, write
    sys.modules["medmllm_plugin.pipeline"] = module
    import medmllm_plugin
    medmllm_plugin.pipeline = module
    from medmllm_plugin.cli import main
    main()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupted_program_leaves_neither_half_an_output_nor_litter(
    tmp_path: Path, name: str, thinking: bool
) -> None:
    command = [
        sys.executable,
        "-c",
        f"THINKING = {thinking}\n{textwrap.dedent(INTERRUPTED)}",
        "read",
        "study",
        "-o",
        str(tmp_path / "a" / "out"),
    ]
    heeded = partial(signal.signal, getattr(signal, name), signal.SIG_DFL)  # nohup and "&" have it ignored
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, preexec_fn=heeded
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()

        running.send_signal(getattr(signal, name))
        _, said = running.communicate(timeout=30)

    assert running.returncode == 130
    assert said.decode().splitlines()[-1] == "medmllm: interrupted; nothing was left half-written"
    assert b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_help_loads_none_of_the_heavy_packages() -> None:
    heavy = ["torch", "transformers", "monai", "SimpleITK", "nibabel", "pydicom", "numpy", "rich"]
    asked = f"""
import atexit, sys
from medmllm_plugin.cli import medmllm
atexit.register(lambda: print([one for one in {heavy} if one in sys.modules], file=sys.stderr))
medmllm(["--help"])
"""

    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)

    assert done.stderr.strip() == "[]"
