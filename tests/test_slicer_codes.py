"""The table of codes that the 3D Slicer extension offers is the package's own."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from medmllm_plugin import codes

ROOT = Path(__file__).parents[1]
TOOL: dict[str, Any] = runpy.run_path(str(ROOT / "tools" / "slicer_codes.py"))


def test_the_extensions_table_is_made_of_the_packages_codes() -> None:
    assert TOOL["TARGET"].read_text("utf-8") == TOOL["text"](), "run python -m tools.slicer_codes"


def test_the_table_says_where_a_finding_may_be_and_on_which_side() -> None:
    table = TOOL["table"]()

    for key, row in table["findings"].items():
        allowed = {site for site in codes.sites() if codes.site_allowed(key, site)}
        assert set(row.get("sites", codes.sites())) == allowed
    for key, row in table["sites"].items():
        sides = ("left", "right", "bilateral", "midline", "none")
        assert set(row["sides"]) == {side for side in sides if codes.side_allowed(key, side)}
