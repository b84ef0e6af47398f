"""PMC-VQA (Zhang et al., 2023): figures of papers, four choices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.pictures import Pictures, beside
from medmllm_plugin.evaluation.questions import with_choices
from medmllm_plugin.evaluation.tables import choices_of, field, find, maybe, rows


def _items(folder: Path) -> Iterator[Item]:
    path = find(folder, "test_2.csv", "test_clean.csv", "test.csv", what="table of questions")
    for number, row in enumerate(rows(path)):
        where = f"{path}, row {number + 1}"
        name = field(row, "Figure_path", where=where)
        yield with_choices(
            name=maybe(row, "index") or str(number),
            question=field(row, "Question", where=where),
            choices=choices_of(row),
            gold=maybe(row, "Answer_label") or field(row, "Answer", where=where),
            shown=Pictures(files=(beside(folder, name, ("figures", "images_2/figures", "images", "")),)),
            cluster=name,
            where=where,
        )


BENCHMARKS = (
    Benchmark(
        name="pmc-vqa",
        summary="questions with four choices on figures of papers",
        read=_items,
        files=("test_2.csv (or test_clean.csv, test.csv)", "figures/*.jpg (or images_2/figures/, images/)"),
        source="RadGenome/PMC-VQA on the hub",
    ),
)
