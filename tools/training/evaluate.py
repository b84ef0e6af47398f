r"""How well a model reads phantoms that it never saw: the figures of its card.

    python -m tools.training.evaluate [--kind ct-chest] [--studies 100] [--first-seed 2000000000] \
        [--slices 160] [--matrix 512] [--model NAME] [--json FILE]

Each study goes through the slice plan, the engine and the model as a reading does, and the report is compared
with the truth in the patient's millimetres. `measured` is what `medmllm.json` holds for the kind: what
`medmllm selftest` compares with.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from medmllm_plugin import engine, registry
from medmllm_plugin.phantoms.study import DEFAULT_KIND, KINDS, sample_study
from medmllm_plugin.request import Request
from medmllm_plugin.scoring import Comparison, compare, measured
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.views import views_of


def by_finding(comparisons: Sequence[Comparison]) -> dict[str, dict[str, int]]:
    """For each finding how often it was found, missed, and said where it is not."""
    counts: dict[str, Counter[str]] = {}
    for one in comparisons:
        for pair in one.pairs:
            counts.setdefault(pair.true.finding, Counter())["missed" if pair.said is None else "found"] += 1
        for said in one.false:
            counts.setdefault(said.finding, Counter())["false"] += 1
    return {key: dict(counter) for key, counter in sorted(counts.items())}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=list(KINDS), default=DEFAULT_KIND)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--first-seed", type=int, default=2_000_000_000)
    parser.add_argument("--slices", type=int, help="of each study; the kind's usual number if left out")
    parser.add_argument("--matrix", type=int, help="rows and columns; the kind's usual number if left out")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = registry.open_model(options.model)
    comparisons, seconds = [], []
    for seed in range(options.first_seed, options.first_seed + options.studies):
        study = sample_study(kind=options.kind, seed=seed, slices=options.slices, matrix=options.matrix)
        volume = study.volume()
        views = views_of(model, volume)
        request = Request(task=TASKS["report"], slices=views.slices)
        report = engine.read(request, model, view=views.again).report
        comparisons.append(compare(study, report.findings))
        seconds.append(report.provenance.seconds)
    values = measured(comparisons)
    figures = {
        "kind": options.kind,
        "studies": options.studies,
        "findings in truth": sum(len(one.pairs) for one in comparisons),
        "measured": {key: round(one.value, 3) for key, one in values.items() if one.value is not None},
        "by finding": by_finding(comparisons),
        "model seconds, median": round(median(seconds), 2),
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
