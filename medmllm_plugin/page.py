"""A report as one self-contained HTML page, with its pictures, boxes and sides.

The page loads nothing, runs nothing and sends nothing: its Content-Security-Policy allows inline pictures and
its own style alone. A model's words are foreign: all of them pass `text`, and none becomes a link or a tag.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.resources import files

from medmllm_plugin import __version__, codes, page_evidence
from medmllm_plugin.findings import Agreement, Box, Finding, Side, Status
from medmllm_plugin.geometry import plane_name
from medmllm_plugin.page_pictures import Album, picture_links, side_words, text
from medmllm_plugin.report import DISCLAIMER, Outcome, Provenance, Report, conclusions, percent
from medmllm_plugin.resampled import Resampled, Source
from medmllm_plugin.slice import Montage
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.source import DicomImage, Tile

TITLE = "MedMLLM report"

_POLICY = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"

OUTCOME_WORDS = {
    Outcome.FINDINGS: ("Findings reported", "Each is the model's own claim; compare it with its picture."),
    Outcome.NO_FINDINGS: (
        "No findings reported",
        "The model named nothing abnormal in the pictures it was shown; that does not make the study normal.",
    ),
    Outcome.OUTSIDE_DOMAIN: (
        "Outside the model's domain",
        "The model was not made for such images, so nothing it said counts as a finding.",
    ),
    Outcome.NOT_ASSESSED: ("Not assessed", "The study was not assessed for findings."),
    Outcome.FAILED: ("The reading failed", "There is no result, so nothing can be said of the study."),
}
"""How a reading ended, and what that means, for a user."""

_OUTCOME_ICONS = {
    Outcome.FINDINGS: '<path d="M7 3v26M7 5h17l-5 6 5 6H7"/>',
    Outcome.NO_FINDINGS: '<circle cx="16" cy="16" r="12"/><path d="M10 16h12"/>',
    Outcome.OUTSIDE_DOMAIN: '<circle cx="20" cy="20" r="9"/><path d="M11 11L4 4m0 7V4h7"/>',
    Outcome.NOT_ASSESSED: '<circle cx="16" cy="16" r="12"/><path d="M16 9v7l5 4"/>',
    Outcome.FAILED: '<path d="M11 4h10l7 7v10l-7 7H11l-7-7V11zM12 12l8 8M20 12l-8 8"/>',
}

_STATUS_ICONS = {
    Status.PRESENT: '<circle cx="8" cy="8" r="6" fill="currentColor"/>',
    Status.INDETERMINATE: '<circle cx="8" cy="8" r="6"/><path d="M8 2a6 6 0 0 1 0 12z" fill="currentColor"/>',
    Status.ABSENT: '<circle cx="8" cy="8" r="6"/>',
}

_SUPPORT_WORDS = {True: "supported", False: "not supported", None: ""}
_SECOND_WORDS = {
    Agreement.AGREES: "agrees",
    Agreement.UNSURE: "unsure",
    Agreement.SILENT: "silent",
    Agreement.DISAGREES: "disagrees",
    Agreement.ALONE: "saw it alone",
}


def render(report: Report, slices: SliceSet, *, priors: Sequence[SliceSet] = (), title: str = TITLE) -> str:
    """The report as an HTML page that needs nothing but itself.

    Args:
        report: Its boxes name pictures of `slices`.
        slices: What the model was shown.
        priors: What it was shown of earlier studies; the numbers of their pictures follow.
        title: Heading of the page; no patient's name belongs there.
    """
    shown = (*slices.slices, *(one for prior in priors for one in prior.slices))
    album = Album(slices=replace(slices, slices=shown))
    parts = (
        f"<h1>{text(title)}</h1>",
        f'<p class="study">{text(_study_words(report, slices))}</p>',
        _outcome(report),
        page_evidence.answer(report),
        _impression_and_notes(report),
        page_evidence.trust(report),
        page_evidence.differential(report),
        _findings_table(report, album),
        album.switches(boxes=any(finding.box for finding in report.findings)),
        *(_card(album, row, finding, of=len(slices)) for row, finding in enumerate(report.findings, 1)),
        _narrative(report, album),
        _strip(report, album, first=1, last=len(slices)),
        _strip(report, album, first=len(slices) + 1, last=len(shown), before=_how_long_before(priors)),
        _provenance(report),
        page_evidence.heard(report.heard, report.raw_reply),
        f"<footer>Made by MedMLLM {text(__version__)}. {text(DISCLAIMER)}</footer>",
    )
    return document(
        "\n".join(filter(None, parts)),
        title=f"{title}: {OUTCOME_WORDS[report.outcome][0].lower()}",
        style="\n".join(album.rules),
    )


def document(body: str, *, title: str, style: str = "") -> str:
    """A whole HTML page with our look, our banner, and a policy that bars scripts and anything from outside.

    Args:
        body: HTML of the page's main part.
        title: What a browser's tab says, as text.
        style: Rules besides those of `page.css`.
    """
    style = files("medmllm_plugin").joinpath("page.css").read_text("utf-8") + style
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"{_POLICY}; style-src 'sha256-{allowed}'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<title>{text(title)}</title>
<style>{style}</style>
</head>
<body>
<div class="banner" role="note">{text(DISCLAIMER)}</div>
<main>
{body}
</main>
</body>
</html>
"""


