"""Fixtures of the tests of the 3D Slicer extension, which run in the environment of `make slicer` only."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXTENSION = ROOT / "slicer_module"

if importlib.util.find_spec("slicer") is None:
    collect_ignore_glob = ["*"]
else:
    # what the package's Python runs
    collect_ignore_glob = ["engine_process.py", "made_reports.py", "verify_both_ways.py"]
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    sys.path[:0] = [str(HERE), str(EXTENSION / "MedMLLM"), str(EXTENSION / "DICOMMedMLLMPlugin")]
    from harness.app import start

    if sys.version_info < (3, 12):
        # there PySide6 takes a reference to True, False or None too many at signals; none may run out
        REFERENCES = [True, False, None] * 2_000_000
    FOLDER = tempfile.TemporaryDirectory(prefix="slicer")
    CORE = start(Path(FOLDER.name))  # before test modules are imported, which import qt and slicer


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave at once where an older Python would trip over Qt's signals of truth values at its end."""
    if "harness.app" in sys.modules and sys.version_info < (3, 12):
        sys.stdout.flush()
        sys.stderr.flush()
        FOLDER.cleanup()
        os._exit(_status[0])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell what was measured."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties if report.when == "call" else ():
            terminalreporter.write_line(f"{name}: {value}")


_status = [0]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Note how it ended, for `pytest_unconfigure`."""
    _status[0] = int(exitstatus)


@pytest.fixture(scope="session")
def core() -> Any:
    """Slicer, as far as it goes without the application."""
    return CORE


@pytest.fixture(scope="session")
def module(core: Any) -> Any:
    """The extension's module, loaded as Slicer loads it."""
    from harness.bases import load_module

    return load_module(EXTENSION / "MedMLLM" / "MedMLLM.py")


@pytest.fixture
def clean(core: Any, module: Any) -> Iterator[Any]:
    """An empty scene, an empty database, no settings; and so again afterwards."""
    import slicer

    def empty() -> None:
        core.clear()
        slicer.app.settings().clear()
        shutil.rmtree(Path(slicer.app.temporaryPath) / "MedMLLM", ignore_errors=True)
        for uid in list(slicer.dicomDatabase._files):
            slicer.dicomDatabase.forget(uid)

    from harness.pythonqt import errors

    errors.clear()
    empty()
    yield core
    empty()
    assert not errors, "a slot raised"


@pytest.fixture(scope="session")
def chest(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A synthetic chest CT with a mass: `folder`, `files`."""
    from service import phantom

    folder = tmp_path_factory.mktemp("chest")
    files = phantom(folder, "--seed", "500000")
    return SimpleNamespace(folder=folder, files=[str(one) for one in files])


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The engine service with the embedded model."""
    from service import Service

    one = Service(folder=tmp_path_factory.mktemp("engine")).start()
    yield one
    one.kill()


@pytest.fixture(scope="session")
def _slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from service import Service

    one = Service(folder=tmp_path_factory.mktemp("slow"), seconds=4.0)
    yield one
    one.kill()


@pytest.fixture
def slow(_slow: Any) -> Any:
    """The engine service whose model thinks for 4 seconds first; it runs, whatever was done to it before."""
    if _slow.running is None:
        _slow.start()
    return _slow


@pytest.fixture
def loaded(clean: Any, chest: SimpleNamespace) -> Any:
    """The chest CT as a volume in the views."""
    from volumes import load

    return load(chest.files)


@pytest.fixture
def widget(clean: Any, module: Any) -> Iterator[Any]:
    """The module's panel, opened."""
    made = module.MedMLLMWidget()
    made.setup()
    made.enter()
    yield made
    made.exit()
    made.cleanup()
    made.parent.delete()


@pytest.fixture
def until() -> Callable[..., float]:
    """Lets Qt work until a condition holds; the longest time, in seconds, that Qt wasn't heard."""
    import slicer

    def wait(condition: Callable[[], Any], *, within_s: float = 60.0) -> float:
        end, longest, last = time.monotonic() + within_s, 0.0, time.monotonic()
        while not condition():
            slicer.app.processEvents()
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            assert now < end, "it never came"
            time.sleep(0.002)
        return longest

    return wait


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Series in five orientations with SRs, as `made_reports.py` writes them."""
    from service import run

    folder = tmp_path_factory.mktemp("made") / "series"
    run("-m", "tests.slicer.made_reports", str(folder))
    return folder


@pytest.fixture
def logic(clean: Any, module: Any) -> Any:
    """The module's logic without its panel."""
    made = module.MedMLLMLogic()
    yield made
    made.desk.banner.remove()
