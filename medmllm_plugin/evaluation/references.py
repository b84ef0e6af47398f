"""Reference reports: their sections, and the item that asks for one like it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from medmllm_plugin.evaluation.benchmark import Item, Kind, Shown

_HEADING = re.compile(r"^\s*([A-Z][A-Z ]{2,40}):", re.MULTILINE)
_IMPRESSIONS = ("IMPRESSION", "IMPRESSIONS", "CONCLUSION", "SUMMARY")


def sections(report: str) -> tuple[str, str]:
    r"""The findings and the impression of a report in capital headings; both empty where it has none.

    >>> sections("EXAM: chest\n FINDINGS: Clear.\n\nIMPRESSION:  No effusion.")
    ('Clear.', 'No effusion.')
    """
    parts = _HEADING.split(report)
    found: dict[str, str] = {}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        found.setdefault(name.strip(), " ".join(text.split()))
    impression = next((found[name] for name in _IMPRESSIONS if found.get(name)), "")
    return found.get("FINDINGS", ""), impression


def reference(findings: str, impression: str) -> str:
    """A reference as it is compared: the sections that are there.

    >>> reference("Clear lungs.", "")
    'Findings: Clear lungs.'
    """
    parts = (("Findings", findings), ("Impression", impression))
    return " ".join(f"{name}: {' '.join(text.split())}" for name, text in parts if text.strip())


def report_item(
    *,
    name: str,
    gold: str,
    shown: Shown,
    cluster: str = "",
    groups: Mapping[str, str] | None = None,
) -> Item:
    """An item that asks for a report."""
    return Item(
        name=name,
        kind=Kind.REPORT,
        task="report",
        gold=(gold,),
        shown=shown,
        cluster=cluster,
        groups={key: value for key, value in (groups or {}).items() if value},
    )
