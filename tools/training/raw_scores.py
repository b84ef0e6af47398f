r"""Which of a model's token probabilities tells best whether a finding is there.

    python -m tools.training.raw_scores [--kind ct-chest] [--studies 300] [--first-seed 2300000000] \
        [--model NAME]

Reads phantoms and prints for each score its area under the ROC curve (AUC) and its calibration error (ECE),
with 95 % intervals over phantoms. What is reported as `certainty` is the first of them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from itertools import accumulate
from math import prod

from medmllm_plugin import registry
from medmllm_plugin.calibrating import FIRST_SEED
from medmllm_plugin.findings import Status
from medmllm_plugin.models import Ask, Model, Reply
from medmllm_plugin.parsing import parse
from medmllm_plugin.phantoms.study import DEFAULT_KIND, KINDS, PhantomStudy, sample_study
from medmllm_plugin.prompting import prompt_for
from medmllm_plugin.reliability import auc, ece, estimate
from medmllm_plugin.reply_forms import schema_for
from medmllm_plugin.request import Request
from medmllm_plugin.scoring import compare
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.views import views_of

NAMES = (
    "finding, site, side and status together",
    "finding alone",
    "status alone, after what comes before it",
    "pictures that the finding cites",
    "pictures marked as abnormal",
)


def scores(reply: Reply, present: list[float]) -> Iterator[tuple[float, ...]]:
    """For each finding of a reply its scores, in the order of `NAMES`."""
    said = re.finditer(
        r'"finding":"([^"]*)".*?"status":"([^"]*)".*?"pictures":\[([\d,]*)\]', reply.text, flags=re.DOTALL
    )
    ends = list(accumulate(map(len, reply.token_texts)))
    starts = [0, *ends[:-1]]

    def together(first: int, last: int) -> float:
        tokens = zip(starts, ends, reply.token_probabilities, strict=True)
        return prod(chance for start, end, chance in tokens if end > first and start < last)

    for one, status in zip(said, present, strict=True):
        yield (
            together(one.start(1), one.end(2)),
            together(one.start(1), one.end(1)),
            status,
            together(one.start(3), one.end(3)),
            together(0, reply.text.index("]")),
        )


def read(study: PhantomStudy, model: Model) -> list[tuple[tuple[float, ...], bool]]:
    """The findings said to be present in a phantom: their scores, and whether they are."""
    request = Request(task=TASKS["report"], slices=views_of(model, study.volume()).slices)
    schema = schema_for(request, model.capabilities)
    (reply,) = model.replies([Ask(prompt=prompt_for(request, model.capabilities), schema=schema)])
    said = parse(reply, request=request, schema=schema, model=model).findings
    right = {id(pair.said) for pair in compare(study, said).pairs}
    present = [0.0 if one.probabilities is None else one.probabilities.present for one in said]
    return [
        (each, id(one) in right)
        for one, each in zip(said, scores(reply, present), strict=True)
        if one.status is Status.PRESENT
    ]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=list(KINDS), default=DEFAULT_KIND)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--model", default="embedded")
    options = parser.parse_args()
    model = registry.open_model(options.model)
    groups = [
        read(sample_study(kind=options.kind, seed=seed), model)
        for seed in range(options.first_seed, options.first_seed + options.studies)
    ]
    print(f"{sum(map(len, groups))} findings of {len(groups)} phantoms")
    for number, name in enumerate(NAMES):
        pairs = [[(each[number], right) for each, right in group] for group in groups]
        print(f"{name:<44}AUC {estimate(pairs, auc)}   ECE {estimate(pairs, ece)}")


if __name__ == "__main__":
    main()
