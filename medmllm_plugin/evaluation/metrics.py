"""What a run came to: figures with intervals, by group, and what certainties and denials are worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isnan
from typing import Any

from medmllm_plugin.evaluation.benchmark import Kind, Verdict
from medmllm_plugin.evaluation.grounding import FALSE_A_STUDY, froc, sensitivity
from medmllm_plugin.evaluation.measures import MEASURES, Score, estimate
from medmllm_plugin.evaluation.records import SCHEMA, Record
from medmllm_plugin.reliability import Estimate, auc, brier, ece
from medmllm_plugin.reliability import estimate as over_studies

Figures = Mapping[str, Mapping[str, float]]
"""By keys of `measures.MEASURES`: `value`, `low`, `high` (95 %), and `cases`, how many items it rests on."""

Pairs = list[list[tuple[float, bool]]]
"""Of each cluster: (certainty, whether it was right)."""

MOST_GROUPS = 24
"""Values of a group that tables show; the rarest are put together."""

OTHER = "others"

FEWEST = 10
"""Items of which it makes sense to say what the commonest answer is."""


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """The content of `metrics.json`: the same for the same records, in whatever order they come.

    Args:
        records: Of all items of a run, at least one.
    """
    ordered = sorted(records, key=lambda one: one.item)
    sure = certainties(ordered)
    return {
        "schema": SCHEMA,
        "items": len(ordered),
        "verdicts": dict(sorted(Counter(one.verdict.value for one in ordered).items())),
        "measures": figures(ordered),
        "groups": {
            name: {value: figures(mine) for value, mine in parts.items()}
            for name, parts in grouped(ordered).items()
        },
        "calibration": _calibration(sure),
        "abstention": [[round(share, 4), round(right, 4)] for share, right in abstention(sure)],
        "froc": _froc(ordered),
        "negation": negation(ordered),
        "seconds": round(sum(one.seconds for one in ordered), 1),
    }


def figures(records: Sequence[Record]) -> Figures:
    """Every measure that some record has a score of, in the order of `MEASURES`."""
    scores: dict[str, list[tuple[str, Score]]] = {}
    for one in records:
        for key, score in (*_verdict_scores(one), *one.scores.items()):
            scores.setdefault(key, []).append((one.cluster, score))
    golds = [one.gold[0] for one in records if one.kind is Kind.YES_NO]
    if len(golds) == len(records) >= FEWEST:
        commonest = Counter(golds).most_common(1)[0][0]
        scores["commonest"] = [(one.cluster, float(one.gold[0] == commonest)) for one in records]
    return {key: _told(estimate(key, scores[key]), len(scores[key])) for key in MEASURES if key in scores}


def _verdict_scores(one: Record) -> Iterable[tuple[str, Score]]:
    answered = one.verdict in (Verdict.RIGHT, Verdict.WRONG, Verdict.SCORED)
    yield "answered", float(answered)
    if one.kind is not Kind.REPORT:
        right = float(one.verdict is Verdict.RIGHT)
        yield "accuracy", right
        if answered:
            yield "accuracy_answered", right


def grouped(records: Sequence[Record]) -> dict[str, dict[str, list[Record]]]:
    """The records by each group that tells some apart, and by the kind of their items."""
    found: dict[str, dict[str, list[Record]]] = {}
    for one in records:
        for name, value in {"kind of item": one.kind.value, **one.groups}.items():
            found.setdefault(name, {}).setdefault(value, []).append(one)
    return {name: _fewer(parts) for name, parts in found.items() if len(parts) > 1}


def _fewer(parts: dict[str, list[Record]]) -> dict[str, list[Record]]:
    ranked = sorted(parts, key=lambda value: (-len(parts[value]), value))
    kept, rest = ranked[:MOST_GROUPS], ranked[MOST_GROUPS:]
    shown = {value: parts[value] for value in kept}
    if rest:
        shown[OTHER] = [*shown.get(OTHER, []), *(one for value in rest for one in parts[value])]
    return shown


def certainties(records: Sequence[Record]) -> Pairs:
    """What was said with a certainty, and whether it was right: findings of reports, else answers."""
    found: dict[str, list[tuple[float, bool]]] = {}
    for one in records:
        mine = found.setdefault(one.cluster, [])
        if "certainties" in one.details:
            mine += [(float(sure), bool(right)) for sure, right in one.details["certainties"]]
        elif one.certainty is not None and one.verdict in (Verdict.RIGHT, Verdict.WRONG):
            mine.append((one.certainty, one.verdict is Verdict.RIGHT))
    return [mine for mine in found.values() if mine]


def abstention(pairs: Pairs) -> list[tuple[float, float]]:
    """Share right among the surest, as fewer and fewer are kept: (share kept, share right), kept falling.

    >>> abstention([[(0.9, True), (0.4, False)], [(0.8, True), (0.8, False)]])
    [(1.0, 0.5), (0.75, 0.6666666666666666), (0.25, 1.0)]
    """
    flat = sorted((pair for group in pairs for pair in group), reverse=True)
    curve, right = [], 0
    for number, (sure, hit) in enumerate(flat, 1):
        right += hit
        if number == len(flat) or flat[number][0] < sure:
            curve.append((number / len(flat), right / number))
    return curve[::-1]


def _calibration(pairs: Pairs) -> dict[str, Any]:
    if not pairs:
        return {}
    named: Mapping[str, Callable[[Sequence[float], Sequence[bool]], float]] = {
        "ece": ece,
        "brier": brier,
        "auc": auc,
    }
    cases = sum(map(len, pairs))
    return {name: _told(over_studies(pairs, figure), cases) for name, figure in named.items()}


def _froc(records: Sequence[Record]) -> dict[str, Any]:
    marked = [one.details for one in records if "marks" in one.details]
    studies = [(int(one["lesions"]), one["marks"]) for one in marked]
    curve = froc(studies)
    if not curve:
        return {}
    read = {f"{at:g}": round(sensitivity(curve, at), 4) for at in FALSE_A_STUDY}
    return {
        "studies": len(studies),
        "at": read,
        "mean": round(sum(read.values()) / len(read), 4),
        "curve": [[round(false, 4), round(found, 4)] for false, found in curve],
    }


def negation(records: Sequence[Record]) -> dict[str, Any]:
    """Of pairs that ask the same both ways: how often both were answered and agree, and how often are right.

    A pair agrees if one is answered yes and the other no.
    """
    pairs: dict[str, list[Record]] = {}
    for one in records:
        if one.pair:
            pairs.setdefault(one.pair, []).append(one)
    whole = {pair: both for pair, both in pairs.items() if len(both) == 2}
    if not whole:
        return {}
    answered = {pair: {one.answer for one in both} <= {"yes", "no"} for pair, both in whole.items()}
    agrees = [
        (pair, float(answered[pair] and len({one.answer for one in both}) == 2))
        for pair, both in whole.items()
    ]
    right = [(pair, float(all(one.verdict is Verdict.RIGHT for one in both))) for pair, both in whole.items()]
    return {
        "pairs": len(whole),
        "answered": sum(answered.values()),
        "consistent": _told(estimate("accuracy", agrees), len(agrees)),
        "both_right": _told(estimate("accuracy", right), len(right)),
    }


def _told(one: Estimate, cases: int) -> dict[str, float]:
    if isnan(one.value):
        return {"cases": cases}
    return {
        "value": round(one.value, 4),
        "low": round(one.low, 4),
        "high": round(one.high, 4),
        "cases": cases,
    }
