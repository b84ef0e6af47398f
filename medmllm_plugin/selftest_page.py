"""A self-test as one HTML page: the verdicts, and pictures of what was missed with both boxes."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from medmllm_plugin import __version__, codes
from medmllm_plugin.findings import Box, Finding, Side
from medmllm_plugin.page import document
from medmllm_plugin.page_pictures import side_words, text
from medmllm_plugin.phantoms.study import PhantomStudy, mask_box
from medmllm_plugin.pictures import png_bytes
from medmllm_plugin.report import DISCLAIMER
from medmllm_plugin.scoring import Bounds, bounds
from medmllm_plugin.selftest import Outcome, SelfTest, misses
from medmllm_plugin.sliceset import Slice
from medmllm_plugin.transforms.window import apply_window
from medmllm_plugin.verdicts import CHAIN, Verdict

TITLE = "MedMLLM self-test"

SHOWN = 24
"""How many misses are shown with pictures, so that a page of a broken chain stays small."""

_STYLE = """
.view .truth { stroke: #4dd2ff; stroke-width: 2px; }
.view .said { stroke: #fc0; stroke-width: 2px; stroke-dasharray: 6 4; }
.key-truth { border-bottom: 3px solid #4dd2ff; }
.key-said { border-bottom: 3px dashed #fc0; }
.misses { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: 1rem; }
.misses .view { margin-top: .6rem; }
.below { color: var(--failed); font-weight: 600; }
"""


def render(result: SelfTest) -> str:
    """The self-test as an HTML page that needs nothing but itself."""
    parts = (
        f"<h1>{TITLE}</h1>",
        f'<p class="study">{text(result.words)}</p>',
        _outcome(result),
        *_tables(result.verdicts),
        _failures(result),
        _misses(result),
        f"<footer>Made by MedMLLM {text(__version__)}. {text(DISCLAIMER)}</footer>",
    )
    state = "passed" if result.passed else "failed"
    return document("\n".join(filter(None, parts)), title=f"{TITLE}: {state}", style=_STYLE)


def _outcome(result: SelfTest) -> str:
    below = [one for one in result.verdicts if not one.passed]
    words, meaning, tone = (
        "The self-test passed",
        "No measure is below its bar.",
        "no-findings",
    )
    if any(one.reader == CHAIN for one in below):
        words, tone = "The chain is at fault", "failed"
        meaning = (
            "Even a reader that knows the phantoms is reported wrongly: don't trust reports of this chain."
        )
    elif below:
        words, tone = "The model did worse than it should", "failed"
        meaning = "The reader that knows the phantoms lost nothing; a figure of the model is below its bar."
    return (
        f'<section class="panel outcome tone-{tone}" aria-label="Outcome">'
        f"<div><strong>{words}</strong><p>{meaning}</p></div></section>"
    )


def _tables(verdicts: Sequence[Verdict]) -> Iterator[str]:
    for words, group in groupby(verdicts, key=lambda one: one.heading):
        rows = list(group)
        carded = any(one.strict is not None for one in rows)
        names = [
            "Measure",
            "Value",
            "Cases",
            "Bar",
            *(["On the card", "Strict bar"] if carded else []),
            "Verdict",
        ]
        head = "".join(f'<th scope="col">{name}</th>' for name in names)
        body = ""
        for one in rows:
            cells = [one.shown(one.value), str(one.cases), one.bar_words]
            cells += [one.shown(one.reached), one.shown(one.strict)] if carded else []
            numbers = "".join(f"<td>{text(cell)}</td>" for cell in cells)
            tone = "" if one.passed else ' class="below"'
            body += (
                f'<tr><th scope="row">{text(one.words)}</th>{numbers}'
                f"<td{tone}>{text(one.judgement)}</td></tr>"
            )
        yield (
            f'<h2>{text(words)}</h2><div class="panel scroll"><table class="findings">'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )


def _failures(result: SelfTest) -> str:
    lines = "".join(
        f"<li>{text(_case_words(one))}, {text(_reader(one))}: {text(why)}</li>"
        for one in result.outcomes
        for why in ([one.failure] if one.failure else one.differing)
    )
    return (
        f'<section class="panel"><h2>What failed or differed</h2><ul>{lines}</ul></section>' if lines else ""
    )


def _misses(result: SelfTest) -> str:
    found = [
        (outcome, one, what)
        for outcome in result.outcomes
        if not outcome.failure
        for one, what in misses(outcome)
    ]
    if not found:
        return ""
    cards = []
    for outcome, group in groupby(found[:SHOWN], key=lambda item: item[0]):
        study = outcome.case.study()
        cards += [_card(study, outcome, one, what) for _, one, what in group]
    more = f" The first {SHOWN} of {len(found)}." if len(found) > SHOWN else ""
    return (
        f'<section><h2>Misses</h2><p class="quiet">Boxes: <span class="key-truth">the truth</span>, '
        f'<span class="key-said">the reading</span>.{more}</p>'
        f'<div class="misses">{"".join(cards)}</div></section>'
    )


def _card(study: PhantomStudy, outcome: Outcome, one: Finding, what: str) -> str:
    pair = next((pair for pair in outcome.comparison.pairs if pair.true is one), None)
    true = None if pair is None else pair.true
    said = one if pair is None else pair.said
    boxes = [finding.box for finding in (true, said) if finding is not None and finding.box is not None]
    ks = dict.fromkeys(study_index(study, box) for box in boxes)
    views = "".join(_view(study, k, true=true, said=said) for k in ks if k is not None)
    side = "" if one.side is Side.NONE else f", {one.side.value}"
    seed = f"medmllm phantom OUT_DIR --kind {outcome.case.kind} --seed {outcome.case.seed}"
    return (
        f'<article class="panel"><h3>{text(codes.finding(one.finding).words)}, '
        f"{text(codes.site(one.site).words)}{side}: {text(what)}</h3>"
        f'<p class="quiet">{text(_case_words(outcome))}, {text(_reader(outcome))}; {text(seed)}</p>'
        f"{views}</article>"
    )


def study_index(study: PhantomStudy, box: Box) -> int | None:
    """Which image of a phantom, from 0, a box lies on; None if on none."""
    return next((k for k in range(study.slices) if study.source(k) == box.image), None)


def _view(study: PhantomStudy, k: int, *, true: Finding | None, said: Finding | None) -> str:
    """An image of the phantom in its own window, with the boxes that lie on it."""
    center, width = study.scan.window
    plane = study.plane(k)
    grey = apply_window(study.values(k), center=center, width=width)
    one = Slice(
        pixels=np.repeat(grey[..., None], 3, axis=2),
        source=plane.source,
        source_shape=grey.shape,
        to_source=np.eye(3),
        to_patient=plane.to_patient,
        window="",
        patient_orientation=plane.patient_orientation,
    )
    frames = ""
    drawn = {
        "truth": None if true is None else _true_bounds(study, k, true),
        "said": None if said is None else _said_bounds(study, k, said),
    }
    for kind, edges in drawn.items():
        if edges is not None:
            left, top, right, bottom = edges
            place = f'x="{left:.2f}" y="{top:.2f}" width="{right - left:.2f}" height="{bottom - top:.2f}"'
            frames += f'<rect class="halo" {place}/><rect class="{kind}" {place}/>'
    letters = "".join(
        f'<span class="letter {edge}" aria-hidden="true">{letter}</span>'
        for edge, letter in one.edges.items()
    )
    rows, columns = grey.shape
    data = base64.b64encode(png_bytes(one.pixels)).decode()
    alt = text(f"Image {k + 1} of {study.slices}; {side_words(one)}")
    return (
        f'<figure><div class="view"><img src="data:image/png;base64,{data}" width="{columns}" '
        f'height="{rows}" alt="{alt}" loading="lazy" decoding="async"><svg class="box" '
        f'viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" aria-hidden="true">{frames}</svg>'
        f"{letters}</div><figcaption>{alt}</figcaption></figure>"
    )


def _true_bounds(study: PhantomStudy, k: int, true: Finding) -> Bounds | None:
    """The edges of a lesion on image k; None if it doesn't reach that."""
    for index, mask in study.masks(k).items():
        if study.uid(f"lesion {index}") == true.tracking_uid:
            return mask_box(mask)
    return None


def _said_bounds(study: PhantomStudy, k: int, said: Finding) -> Bounds | None:
    """The edges of a box that was said to lie on image k; None if it was not."""
    return bounds(said.box) if said.box is not None and study.source(k) == said.box.image else None


def _case_words(one: Outcome) -> str:
    return f"{one.case.kind}, seed {one.case.seed}, {one.case.form.value}"


def _reader(one: Outcome) -> str:
    return "reader that knows it" if one.reader == "truth" else f"model {one.reader}"
