"""Work is done once, whole, however many threads share it."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.transforms import threads
from medmllm_plugin.transforms.threads import in_parts


@given(count=st.integers(0, 50), least=st.integers(1, 60), cores=st.integers(1, 9))
def test_every_piece_is_done_once(count: int, least: int, cores: int) -> None:
    done: list[int] = []
    lengths: list[int] = []

    def work(start: int, stop: int) -> None:
        lengths.append(stop - start)
        done.extend(range(start, stop))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "usable", lambda: cores)
        in_parts(work, count, least=least)

    assert sorted(done) == list(range(count))
    assert len(lengths) == 1 or min(lengths) >= least


def test_parts_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable", lambda: 2)
    meeting = threading.Barrier(2, timeout=10)

    in_parts(lambda start, stop: meeting.wait() and None, 2)

    assert not meeting.broken


def test_an_error_of_any_part_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable", lambda: 3)

    def work(start: int, stop: int) -> None:
        if stop == 3:
            raise ValueError("the last part")

    with pytest.raises(ValueError, match="the last part"):
        in_parts(work, 3)
