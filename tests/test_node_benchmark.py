"""The benchmark of the node: a real node reads and delivers, and the steps add up to what it took."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # `benchmarks` is in the repository and not in the package
from benchmarks.node_overhead import FOLDER, LATER, STEPS, Clock, measured


def test_every_step_of_a_node_is_timed(tmp_path: Path) -> None:
    table = measured(tmp_path, to=FOLDER, small=True, rounds=1)

    taken = {name: wall for name, wall, _ in table.lines}
    assert all(float(taken[name]) > 0 for name in STEPS)
    assert all(float(taken[f"afterwards: {name}"]) > 0 for name in LATER)
    assert [one.what for one in table.bars] == ["node beside the model, 40 slices, into a folder"]


def test_a_step_within_another_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, worked = [100.0], [7.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.thread_time", lambda: worked[0])

    def pass_time(wall: float, cpu: float) -> None:
        now[0] += wall
        worked[0] += cpu

    def within() -> None:
        pass_time(1, 0.5)
        inner()
        pass_time(2, 0.25)
        inner()

    clock = Clock()
    inner = clock.around("inner", lambda: pass_time(8, 4))
    clock.around("outer", within)()

    assert [(name, taken) for name, _, taken in clock.spans] == [
        ("inner", (8, 4)),
        ("inner", (8, 4)),
        ("outer", (3, 0.75)),
    ]
    assert sorted(clock.spans, key=lambda one: one[1])[0][0] == "outer"
