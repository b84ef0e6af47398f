"""What the clinical metric is worth: `python -m benchmarks.clinical`.

The eight public pairs beside their published figures, flips and paraphrases, real reports against the terms
that people gave them, and reports a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import click

from benchmarks import iu_xray
from medmllm_plugin.evaluation.clinical import compare
from medmllm_plugin.evaluation.facts import Fact, facts
from medmllm_plugin.evaluation.flips import SAME, Outcome, Pair, edits, judge, suite

PUBLISHED = ("BLEU", "BERTScore", "F1CheXbert", "RadGraph", "RadCliQ", "GREEN", "CRIMSON")
GALLERY: tuple[tuple[str, str, tuple[float | None, ...]], ...] = (
    (
        "Mild cardiomegaly.",
        "The cardiac silhouette is mildly enlarged.",
        (0.00, 0.215, 1.0, 0.00, 10.67, 1.0, 1.0),
    ),
    ("No pleural effusion.", "Pleural effusion.", (0.00, 0.893, 0.80, 0.50, 11.06, 0.0, -0.333)),
    (
        "Mild cardiomegaly. Small bilateral pleural effusions.",
        "Mild cardiomegaly.",
        (0.00, 0.718, 0.80, 0.50, 10.52, 0.5, 0.5),
    ),
    (
        "No acute findings.",
        "No acute findings. Small right pneumothorax.",
        (0.00, 0.604, 1.0, 0.57, 10.43, 0.5, -0.333),
    ),
    (
        "No acute cardiopulmonary process.",
        "No acute cardiopulmonary process.",
        (1.00, 1.00, 1.0, 1.0, 9.37, None, 1.0),
    ),
    (
        "Left lower lobe consolidation consistent with pneumonia.",
        "Right upper lobe mass.",
        (0.00, 0.579, 0.80, 0.22, 10.93, 0.0, -0.333),
    ),
    ("Mild pulmonary edema.", "Severe pulmonary edema.", (0.00, 0.955, 1.0, 0.67, 10.20, 0.5, 0.5)),
    (
        "Stable bibasilar atelectasis without consolidation.",
        "New right lower lobe consolidation.",
        (0.00, 0.355, 0.60, 0.00, 11.12, 0.0, -0.333),
    ),
)
"""RadEval's public pairs: reference, candidate, and their published figures in the order of `PUBLISHED`."""

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


@cache
def _read(text: str) -> tuple[Fact, ...]:
    chinese = any("\u4e00" <= one <= "\u9fff" for one in text)
    return facts(text, language="zh" if chinese else "en", modality=None)


def score(reference: str, candidate: str) -> float:
    """The metric on two texts, each read once; texts of which nothing is understood are all alike to it."""
    return compare(_read(reference), _read(candidate)).score


def by_hand(name: str) -> tuple[Pair, ...]:
    """The pairs of a file of `tests/golden`, both ways round."""
    found = []
    for line in (GOLDEN / name).read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            kind, one, other = (part.strip() for part in line.split("|"))
            found.append(Pair(kind=kind, reference=one, candidate=other))
            found.append(Pair(kind=kind, reference=other, candidate=one))
    return tuple(found)


def sentences(labelled: Iterable[iu_xray.Labelled]) -> tuple[str, ...]:
    """The sentences of real reports that hold no blanked word, each once."""
    parts = (part.strip() for one in labelled for line in one.text.splitlines() for part in line.split(". "))
    whole = (part.split(":", 1)[-1].strip().rstrip(".") for part in parts)
    return tuple(dict.fromkeys(f"{one}." for one in whole if "XXXX" not in one and 3 < len(one.split()) < 26))


def shares(outcomes: Sequence[Outcome]) -> dict[str, tuple[int, int]]:
    """How many flips and how many paraphrases were right, of how many."""
    same = [one for one in outcomes if one.kind == SAME]
    flips = [one for one in outcomes if one.kind != SAME]
    return {
        name: (sum(one.right for one in some), sum(one.total for one in some))
        for name, some in (("flips", flips), ("paraphrases", same))
    }


def _show(name: str, outcomes: Sequence[Outcome]) -> None:
    for kind, (right, total) in shares(outcomes).items():
        if total:
            click.echo(f"  {name:<44}{kind:<14}{right:>6} of {total:<6}{right / total:>7.1%}")


def main() -> None:
    """Print all of it."""
    click.echo(f"{'':<54}{'ours':>8}" + "".join(f"{name:>12}" for name in PUBLISHED))
    for reference, candidate, published in GALLERY:
        said = "".join(f"{'-' if one is None else format(one, '.3f'):>12}" for one in published)
        click.echo(f"{reference[:25]:<26}-> {candidate[:24]:<25}{score(reference, candidate):>8.3f}{said}")
    click.echo("\nFlips that lower the score, paraphrases that don't")
    _show("generated, evaluation/flips.toml", judge(suite(), score))
    for name in ("before", "after", "last"):
        _show(f"by hand, clinical_pairs_{name}.txt", judge(by_hand(f"clinical_pairs_{name}.txt"), score))
    path = iu_xray.archive()
    if path is None:
        click.echo("\nWithout torchxrayvision no real reports: pip install torchxrayvision")
        return
    labelled = list(iu_xray.reports(path))
    real = judge((pair for one in sentences(labelled) for pair in edits(one)), score)
    for one in real:
        _show(f"IU X-ray sentences, one word changed: {one.kind}", [one])
    click.echo(f"\n{len(labelled)} reports of IU X-ray against their MeSH terms")
    click.echo(f"  {'':<18}{'in terms':>9}{'precision':>11}{'recall':>8}")
    for line in iu_xray.agreement(labelled):
        there = line.right + line.missed
        click.echo(f"  {line.name:<18}{there:>9}{line.precision:>11.3f}{line.recall:>8.3f}")
    started = time.perf_counter()
    for report in labelled[:1000]:
        compare(report.text, report.text)
    each = (time.perf_counter() - started) / min(1000, len(labelled))
    click.echo(f"\n{each * 1000:.1f} ms a comparison of two reports, {1 / each:.0f} a second on one core")


if __name__ == "__main__":
    main()
