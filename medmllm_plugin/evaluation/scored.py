"""What a report on an item is worth, by the item's kind; the model that was asked saw nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from medmllm_plugin.evaluation.answers import (
    chosen,
    contained,
    exact,
    final,
    named,
    token_scores,
    words,
    yes_or_no,
)
from medmllm_plugin.evaluation.benchmark import Item, Kind, Marks, Verdict
from medmllm_plugin.evaluation.clinical import compare
from medmllm_plugin.evaluation.concept_match import same_concepts
from medmllm_plugin.evaluation.facts import Fact
from medmllm_plugin.evaluation.measures import Score
from medmllm_plugin.evaluation.text_scores import text_scores
from medmllm_plugin.reply_forms import UNCLEAR
from medmllm_plugin.report import Answer, Outcome, Report
from medmllm_plugin.sliceset import SliceSet

NO_ANSWER = "no answer"


def marks_of(item: Item, report: Report, slices: SliceSet) -> Marks:
    """What a report on an item is worth.

    Args:
        item: With what is right.
        report: As the engine made it.
        slices: What its boxes name.
    """
    if report.outcome is Outcome.OUTSIDE_DOMAIN:
        why = next((one.sentence for one in report.narrative), "outside the model's domain")
        return Marks(verdict=Verdict.ABSTAINED, answer=why)
    if item.scoring is not None:
        return item.scoring(item, report, slices)
    if item.kind is Kind.REPORT:
        return of_report(report_text(report), report, item.gold[0], language=item.language)
    if report.answer is None:
        return Marks(verdict=Verdict.NO_ANSWER, answer=NO_ANSWER)
    return of_answer(item, report.answer)


def of_answer(item: Item, answer: Answer) -> Marks:
    """What an answer is worth: its choice counts where it gives one, else its words."""
    if item.kind is Kind.YES_NO:
        said = answer.choice if answer.choice in ("yes", "no", UNCLEAR) else yes_or_no(answer.text)
        return _closed(said, item.gold, answer.certainty if answer.choice == said else None)
    if item.kind is Kind.CHOICE:
        if answer.choice is not None:
            return _closed(answer.choice, item.gold, answer.certainty)
        letters = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", item.choices, strict=False))
        letter = chosen(answer.text, letters)
        return _closed(None if letter is None else letters[letter], item.gold, None)
    if item.kind is Kind.SEVERAL:
        return of_several(item, " ".join(filter(None, (_real(answer.choice), answer.text))))
    # of what the pictures are, the kind is asked for, not the plane and the part of the body
    text = (answer.choice or answer.text) if item.task == "modality" else answer.text
    if answer.choice in ("yes", "no") and yes_or_no(text) is None:
        text = f"{answer.choice}, {text}"
    marks = of_open(text, item.gold, certainty=answer.certainty)
    # what a rubric judges has many right answers; words tell no right from wrong
    return replace(marks, verdict=Verdict.SCORED, details={}) if item.rubric else marks


def of_open(text: str, gold: Sequence[str], *, certainty: float | None = None) -> Marks:
    """What an open answer is worth against the best of the right ones.

    It is right if it has the same words, says what is right and little else, or names the same concepts.
    """
    said = final(text)
    if not words(said):
        return Marks(verdict=Verdict.NO_ANSWER, answer=NO_ANSWER)
    best = max(gold, key=lambda one: (exact(said, one), token_scores(said, one)["token_f1"]))
    scores: dict[str, Score] = {"exact": float(exact(said, best)), **token_scores(said, best)}
    lexical = text_scores(said, best)
    scores |= {name: lexical[name] for name in ("rougeL", "bleu1", "bleu4")}
    same = same_concepts(said, best)
    if same is not None:
        scores["concept"] = float(same)
    ways = {"the same words": scores["exact"] == 1, "says it": contained(said, best), "concepts": bool(same)}
    way = next((name for name, holds in ways.items() if holds), None)
    if way is None and yes_or_no(said) == "unclear":
        return Marks(verdict=Verdict.NO_ANSWER, answer=said, scores=scores)
    verdict = Verdict.WRONG if way is None else Verdict.RIGHT
    return Marks(
        verdict=verdict,
        answer=said,
        scores=scores,
        details={"right by": way} if way else {},
        certainty=certainty,
    )


def of_several(item: Item, text: str) -> Marks:
    """What an answer is worth where any number of choices are right: right if it names these and no other."""
    said = named(text, item.choices)
    right = frozenset(k for k, one in enumerate(item.choices) if one in item.gold)
    both = len(said & right)
    if not said:
        return Marks(verdict=Verdict.NO_ANSWER, answer=final(text) or NO_ANSWER)
    verdict = Verdict.RIGHT if said == right else Verdict.WRONG
    listed = ", ".join(item.choices[k] for k in sorted(said))
    return Marks(verdict=verdict, answer=listed, scores={"choices_f1": (2 * both, len(said) + len(right))})


def of_report(
    text: str,
    report: Report | None,
    gold: str,
    *,
    facts: Sequence[Fact] | None = None,
    language: str = "en",
) -> Marks:
    """What a report is worth: the clinical metric first, and the words in common beside it.

    Args:
        text: The report in words.
        report: The same with its findings coded, where there is one.
        gold: The reference.
        facts: What it states, where that is known better than from its words.
        language: ISO 639-1 code of both.
    """
    if not text.strip():
        return Marks(verdict=Verdict.NO_ANSWER, answer=NO_ANSWER)
    reference = gold if facts is None else facts
    clinical = compare(reference, text if report is None else report, language=language)
    counts = {name: count for name, count in clinical.counts().items() if count}
    # a report counts once among the false and once among the missed for what it says otherwise
    top, bottom = 2 * clinical.matched, 2 * clinical.matched + clinical.missed + clinical.invented
    return Marks(
        verdict=Verdict.SCORED,
        answer=text,
        scores={
            "clinical": clinical.score,
            "clinical_errors": float(clinical.actionable_errors),
            **({"facts_f1": [float(top), float(bottom)]} if bottom else {}),
            **text_scores(text, gold),
        },
        details={"clinical": counts},
    )


def report_text(report: Report) -> str:
    """A report in words, as references are written: its sentences, then its impression."""
    findings = " ".join(one.sentence for one in report.narrative)
    impression = " ".join(report.impression)
    parts = (f"Findings: {findings}" if findings else "", f"Impression: {impression}" if impression else "")
    return " ".join(filter(None, parts))


def _closed(said: str | None, gold: Sequence[str], certainty: float | None) -> Marks:
    if said is None or (said == UNCLEAR and UNCLEAR not in gold):
        return Marks(verdict=Verdict.NO_ANSWER, answer=said or NO_ANSWER)
    right = any(words(said) == words(one) for one in gold)
    return Marks(verdict=Verdict.RIGHT if right else Verdict.WRONG, answer=said, certainty=certainty)


def _real(choice: str | None) -> str | None:
    return None if choice == UNCLEAR else choice
