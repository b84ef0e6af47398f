"""The codes that a reader may choose from: findings, sites, and which side a site can have.

`Resources/codes.json` is made from the engine's own table by `tools/slicer_codes.py`.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from .model import Code, Status

RESOURCE = Path(__file__).parents[1] / "Resources" / "codes.json"

STATUS_CODES = {
    Status.PRESENT: Code("52101004", "SCT", "Present"),
    Status.ABSENT: Code("272519000", "SCT", "Absent"),
    Status.INDETERMINATE: Code("373068000", "SCT", "Undetermined"),
}
"""CID 240."""

SIDE_CODES = {
    "left": Code("7771000", "SCT", "Left"),
    "right": Code("24028007", "SCT", "Right"),
    "bilateral": Code("51440002", "SCT", "Bilateral"),
    "midline": Code("130290", "DCM", "Median"),
}
"""CID 244 and 245."""


@functools.lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    return json.loads(RESOURCE.read_text("utf-8"))


def findings() -> dict[str, str]:
    """The words of each finding by its key, in the order of the words."""
    return _words("findings")


def sites() -> dict[str, str]:
    """The words of each site by its key, in the order of the words."""
    return _words("sites")


def code(kind: str, key: str) -> Code:
    """The code of a finding or site.

    Args:
        kind: `findings` or `sites`.
        key: Of that table.

    Raises:
        KeyError: If there is no such key.
    """
    value, scheme, meaning = _table()[kind][key]["code"]
    return Code(value, scheme, meaning)


def key_of(kind: str, wanted: Code | None) -> str | None:
    """The key of a code, None if it isn't in the table."""
    return next((key for key in _table()[kind] if code(kind, key) == wanted), None)


def words(kind: str, wanted: Code | None) -> str:
    """What a code is called: the table's words, or its own meaning."""
    if wanted is None:
        return ""
    key = key_of(kind, wanted)
    return _table()[kind][key]["words"] if key is not None else wanted.meaning


def side_of(wanted: Code | None) -> str:
    """The side that a laterality says; `none` for none that we know."""
    return next((side for side, one in SIDE_CODES.items() if one == wanted), "none")


def sides_of(site: str) -> tuple[str, ...]:
    """The sides that a finding at a site may have."""
    return tuple(_table()["sites"][site]["sides"])


def sites_of(finding: str) -> tuple[str, ...]:
    """The sites that a finding may have; all, where its code names no anatomy."""
    return tuple(_table()["findings"][finding].get("sites") or _table()["sites"])


def _words(kind: str) -> dict[str, str]:
    table = _table()[kind]
    return {key: table[key]["words"] for key in sorted(table, key=lambda one: table[one]["words"])}
