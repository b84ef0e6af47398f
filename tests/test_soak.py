"""A few studies through the soak, so that it runs when it is wanted; `make soak` runs it as it is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.node_runner import SENDER
from tests.soak import soak
from tests.soak_report import BEGIN, END, Window, write


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
def test_studies_go_through_and_the_page_says_what_it_took(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    (tmp_path / "docs" / "images").mkdir(parents=True)
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")

    outcome = soak(tmp_path / "work", count=6, window=3)
    write(page, outcome)

    said = page.read_text()
    assert outcome.faults == []
    assert [one.studies for one in outcome.windows] == [3, 6]
    assert all(isinstance(one, Window) and one.latency_s > 0 for one in outcome.windows)
    assert said.startswith("before\n")
    assert said.endswith("\nafter\n")
    assert "old" not in said
    assert outcome.windows[-1].row() in said
    assert (tmp_path / "docs" / "images" / "soak.svg").read_text().startswith("<svg ")
