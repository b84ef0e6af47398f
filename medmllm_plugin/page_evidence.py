"""What a page says of an answer, of how much was seen, and of how far a finding can be believed, as HTML."""

from __future__ import annotations

from medmllm_plugin.findings import Agreement, Effect, Finding, SecondOpinion, Trial, TrialResult
from medmllm_plugin.page_pictures import picture_links, text
from medmllm_plugin.report import CheckResult, Coverage, Heard, Report, percent
from medmllm_plugin.two_eyes import opinion_words

_TRIAL_WORDS = {
    Trial.MASKED: "with its pictures covered",
    Trial.MIRRORED: "with left and right exchanged",
    Trial.SHUFFLED: "with the pictures in another order",
    Trial.SHIFTED: "with the pictures moved by a few pixels",
    Trial.BETWEEN: "with the slices between them",
}
_EFFECT_WORDS = {
    Effect.GONE: "gone",
    Effect.WEAKER: "there, less certain",
    Effect.KEPT: "still there",
    Effect.FLIPPED: "on the other side",
}


def answer(report: Report) -> str:
    """The question and its answer; empty if there is none."""
    said = report.answer
    if said is None:
        return ""
    question = "" if report.question is None else f'<p class="quiet" dir="auto">{text(report.question)}</p>'
    choice = ""
    if said.choice is not None:
        sure = (
            ""
            if said.certainty is None
            else f' <span class="quiet">certainty {percent(said.certainty)}</span>'
        )
        choice = f'<p class="choice"><strong dir="auto">{text(said.choice)}</strong>{sure}</p>'
    why = "" if said.why is None else f'<p dir="auto"><span class="quiet">Why:</span> {text(said.why)}</p>'
    seen = f'<p class="quiet">Pictures {picture_links(said.pictures)}</p>' if said.pictures else ""
    return (
        '<section class="panel answer"><h2>Answer</h2>'
        f'{question}{choice}<p dir="auto">{text(said.text)}</p>{why}{seen}</section>'
    )


def differential(report: Report) -> str:
    """The differential diagnosis as a table; empty if there is none."""
    rows = "".join(
        f'<tr><td class="number">{row}</td><th scope="row" dir="auto">{text(one.name)}</th>'
        f'<td>{text(one.likelihood.value)}</td><td dir="auto">{text(one.why)}</td>'
        f'<td class="number">{picture_links(one.pictures) or "–"}</td></tr>'
        for row, one in enumerate(report.differential, 1)
    )
    if not rows:
        return ""
    return (
        '<h2 id="differential">Differential diagnosis</h2><div class="panel scroll" tabindex="0" '
        'role="region" aria-labelledby="differential"><table><thead><tr>'
        '<th scope="col" class="number">No.</th>'
        '<th scope="col">Diagnosis</th><th scope="col">Likelihood</th><th scope="col">Why</th>'
        f'<th scope="col" class="number">Pictures</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def trust(report: Report) -> str:
    """How much was seen and what the checks said; empty if neither is known."""
    panels = _coverage(report.coverage) + _checks(report.checks)
    return f'<div class="pair">{panels}</div>' if panels else ""


def heard(replies: tuple[Heard, ...], last: str) -> str:
    """Every reply of the model as it came, folded; empty if there is none."""
    told = replies or ((Heard(purpose="reply", prompt_sha256="", text=last, seconds=0.0),) if last else ())
    if not told:
        return ""
    one = len(told) == 1
    folded = "".join(
        f"<details><summary>{'What the model said, as it came' if one else _heard_words(number, reply)}"
        f'</summary><pre tabindex="0">{text(reply.text)}</pre></details>'
        for number, reply in enumerate(told, 1)
    )
    return f"<section><h2>{'Raw reply' if one else f'{len(told)} raw replies'}</h2>{folded}</section>"


def facts(finding: Finding) -> list[tuple[str, str]]:
    """What a finding's card says of how far it can be believed: (name, HTML), empty where not known."""
    odds = finding.probabilities
    shares = () if odds is None else (("present", odds.present), ("absent", odds.absent))
    return [
        ("Model's odds", ", ".join(f"{name} {percent(share)}" for name, share in shares)),
        ("Samples", "" if finding.agreement is None else f"in {percent(finding.agreement)} of them"),
        ("Asked again", "; ".join(map(_trial_words, finding.trials))),
        ("Second model", "" if finding.second is None else _second(finding.second)),
    ]


def _second(one: SecondOpinion) -> str:
    """What the second model says, in its own words where it has any."""
    own = one.sentence if one.verdict is not Agreement.ALONE else None  # else it is the finding's
    sentence = f"; it wrote: {text(own)}" if own else ""
    before = "" if one.first_certainty is None else f"; certainty before: {percent(one.first_certainty)}"
    return f"{text(opinion_words(one))}{sentence}{before}"


def _trial_words(one: TrialResult) -> str:
    sure = "" if one.certainty is None else f" ({percent(one.certainty)})"
    return f"{_TRIAL_WORDS[one.trial]}: {_EFFECT_WORDS[one.effect]}{sure}"


def _coverage(seen: Coverage | None) -> str:
    if seen is None:
        return ""
    meter = ""
    if seen.share is not None:
        meter = f'<p><meter min="0" max="1" value="{seen.share:.3f}">{percent(seen.share)}</meter></p>'
    return f'<section class="panel"><h2>What the model saw</h2>{meter}<p>{text(seen.words)}</p></section>'


def _checks(checks: tuple[CheckResult, ...]) -> str:
    if not checks:
        return ""
    failed = [one for one in checks if not one.passed]
    passed = [one for one in checks if one.passed]
    lines = "".join(f"<li><b>{text(one.name)}</b>{_about(one)}: {text(one.message)}</li>" for one in failed)
    said = f'<ul class="failed">{lines}</ul>' if failed else "<p>All checks passed.</p>"
    folded = "".join(f"<li>{text(one.name)}: {text(one.message)}</li>" for one in passed)
    more = f"<details><summary>{len(passed)} passed</summary><ul>{folded}</ul></details>" if passed else ""
    return f'<section class="panel checks"><h2>Checks</h2>{said}{more}</section>'


def _about(one: CheckResult) -> str:
    return "" if one.about is None else f', <a href="#finding-{one.about + 1}">finding {one.about + 1}</a>'


def _heard_words(number: int, reply: Heard) -> str:
    return f"{number}. {text(reply.purpose)}, {reply.seconds:.1f} s"
