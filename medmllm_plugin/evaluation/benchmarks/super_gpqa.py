"""SuperGPQA, its medicine (M-A-P, 2025): graduate questions, up to ten choices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.questions import with_choices
from medmllm_plugin.evaluation.tables import choices_of, field, find, maybe, rows

DISCIPLINE = "Medicine"


def _items(folder: Path) -> Iterator[Item]:
    path = find(folder, "SuperGPQA-all.jsonl", "*.jsonl", "**/*.parquet", what="SuperGPQA-all.jsonl")
    for number, row in enumerate(rows(path)):
        where = f"{path}, row {number + 1}"
        if field(row, "discipline", where=where) != DISCIPLINE:
            continue
        yield with_choices(
            name=maybe(row, "uuid") or str(number),
            question=field(row, "question", where=where),
            choices=choices_of(row),
            gold=maybe(row, "answer_letter") or field(row, "answer", where=where),
            groups={"field": maybe(row, "field"), "difficulty": maybe(row, "difficulty")},
            where=where,
        )


BENCHMARKS = (
    Benchmark(
        name="super-gpqa",
        summary="graduate questions of medicine, up to ten choices",
        read=_items,
        files=("SuperGPQA-all.jsonl; only its discipline Medicine is taken",),
        source="m-a-p/SuperGPQA on the hub",
        text_only=True,
    ),
)