def key_picture(finding: Finding, album: Album) -> int | None:
    """The picture that shows a finding best: the box's, else the first cited; None for an absent one."""
    if finding.box is not None:
        return finding.box.picture
    cited = album.cited(finding)
    return cited[0] if cited and finding.status is not Status.ABSENT else None


def finding_words(finding: Finding) -> str:
    """What and where a finding is, such as `Nodule, lung, left`."""
    return ", ".join(filter(None, (_name(finding), codes.site(finding.site).words, _side(finding))))


def _study_words(report: Report, slices: SliceSet) -> str:
    plane = slices.shown[0].to_patient
    words = (
        None if report.study.phantom is None else f"Synthetic phantom {report.study.phantom}",
        report.study.modality,
        None if plane is None else plane_name(plane),
        f"{_plural(len(slices), 'picture')} shown",
        f"task {report.provenance.task}",
        _model_words("model", report.provenance),
        None if report.second is None else _model_words("second model", report.second),
    )
    return " · ".join(filter(None, words))


def _model_words(which: str, made: Provenance) -> str:
    return f"{which} {made.model} {made.model_version}".rstrip()


def _outcome(report: Report) -> str:
    words, meaning = OUTCOME_WORDS[report.outcome]
    if report.outcome is Outcome.FINDINGS:
        order = (Status.PRESENT, Status.INDETERMINATE, Status.ABSENT)
        counts = [(sum(one.status is status for one in report.findings), status.value) for status in order]
        words += ": " + ", ".join(f"{count} {status}" for count, status in counts if count)
    return (
        f'<section class="panel outcome tone-{report.outcome.value}" aria-label="Outcome">'
        f"{_icon(_OUTCOME_ICONS[report.outcome], side=32)}"
        f"<div><strong>{text(words)}</strong><p>{text(meaning)}</p></div></section>"
    )


def _impression_and_notes(report: Report) -> str:
    lists = (("Impression", "ol", conclusions(report)), ("Notes", "ul", report.notes))
    panels = "".join(
        f'<section class="panel"><h2>{heading}</h2><{kind}>'
        + "".join(f'<li dir="auto">{text(one)}</li>' for one in lines)
        + f"</{kind}></section>"
        for heading, kind, lines in lists
        if lines
    )
    return f'<div class="pair">{panels}</div>' if panels else ""


def _findings_table(report: Report, album: Album) -> str:
    """Findings by row; a column that would be empty in all rows is left out."""
    if not report.findings:
        return ""
    columns: tuple[tuple[str, str, Callable[[Finding], str]], ...] = (
        ("Site", "", lambda one: text(codes.site(one.site).words)),
        ("Side", "", _side),
        ("Status", "", _status),
        ("Severity", "", lambda one: text(one.severity or "")),
        ("Change", "", lambda one: text(one.change or "")),
        ("Size, mm", "number", lambda one: "" if one.size_mm is None else f"{one.size_mm:.1f}"),
        ("Certainty", "number", _certainty),
        ("Image support", "", lambda one: _SUPPORT_WORDS[one.image_supported]),
        ("Second model", "", lambda one: "" if one.second is None else _SECOND_WORDS[one.second.verdict]),
        ("Pictures", "number", lambda one: picture_links(album.cited(one))),
    )
    head = ['<th scope="col" class="number">No.</th><th scope="col">Finding</th>']
    rows = [
        f'<td class="number">{row}</td><th scope="row" data-row="{row}">{_finding_link(album, row, one)}</th>'
        for row, one in enumerate(report.findings, 1)
    ]
    for label, kind, cell in columns:
        cells = [cell(one) for one in report.findings]
        if any(cells):
            head.append(f'<th scope="col" class="{kind}">{label}</th>')
            for row, words in enumerate(cells):
                rows[row] += f'<td class="{kind}" data-label="{label}">{words or "–"}</td>'
    return (
        '<h2 id="findings">Findings</h2><div class="panel scroll" tabindex="0" role="region" '
        'aria-labelledby="findings"><table class="findings">'
        f"<thead><tr>{''.join(head)}</tr></thead>"
        f"<tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table></div>"
    )


