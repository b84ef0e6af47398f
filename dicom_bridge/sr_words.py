"""What an SR says in words beside its codes, and the codes of modalities."""

from __future__ import annotations

import re

from medmllm_plugin import codes
from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge.sr_items import has_words
from medmllm_plugin.findings import Effect, Finding, Side, Status
from medmllm_plugin.report import Diagnosis, Outcome, Report, percent
from medmllm_plugin.two_eyes import opinion_words

OUTCOME_WORDS = {
    Outcome.FINDINGS: "",
    Outcome.NO_FINDINGS: "The model reported no findings.",
    Outcome.OUTSIDE_DOMAIN: "Not assessed: the model was never made for images like these.",
    Outcome.NOT_ASSESSED: "Not assessed for findings.",
    Outcome.FAILED: "Not assessed: the reading failed.",
}
"""How the reading ended; empty where the findings say it."""

_EFFECT_WORDS = {
    Effect.GONE: "gone",
    Effect.WEAKER: "less certain",
    Effect.KEPT: "kept",
    Effect.FLIPPED: "side flipped",
}


def answer_words(report: Report) -> str:
    """The question and its answer as one text; empty if there is none."""
    said = report.answer
    if said is None:
        return ""
    sure = "" if said.certainty is None else f" (certainty {percent(said.certainty)})"
    question = "" if report.question is None else f"Question: {report.question} "
    choice = "" if said.choice is None else f"{said.choice}{sure}. "
    why = "" if said.why is None else f" Why: {said.why}"
    return f"{question}Answer: {choice}{said.text}{why}"


def diagnosis_words(rank: int, one: Diagnosis) -> str:
    """A line of the differential diagnosis."""
    return f"Differential diagnosis {rank}: {one.name} (likelihood {one.likelihood}). {one.why}"


def trust_words(report: Report) -> list[str]:
    """How much of the study the model saw, and which checks failed, a sentence each."""
    said = [] if report.coverage is None else [report.coverage.words]
    for one in report.checks:
        if not one.passed:
            about = "" if one.about is None else f" of finding {one.about + 1}"
            said.append(f"Check {one.name}{about} failed: {one.message}")
    return said


_OUTCOME_KEYS = {
    Outcome.FINDINGS: "all_succeeded_with_findings",
    Outcome.NO_FINDINGS: "all_succeeded_without_findings",
}


def outcome_code(report: Report) -> Code:
    """How the reading ended, as a code (CID 6047).

    What was not assessed did not succeed; an answer to one question is not all that could be asked.
    """
    answered = report.outcome is Outcome.NOT_ASSESSED and (report.answer is not None or report.differential)
    rest = "not_all_succeeded_without_findings" if answered else "none_succeeded"
    return codes.qualifier("outcome", _OUTCOME_KEYS.get(report.outcome, rest))


_MEANINGS = {
    "CR": "Computed Radiography", "CT": "Computed Tomography", "DX": "Digital Radiography", "ES": "Endoscopy",
    "IO": "Intra-oral Radiography", "IVUS": "Intravascular Ultrasound", "MG": "Mammography",
    "MR": "Magnetic Resonance", "NM": "Nuclear Medicine", "OCT": "Optical Coherence Tomography",
    "OP": "Ophthalmic Photography", "PT": "Positron emission tomography",
    "PX": "Panoramic X-Ray", "RF": "Radiofluoroscopy", "RG": "Radiographic imaging", "RTIMAGE": "RT Image",
    "SM": "Slide Microscopy", "US": "Ultrasound", "XA": "X-Ray Angiography",
    "XC": "External-camera Photography",
}  # fmt: skip
MODALITIES = {value: Code(value=value, scheme="DCM", meaning=meaning) for value, meaning in _MEANINGS.items()}
"""Modality (0008,0060) as a code (CID 29); what is no acquisition, such as OT, has none."""

_SUFFIX = re.compile(r" \[(?:present|absent|indeterminate)(?:; [^\[\]]*)?\]$")


def tracking_identifier(number: int, finding: Finding) -> str:
    """What a person calls a finding, such as `AI-1 nodule, lung, right`."""
    words = [codes.finding(finding.finding).words, codes.site(finding.site).words]
    if finding.side is not Side.NONE:
        words.append(finding.side.value)
    return f"AI-{number} {', '.join(words)}"


def comment(finding: Finding, *, seen_on: str | None = None) -> str:
    """The finding's sentence, and after it in brackets what a viewer of plain text must not miss.

    A sentence that itself ends like such brackets gets some too, so `sentence_of` always undoes this.

    Args:
        finding: The finding.
        seen_on: The images it was seen on, in words, where no box shows the place; None where one does.
    """
    sentence = finding.sentence if has_words(finding.sentence) else codes.finding(finding.finding).words
    facts: list[str] = [finding.status.value]
    if seen_on is not None and finding.certainty is not None:
        facts.append(f"certainty {percent(finding.certainty)}")
    if seen_on:
        facts.append(seen_on)
    if seen_on is None and finding.box is not None and finding.box.in_picture is not None:
        facts.append("drawn on a reformat or slab, the box is its part on the image nearest to its centre")
    if finding.image_supported is not None:
        facts.append("image-supported" if finding.image_supported else "not image-supported")
    facts += [f"{_EFFECT_WORDS[one.effect]} when {one.trial}" for one in finding.trials]
    if finding.agreement is not None:
        facts.append(f"in {percent(finding.agreement)} of the samples")
    if finding.second is not None:
        facts.append(re.sub(r"[][;]", " ", opinion_words(finding.second)))
    return _bracketed(sentence, facts)


def restated(text: str, *, sentence: str, status: Status, placed: bool, holds: bool) -> str:
    """A `comment` with another sentence and status.

    Args:
        text: The comment.
        sentence: The new sentence.
        status: The new status.
        placed: Whether a box shows the place now; if not, the images it was seen on stay named.
        holds: Whether the rest of the facts, which are the model's on its own finding, still hold.

    >>> old = "No effusion. [absent; certainty 90 %; image 3]"
    >>> restated(old, sentence="Some.", status=Status.INDETERMINATE, placed=False, holds=False)
    'Some. [indeterminate; image 3]'
    """
    found = _SUFFIX.search(text)
    facts = found.group()[2:-1].split("; ")[1:] if found else []
    seen_on = [fact for fact in facts if fact.startswith(("image ", "series ")) and not placed]
    return _bracketed(sentence, [status.value, *(facts if holds else seen_on)])


def _bracketed(sentence: str, facts: list[str]) -> str:
    if facts == [Status.PRESENT.value] and not _SUFFIX.search(sentence):
        return sentence
    return f"{sentence} [{'; '.join(facts)}]"


def sentence_of(text: str) -> str:
    """The sentence in a `comment`.

    >>> sentence_of("No effusion. [absent; certainty 90 %; image 3]")
    'No effusion.'
    """
    return _SUFFIX.sub("", text)
