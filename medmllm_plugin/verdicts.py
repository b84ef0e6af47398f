"""Whether what came out of a self-test is good enough: each measure, its bar, and the verdict.

The chain is judged with a reader that knows the phantoms by heart: nothing may be lost but what pixels of
pictures round off. A model is judged by what it reached on phantoms that it never saw, as its card says, less
what chance may take from so few: so a verdict says that something changed, and not that a model is weak.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb, exp, factorial
from typing import Any

from medmllm_plugin.scoring import MEASURES, Comparison, Measure, Value, measured

CHANCE = 0.001
"""How seldom an unchanged chain may fall below a bar of a model."""

SLACK = 0.02
"""By how much less than its card a share may truly be: phantoms of another form or size."""

CHAIN = "chain"
ALL = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One measure against its bar."""

    reader: str
    """`chain`, or the model's name."""
    kind: str
    """The kind of phantoms, or `all`."""
    key: str
    words: str
    value: float | None
    cases: int
    bar: float | None
    """None where there is nothing to compare with; then it is shown and not judged."""
    higher: bool
    unit: str
    """`%` for a share of 1, `mm`, `px`, `count`, or none."""
    reached: float | None = None
    """What the model's card says."""
    strict: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the bar is reached, or there is none, or there was no case."""
        if self.bar is None or self.value is None:
            return True
        return self.value >= self.bar if self.higher else self.value <= self.bar

    @property
    def heading(self) -> str:
        """Whose reading it is on."""
        if self.reader == CHAIN:
            return "The chain, with a reader that knows the phantoms"
        return f"The model {self.reader} on {self.kind}"

    @property
    def bar_words(self) -> str:
        """The bar, such as `at least 0.850`."""
        if self.bar is None:
            return "-"
        exact = self.bar == (1 if self.higher else 0) and self.unit in ("", "count")
        least = "" if exact else "at least " if self.higher else "at most "
        return least + self.shown(self.bar)

    @property
    def judgement(self) -> str:
        """`ok`, `BELOW THE BAR`, or why there is no verdict."""
        if self.value is None:
            return "no case"
        if self.bar is None:
            return "not judged"
        return "ok" if self.passed else "BELOW THE BAR"

    def to_json(self) -> dict[str, Any]:
        """The verdict in `selftest.json`."""
        return {**asdict(self), "passed": self.passed}

    def shown(self, value: float | None) -> str:
        """A value of this measure for a person."""
        if value is None:
            return "-"
        match self.unit:
            case "%":
                return f"{100 * value:.0f} %"
            case "count":
                return f"{value:.0f}"
            case "mm" | "px":
                return f"{value:.2f} {self.unit}" if value < 1 else f"{value:.1f} {self.unit}"
        return f"{value:.3f}"


def chain_verdicts(comparisons: Sequence[Comparison], *, failed: int, differing: int) -> Iterator[Verdict]:
    """How the chain did with the reader that knows its phantoms.

    Args:
        comparisons: Of each phantom.
        failed: How many readings ended with an error.
        differing: How many findings the SRs give otherwise than report.json.
    """
    found = [(pair, one.pixel_mm) for one in comparisons for pair in one.pairs if pair.said is not None]
    edges = [pair.edge_px for pair, _ in found if pair.edge_px is not None]
    places = [pair.off_mm / pixel for pair, pixel in found if pair.off_mm is not None]
    values = measured(comparisons)
    yield from _whole(
        CHAIN, ALL, studies=len(comparisons), findings=len(found), failed=failed, differing=differing
    )
    share = Value(value=len(edges) / len(found) if found else None, cases=len(found))
    at_least = (
        ("f1", "findings that came through, F1", values["f1"]),
        ("side", "side right", values["side"]),
        ("image", "box on the very image", share),
    )
    for key, words, value in at_least:
        yield _verdict(CHAIN, ALL, key, words, value, bar=1.0)
    at_most = (
        ("edge", "edges of boxes in the image, worst", edges),
        ("place", "centres in the patient, worst", places),
    )
    for key, words, offs in at_most:
        worst = Value(value=max(offs, default=None), cases=len(offs))
        yield _verdict(CHAIN, ALL, key, words, worst, bar=1.0, higher=False, unit="px")


def model_verdicts(
    comparisons: Sequence[Comparison],
    *,
    reader: str,
    kind: str,
    reached: Mapping[str, float],
    strict: bool,
    failed: int,
    differing: int,
) -> Iterator[Verdict]:
    """How a model did on phantoms of one kind.

    Args:
        comparisons: Of each phantom.
        reader: The model's name.
        kind: The kind of the phantoms.
        reached: What its card says it reached, by keys of `MEASURES`; what is missing is not judged.
        strict: Whether it is held to `Measure.strict` instead.
        failed: How many readings ended with an error.
        differing: How many findings the SRs give otherwise than report.json.
    """
    found = sum(pair.said is not None for one in comparisons for pair in one.pairs)
    yield from _whole(
        reader, kind, studies=len(comparisons), findings=found, failed=failed, differing=differing
    )
    for key, value in measured(comparisons).items():
        one = MEASURES[key]
        bar = one.strict if strict else bar_of(one, reached.get(key), value.cases)
        yield _verdict(
            reader,
            kind,
            key,
            one.words,
            value,
            bar=bar,
            higher=one.higher,
            unit=one.unit,
            reached=reached.get(key),
            strict=one.strict,
        )


def bar_of(measure: Measure, reached: float | None, cases: int) -> float | None:
    """The bar for so many cases, where many more reached a value; None without one or the other.

    A share may fall below what was reached, less `SLACK`, as far as chance takes one in a thousand samples
    of this size (binomial); a count of false findings may rise so far (Poisson). An error may be twice as
    large, or up to the bar of a model that reads phantoms well.

    >>> [bar_of(MEASURES["side"], 0.98, cases) for cases in (10, 100)]
    [0.7, 0.89]
    >>> bar_of(MEASURES["centre"], 10.5, 30)
    21.0
    """
    if reached is None or not cases:
        return None
    if measure.higher:
        likely = max(0.0, reached - SLACK)
        return (
            _quantile([comb(cases, k) * likely**k * (1 - likely) ** (cases - k) for k in range(cases + 1)])
            / cases
        )
    if measure.unit:
        return max(2 * reached, measure.strict)
    mean = max(reached + SLACK, 0.05) * cases
    most = int(mean + 10 * mean**0.5 + 10)
    return (
        most - _quantile([exp(-mean) * mean**k / factorial(k) for k in reversed(range(most + 1))])
    ) / cases


def _quantile(chances: Sequence[float]) -> int:
    """The first place up to which chances add up to `CHANCE`."""
    total = 0.0
    for place, chance in enumerate(chances):
        total += chance
        if total >= CHANCE:
            return place
    return len(chances) - 1


def _whole(
    reader: str, kind: str, *, studies: int, findings: int, failed: int, differing: int
) -> Iterator[Verdict]:
    """The two measures on which nothing may be lost, whoever reads."""
    rows = (
        ("failed", "readings that failed", failed, studies),
        ("differing", "findings that the SR gives otherwise than report.json", differing, findings),
    )
    for key, words, count, cases in rows:
        value = Value(value=float(count), cases=cases)
        yield _verdict(reader, kind, key, words, value, bar=0.0, higher=False, unit="count")


def _verdict(
    reader: str,
    kind: str,
    key: str,
    words: str,
    value: Value,
    *,
    bar: float | None,
    higher: bool = True,
    unit: str = "",
    reached: float | None = None,
    strict: float | None = None,
) -> Verdict:
    return Verdict(
        reader=reader,
        kind=kind,
        key=key,
        words=words,
        value=value.value,
        cases=value.cases,
        bar=bar,
        higher=higher,
        unit=unit,
        reached=reached,
        strict=strict,
    )
