"""A report's words and origin as HTML, for the browsers of the panel."""

from __future__ import annotations

import html

from .model import Report
from .open_report import OpenReport


def narrative(one: OpenReport, selected: str | None) -> str:
    """The sentences; each that belongs to a finding is a link to it.

    Where there is no narrative, the findings' own sentences stand in for it.
    """
    report, parts, section = one.report, [], ""
    for sentence in report.sentences:
        if sentence.section != section:
            section = sentence.section
            parts.append(f"<h4>{html.escape(section)}</h4>")
        own = tuple(each.key for each in report.findings if each.sentence and each.sentence in sentence.text)
        parts.append(_line(report, sentence.text, own or report.findings_on(sentence.images), selected))
    if not report.sentences:
        parts = [_line(report, each.sentence, (each.key,), selected) for each in report.findings]
    return "".join(parts)


def _line(report: Report, text: str, keys: tuple[str, ...], selected: str | None) -> str:
    text = html.escape(text)
    if keys:
        key = selected if selected in keys else keys[0]
        text = f'<a href="finding:{html.escape(key or "")}">{text}</a>'
        text = f"<b>{text}</b>" if selected in keys else text
        if any(report.finding(each).is_unsupported for each in keys):
            text += " <i>(not supported by the images)</i>"
    return f"<p>{text}</p>"


def provenance(one: OpenReport) -> str:
    """Where the report comes from, as HTML."""
    report = one.report
    rows = [
        ("state", report.state),
        *(("verified by", who) for who in report.verifiers),
        *report.device,
        ("time", report.content_time),
        ("from", one.node.GetParameter("origin")),
        ("outcome", report.outcome),
        ("images", f"{len(report.evidence)} in {len({series for series, _, _ in report.evidence})} series"),
        ("SR", report.uid),
        *(("successor of", uid) for uid in report.predecessors),
        ("parameters", report.parameters),
    ]
    lines = (
        f"<tr><td><b>{html.escape(what)}</b></td><td>{html.escape(said)}</td></tr>"
        for what, said in rows
        if said
    )
    remarks = "".join(f"<li>{html.escape(words)}</li>" for words in report.remarks)
    return f"<table>{''.join(lines)}</table><ul>{remarks}</ul>"
