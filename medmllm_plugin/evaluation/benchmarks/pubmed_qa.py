"""PubMedQA, its expert part (Jin et al., 2019): yes, no or maybe from an abstract."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.questions import with_choices
from medmllm_plugin.evaluation.tables import field, find, maybe, rows

CHOICES = {"A": "yes", "B": "no", "C": "maybe"}


def _items(folder: Path) -> Iterator[Item]:
    path = find(
        folder, "test_set.json", "data/test_set.json", "ori_pqal.json", "data/ori_pqal.json", what="file"
    )
    for number, row in enumerate(rows(path)):
        where = f"{path}, row {number + 1}"
        contexts = row.get("CONTEXTS") or []
        question = field(row, "QUESTION", where=where)
        item = with_choices(
            name=maybe(row, "_key") or str(number),
            question="\n".join([*map(str, contexts), question]),
            choices=CHOICES,
            gold=field(row, "final_decision", where=where),
            where=where,
        )
        yield replace(item, groups={"right answer": item.gold[0]})


BENCHMARKS = (
    Benchmark(
        name="pubmed-qa",
        summary="yes, no or maybe, from the abstract of a paper",
        read=_items,
        files=("test_set.json (made by the authors' split) or ori_pqal.json",),
        source="github.com/pubmedqa/pubmedqa",
        licence="MIT",
        text_only=True,
    ),
)
