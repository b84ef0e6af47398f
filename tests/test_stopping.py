"""An interrupt stops a reading, whenever it comes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from medmllm_plugin.cli_read import stoppable

pytestmark = pytest.mark.skipif(
    os.name == "nt" or threading.current_thread() is not threading.main_thread(),
    reason="needs POSIX signals in the main thread",
)


@pytest.fixture
def _as_a_program_has_it() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


def nothing(stage: str, done: int, total: int) -> None:
    """Show no progress."""


def interrupted(stages: tuple[str, ...]) -> Iterator[bool]:
    """A run that is interrupted after these stages; gives what `cancel` says, if it comes so far."""
    with stoppable(nothing) as (show, cancel):
        for stage in stages:
            show(stage, 0, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        yield cancel()


@pytest.mark.usefixtures("_as_a_program_has_it")
def test_while_the_model_thinks_it_is_told_to_stop_and_the_rest_is_not_done() -> None:
    run = interrupted(("reading", "thinking"))

    assert next(run) is True
    with pytest.raises(KeyboardInterrupt):
        next(run)
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


@pytest.mark.usefixtures("_as_a_program_has_it")
@pytest.mark.parametrize("stages", [("reading",), ("thinking", "report"), ()])
def test_at_any_other_time_it_ends_at_once(stages: tuple[str, ...]) -> None:
    with pytest.raises(KeyboardInterrupt):
        next(interrupted(stages))


@pytest.mark.usefixtures("_as_a_program_has_it")
def test_without_one_nothing_happens() -> None:
    with stoppable(nothing) as (show, cancel):
        show("thinking", 0, 1)

    assert not cancel()
