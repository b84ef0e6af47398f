"""Strangers at a whole node, for a short while; `make crash` lets them at it for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import fuzz
from tests.node_runner import SENDER


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
def test_strangers_break_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    outcome = fuzz(tmp_path, seconds=2)

    assert outcome.wrong == []
    assert outcome.attacks > 200
    assert outcome.sent > 2
