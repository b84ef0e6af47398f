"""The benchmark of the node: a real node reads and delivers, and the steps add up to what it took."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # `benchmarks` is in the repository and not in the package
from benchmarks.node_overhead import FOLDER, LATER, STEPS, Clock, measured


def test_every_step_of_a_node_is_timed(tmp_path: Path) -> None:
    table = measured(tmp_path, to=FOLDER, small=True, rounds=1)

    taken = {name: wall for name, wall, _ in table.lines}
    assert all(float(taken[name]) > 0 for name in STEPS)
    assert all(float(taken[f"afterwards: {name}"]) > 0 for name in LATER)
    assert [one.what for one in table.bars] == ["node beside the model, 40 slices, into a folder"]


def test_a_step_within_another_counts_once() -> None:
    clock = Clock()
    inner = clock.around("inner", lambda: sum(range(200_000)))
    outer = clock.around("outer", lambda: (inner(), inner()))

    outer()

    (first, second, (name, began, (wall, _))) = clock.spans
    assert (first[0], second[0], name) == ("inner", "inner", "outer")
    assert began <= first[1] <= second[1]
    assert wall < first[2][0] + second[2][0]
