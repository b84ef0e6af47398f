"""The benchmark of studies that wait times what a node asks, both ways."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # `benchmarks` is in the repository and not in the package
from benchmarks.together import asked, table
from medmllm_plugin import registry


def test_each_study_is_asked_about_once() -> None:
    asks = asked(registry.open_model("embedded"), 2)

    assert len({one.prompt.sha256 for one in asks}) == 2


def test_both_ways_are_timed_for_each_number_of_studies() -> None:
    made = table("embedded", counts=(1, 2), rounds=1)

    assert [line[0] for line in made.lines] == ["1", "2"]
    assert all(line[-1].endswith("x") for line in made.lines)
