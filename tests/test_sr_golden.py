"""The content trees that we write, item by item, held against `golden/sr_findings.json` and `sr_text.json`.

After a wanted change, `python -m tests.test_sr_golden` writes both anew; then read what git says has changed.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge.sr_tree import SrItem, read_tree
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, text_sr
from tests.sr_reports import a_nodule, a_pneumothorax_not_there, a_report, a_series, an_effusion, an_image

GOLDEN = Path(__file__).with_name("golden")
NOON = datetime(2026, 11, 21, 12, 0, 0)


def srs() -> dict[str, Dataset]:
    """Tree A and tree B of one report: a box, a finding without a place, a coded negative."""
    headers = a_series(3)
    first, second, _ = (an_image(header) for header in headers)
    report = a_report(
        a_nodule(second, images=(first, second)), an_effusion(first), a_pneumothorax_not_there(first)
    )
    return {
        "sr_findings": findings_sr(report, headers, written=NOON),
        "sr_text": text_sr(report, headers, written=NOON),
    }


def as_json(item: SrItem) -> dict[str, Any]:
    """An item with what lies in it; what is empty is left out."""
    value = item.value
    plain = (
        _code(value) if isinstance(value, Code) else value if isinstance(value, str | None) else str(value)
    )
    kind = " ".join(part for part in (item.relationship, item.value_type) if part)
    whole = {"item": kind, "name": _code(item.name), "value": plain, "below": [*map(as_json, item.children)]}
    return {key: part for key, part in whole.items() if part}


def _code(code: Code | None) -> str | None:
    return None if code is None else f"({code.value}, {code.scheme}, {code.meaning})"


def trees() -> dict[str, dict[str, Any]]:
    """The trees by the names of their files."""
    return {name: as_json(read_tree(sr)[0]) for name, sr in srs().items()}


@pytest.mark.parametrize("name", ["sr_findings", "sr_text"])
def test_the_tree_is_the_one_we_agreed_on(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))

    assert trees()[name] == golden


if __name__ == "__main__":
    for name, tree in trees().items():
        (GOLDEN / f"{name}.json").write_text(json.dumps(tree, indent=1, ensure_ascii=False) + "\n", "utf-8")
