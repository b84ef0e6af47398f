"""MedQA, its USMLE part (Jin et al., 2021): questions of the licensing examination in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.questions import with_choices
from medmllm_plugin.evaluation.tables import choices_of, field, find, maybe, rows


def _items(folder: Path) -> Iterator[Item]:
    path = find(
        folder,
        "phrases_no_exclude_test.jsonl", "questions/US/4_options/phrases_no_exclude_test.jsonl",
        "test.jsonl", "questions/US/test.jsonl", "**/test-*.parquet",
        what="file of questions",
    )  # fmt: skip
    for number, row in enumerate(rows(path)):
        where = f"{path}, row {number + 1}"
        yield with_choices(
            name=str(number),
            question=field(row, "question", where=where),
            choices=choices_of(row),
            gold=maybe(row, "answer_idx") or field(row, "answer", where=where),
            groups={"step": maybe(row, "meta_info")},
            where=where,
        )


BENCHMARKS = (
    Benchmark(
        name="medqa",
        summary="questions of the US licensing examination, four or five choices",
        read=_items,
        files=("phrases_no_exclude_test.jsonl (four choices) or test.jsonl (five)",),
        source="GBaker/MedQA-USMLE-4-options on the hub",
        text_only=True,
    ),
)
