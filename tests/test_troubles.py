"""What befalls a whole node beside its own death, made short; `make crash` makes it long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node_runner import SENDER
from tests.troubles import TROUBLES, NotHereError


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
@pytest.mark.parametrize("name", TROUBLES)
def test_nothing_is_lost_said_twice_or_stuck(name: str, tmp_path: Path) -> None:
    try:
        outcome = TROUBLES[name](tmp_path, long=False)
    except NotHereError as error:
        pytest.skip(str(error))

    assert outcome.wrong() == {}
    assert outcome.studies > 0
    assert outcome.acknowledged == 16 * outcome.studies