def _finding_link(album: Album, row: int, finding: Finding) -> str:
    words = text(_name(finding))
    return words if key_picture(finding, album) is None else f'<a href="#finding-{row}">{words}</a>'


def _card(album: Album, row: int, finding: Finding, *, of: int) -> str:
    """A finding with its key picture, one of so many of the study; empty if it has none."""
    number = key_picture(finding, album)
    if number is None:
        return ""
    one, where = album.slices.picture(number), f"Picture {number} of {of}"
    words = finding_words(finding)
    boxes = () if finding.box is None else (finding.box,)
    boxed = "box around the finding" if boxes else "not localised: the model gave no box"
    if finding.box is not None and isinstance(one.source, Montage):
        one, _ = one.showing(finding.box)
        where += ", the slice with the box"
    facts = (
        ("Status", _status(finding)),
        ("Severity", text(finding.severity or "")),
        ("Change", text(finding.change or "")),
        ("Size", "" if finding.size_mm is None else f"{finding.size_mm:.1f} mm, longer side of the box"),
        ("Certainty", _certainty(finding)),
        ("Image support", _SUPPORT_WORDS[finding.image_supported]),
        *page_evidence.facts(finding),
        ("Centre", _center_words(finding)),
        ("Pictures", picture_links(album.cited(finding))),
        ("Prior pictures", picture_links(finding.prior_pictures)),
        ("Image", _image_words(one.source)),
        ("Box", "" if finding.box is None else _box_words(finding.box)),
        ("Window", text(one.window)),
    )
    alt = f"Picture {number}: {words}, {boxed}; {side_words(one)}"
    view = (
        album.view(number, boxes=(), alt=alt) if finding.box is None else album.key_view(finding.box, alt=alt)
    )
    return (
        f'<article class="panel finding" id="finding-{row}"><figure class="key-picture">{view}<figcaption>'
        f"{where}; {text(side_words(one))}; {boxed}</figcaption></figure>"
        f'<div><h3>{row}. {text(words)}</h3><blockquote dir="auto">{text(finding.sentence)}</blockquote><dl>'
        + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts if value)
        + f"</dl>{''.join(map(album.closeups, boxes))}{_before(finding, album)}</div></article>"
    )


def _before(finding: Finding, album: Album) -> str:
    """The first prior picture that a finding was compared with."""
    if not finding.prior_pictures:
        return ""
    number = finding.prior_pictures[0]
    alt = f"Picture {number} of the prior study"
    view = album.view(number, boxes=(), alt=alt, small=True)
    return f'<figure class="before">{view}<figcaption>{alt}</figcaption></figure>'


def _narrative(report: Report, album: Album) -> str:
    lines = ""
    for one in report.narrative:
        numbers = album.cited(one)
        word = "picture" if len(numbers) == 1 else "pictures"
        cited = f' <span class="quiet">[{word} {picture_links(numbers)}]</span>' if numbers else ""
        lines += f"<p><bdi>{text(one.sentence)}</bdi>{cited}</p>"
    return f'<section><h2>Narrative</h2><div class="panel">{lines}</div></section>' if lines else ""


def _how_long_before(priors: Sequence[SliceSet]) -> str:
    """How long before the study its priors were made, where the headers say it."""
    days = [one.days_before for one in priors if one.days_before is not None]
    return ", " + " and ".join(_plural(one, "day") for one in days) + " before" if days else ""


