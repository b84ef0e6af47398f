"""A reviewed report as CSV, JSON or Markdown, without the patient's name."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from . import codes
from .review import Review

_FIELDS = (
    "number",
    "finding",
    "site",
    "side",
    "status",
    "certainty",
    "size_mm",
    "verdict",
    "sentence",
    "tracking_uid",
)


def rows(review: Review) -> list[dict[str, Any]]:
    """One for each finding, as decided."""
    made = []
    for number, one in enumerate(review.report.findings, 1):
        said = review.decision(one.key)
        finding = codes.findings()[said.finding] if said.finding else codes.words("findings", one.finding)
        site = codes.sites()[said.site] if said.site else codes.words("sites", one.site)
        size = next((n.value for n in one.numbers if n.unit.value == "mm"), None)
        if said.box or said.point:  # what was measured at the old place doesn't hold at the new one
            size = said.box.size_mm if said.box else None
        values = (
            number,
            finding,
            site,
            said.side or one.side,
            (said.status or one.status).value,
            one.certainty,
            size,
            said.verdict.value,
            said.sentence or one.sentence,
            one.key if one.tracked else "",
        )
        made.append(dict(zip(_FIELDS, values, strict=True)))
    return made


def text(review: Review, kind: str) -> str:
    """The report in a format.

    Args:
        review: The report and the decisions.
        kind: `csv`, `json` or `md`.
    """
    report = review.report
    if kind == "csv":
        target = io.StringIO()
        writer = csv.DictWriter(target, _FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _no_formula(value) for name, value in row.items()} for row in rows(review))
        return target.getvalue()
    if kind == "json":
        said = {
            "report": report.uid,
            "study": report.study_uid,
            "state": report.state,
            "findings": rows(review),
        }
        return json.dumps(said, ensure_ascii=False, indent=2) + "\n"
    lines = [f"# {report.title}", "", f"State: {report.state}. {report.outcome}", ""]
    lines += ["| " + " | ".join(_FIELDS) + " |", "|" + " --- |" * len(_FIELDS)]
    for row in rows(review):
        cells = (
            "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
            for value in row.values()
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {one.text}" for one in report.sentences), "", citation(review)]
    return "\n".join(lines) + "\n"


def citation(review: Review) -> str:
    """Where the report comes from, in a line."""
    report = review.report
    device = dict(report.device)
    who = device.get("model") or device.get("name") or "an unknown device"
    return f"{report.state}: {who}, {report.content_time or 'no date'}, SR {report.uid}"


def _no_formula(value: Any) -> Any:
    """Text that a spreadsheet can't take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value
