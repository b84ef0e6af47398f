"""Nodes killed at random while studies come in: a small siege; `make crash` lays a long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.battlefield import Outcome
from tests.node_runner import SENDER
from tests.postgres import BINARIES
from tests.siege import besiege


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
@pytest.mark.parametrize(
    ("database", "nodes"),
    [
        ("sqlite", 1),
        pytest.param(
            *("postgres", 2),
            marks=pytest.mark.skipif(BINARIES is None, reason="Postgres is not installed"),
        ),
    ],
)
def test_nothing_is_lost_said_twice_or_stuck(tmp_path: Path, database: str, nodes: int) -> None:
    outcome = besiege(tmp_path, database=database, nodes=nodes, kills=4, seed=1)

    assert outcome == Outcome(
        studies=4,
        acknowledged=outcome.acknowledged,
        kills=4,
        pacs_kills=outcome.pacs_kills,
        asked=outcome.asked,
        seconds=outcome.seconds,
    )
    assert outcome.acknowledged == 4 * 16