def _strip(report: Report, album: Album, *, first: int, last: int, before: str = "") -> str:
    """Pictures of the study, or those of priors, small, each naming the findings that cite it."""
    figures, prior = "", first > 1
    for number in range(first, last + 1):
        one = album.slices.picture(number)
        cited = [
            row
            for row, finding in enumerate(report.findings, 1)
            if number in (finding.prior_pictures if prior else album.cited(finding))
        ]
        words = f"finding {', '.join(map(str, cited))}" if cited else ""
        boxes = [finding.box for finding in report.findings if finding.box and finding.box.picture == number]
        alt = f"Picture {number}, {side_words(one)}" + (f", cited by {words}" if words else "")
        figures += (
            f'<figure id="picture-{number}"><a href="#picture-{number}">'
            f"{album.view(number, boxes=boxes, alt=alt, small=True)}</a>"
            f"<figcaption><b>{number}</b> {words}</figcaption></figure>"
        )
    if not figures:
        return ""
    many = last > first
    heading = f"The {last - first + 1} pictures" if many else "The picture"
    heading += f" of the prior study{before}" if prior else ""
    words = "In the order in which the model was shown them; choose one to enlarge it." if many else ""
    return (
        f'<section><h2>{heading}</h2><p class="quiet">{words}</p><div class="strip">{figures}</div></section>'
    )


def _provenance(report: Report) -> str:
    rows = {
        "study instance UID": report.study.study_instance_uid,
        "series instance UID": report.study.series_instance_uid,
        **{
            name.replace("_", " ").replace("sha256", "SHA-256"): value
            for name, value in asdict(report.provenance).items()
        },
    }
    cells = "".join(
        f'<tr><th scope="row">{text(name)}</th><td class="{_kind(value)}">{text(value)}</td></tr>'
        for name, value in rows.items()
        if value not in (None, "")
    )
    return f'<section><h2>Provenance</h2><table class="panel provenance">{cells}</table></section>'


def _icon(path: str, *, side: int) -> str:
    return (
        f'<svg viewBox="0 0 {side} {side}" fill="none" stroke="currentColor" stroke-width="{side / 14:.1f}" '
        f'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">{path}</svg>'
    )


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _name(finding: Finding) -> str:
    words = codes.finding(finding.finding).words
    return words[:1].upper() + words[1:]


def _side(finding: Finding) -> str:
    return "" if finding.side is Side.NONE else finding.side.value


def _status(finding: Finding) -> str:
    return (
        f'<span class="status">{_icon(_STATUS_ICONS[finding.status], side=16)}{finding.status.value}</span>'
    )


def _certainty(finding: Finding) -> str:
    return "" if finding.certainty is None else percent(finding.certainty)


def _center_words(finding: Finding) -> str:
    """A place by the letters that readers use, and as LPS numbers: R 43.2, A 12.0, S 5.0 mm."""
    if finding.center_mm is None:
        return ""
    letters = [pair[value < 0] for pair, value in zip(("LR", "PA", "SI"), finding.center_mm, strict=True)]
    words = ", ".join(
        f"{way} {abs(value):.1f}" for way, value in zip(letters, finding.center_mm, strict=True)
    )
    numbers = ", ".join(f"{value:.1f}" for value in finding.center_mm)
    return f'{words} mm <span class="quiet">(LPS {numbers})</span>'


def _image_words(source: Source | Montage) -> str:
    if isinstance(source, Montage):
        first, last = (_image_words(source.insets[n].shown.source) for n in (0, -1))
        return f"montage of {_plural(len(source.insets), 'slice')}, {first} to {last}"
    if isinstance(source, Resampled):
        ends = f"{_image_words(source.first)} to {_image_words(source.last)}"
        return f"{text(source.words)}, plane {source.index} from 0, of the images {ends}"
    if isinstance(source, Tile):
        return f"{_image_words(source.sheet)}, tile {source.number + 1} of the sheet"
    if isinstance(source, DicomImage):
        frame = "" if source.frame is None else f", frame {source.frame}"
        return f'<span class="uid">{text(source.sop_instance_uid)}</span>{frame}'
    volume = "" if source.volume is None else f" of volume {source.volume}"
    return f"{text(source.file)}, slice {source.index}{volume} from 0"


def _box_words(box: Box) -> str:
    columns, rows = ((box.column_min, box.column_max), (box.row_min, box.row_max))
    words = f"columns {columns[0]:.1f} to {columns[1]:.1f}, rows {rows[0]:.1f} to {rows[1]:.1f}"
    if box.in_picture is None:
        return f"{words} of the image, px"
    return f"{words}, px, is what it covers of the image nearest to its centre: {_image_words(box.image)}"


def _kind(value: object) -> str:
    return "uid" if re.fullmatch(r"[0-9a-f]{32,}|[0-9.]{20,}", str(value)) else ""
