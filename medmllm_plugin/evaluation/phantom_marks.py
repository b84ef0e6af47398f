"""What answers on phantoms are worth: reports, places, sizes, changes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from medmllm_plugin.evaluation.benchmark import Marks, Verdict
from medmllm_plugin.evaluation.facts import facts_of_findings
from medmllm_plugin.evaluation.grounding import of_report, placed
from medmllm_plugin.evaluation.measures import Score
from medmllm_plugin.evaluation.scored import of_report as of_text
from medmllm_plugin.evaluation.scored import report_text
from medmllm_plugin.findings import Change, Finding, Status
from medmllm_plugin.phantoms.study import PhantomStudy
from medmllm_plugin.report import Report
from medmllm_plugin.scoring import bounds
from medmllm_plugin.selftest_page import study_index
from medmllm_plugin.statements import lengths_mm

CLOSE_MM, CLOSE_SHARE = 3.0, 0.2
"""A size is right if it is off by less than either."""


def marks_of_report(study: PhantomStudy, report: Report) -> Marks:
    """A report on a phantom: right if nothing is missed, false, or on the wrong side."""
    result, scores, details = of_report(study, report.findings)
    right = not result.false and all(one.side_right for one in result.pairs)
    truth = study.truth()
    gold = " ".join(true.sentence for true in truth) or "No abnormality."
    text = of_text(report_text(report), report, gold, facts=facts_of_findings(truth))
    missed = [one.true.finding for one in result.pairs if one.said is None]
    sided = [one.true.finding for one in result.pairs if one.said is not None and not one.side_right]
    told = {"missed": missed, "false": [one.finding for one in result.false], "wrong side": sided}
    return Marks(
        verdict=Verdict.RIGHT if right else Verdict.WRONG,
        answer=report_text(report) or "nothing said",
        scores={**scores, **text.scores},
        details={
            **details,
            **text.details,
            **{name: keys for name, keys in told.items() if keys},
            "boxes": _drawn(study, report),
        },
    )


def _drawn(study: PhantomStudy, report: Report) -> list[list[float]]:
    """(image from 0, column_min, row_min, column_max, row_max) of each box of a finding that is there."""
    numbers = {study.source(k): k for k in range(study.slices)}
    return [
        [numbers[one.box.image], *(round(edge, 1) for edge in bounds(one.box))]
        for one in report.findings
        if one.box is not None and one.status is Status.PRESENT and one.box.image in numbers
    ]


def marks_of_place(study: PhantomStudy, index: int, true: Finding, report: Report) -> Marks:
    """Boxes drawn of one finding: right if the centre of the first lies inside the lesion's box there."""
    answer = report.answer
    boxes = () if answer is None else answer.boxes
    if not boxes:
        said = "nothing said" if answer is None else answer.text
        verdict = Verdict.WRONG if answer is not None and answer.choice == "no" else Verdict.NO_ANSWER
        return Marks(verdict=verdict, answer=said, scores={"pointing": 0.0, "iou50": 0.0})
    first = placed(study, index, true, boxes[0])
    scores: dict[str, Score] = {
        "slice": float(first.on_slice),
        "pointing": float(first.pointing),
        "iou": first.iou,
        "iou50": float(first.iou >= 0.5),
    }
    if first.off_mm is not None:
        scores["centre_mm"] = [first.off_mm]
    return Marks(
        verdict=Verdict.RIGHT if first.pointing else Verdict.WRONG,
        answer=f"{len(boxes)} boxes, the first on picture {boxes[0].picture}",
        scores=scores,
        details={"boxes": [[float(study_index(study, box) or 0), *bounds(box)] for box in boxes[:1]]},
        certainty=None if answer is None else answer.certainty,
    )


def marks_of_size(gold: str, report: Report) -> Marks:
    """A size in words: right if it is off by less than `CLOSE_MM` or `CLOSE_SHARE` of the true one."""
    text = "" if report.answer is None else report.answer.text
    said = size_said(text)
    if said is None:
        return Marks(verdict=Verdict.NO_ANSWER, answer=text or "nothing said")
    true = float(gold.split()[0])
    off = abs(said - true)
    close = off <= max(CLOSE_MM, CLOSE_SHARE * true)
    return Marks(
        verdict=Verdict.RIGHT if close else Verdict.WRONG,
        answer=f"{said:g} mm",
        scores={"size_mm": [off], "size_off": [off / true]},
    )


def size_said(text: str) -> float | None:
    """The longest length that a text gives, in millimetres; a bare number counts as such if it is alone.

    >>> size_said("About 1.2 x 0.9 cm"), size_said("14"), size_said("2 lesions of 3 slices")
    (12.0, 14.0, None)
    """
    lengths = lengths_mm(text)
    if lengths:
        return max(lengths)
    numbers = re.findall(r"\d+(?:\.\d+)?", text)
    return float(numbers[0]) if len(numbers) == 1 else None


def marks_of_changes(changes: Mapping[str, str], report: Report) -> Marks:
    """What is said to have changed, finding by finding: right if all are, and none is invented."""
    said: dict[str, str] = {}
    for one in report.findings:
        if one.finding not in said and one.status is not Status.INDETERMINATE:
            gone = one.status is Status.ABSENT
            if gone and one.change is not Change.RESOLVED:
                continue
            said[one.finding] = "not said" if one.change is None else one.change.value
    right = sum(said.get(key) == change for key, change in changes.items())
    invented = [key for key in said if key not in changes]
    whole = right == len(changes) and not invented
    return Marks(
        verdict=Verdict.RIGHT if whole else Verdict.WRONG,
        answer=", ".join(f"{key} {change}" for key, change in said.items()) or "nothing said",
        scores={"change": [float(right), float(len(changes))]},
        details={"invented": invented} if invented else {},
    )
