"""OmniMedVQA (Hu et al., 2024): twelve modalities, two to four choices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.pictures import Pictures, beside
from medmllm_plugin.evaluation.questions import with_choices
from medmllm_plugin.evaluation.tables import choices_of, field, find_all, maybe, rows


def _items(folder: Path) -> Iterator[Item]:
    paths = find_all(
        folder, "QA_information/Open-access/*.json", "Open-access/*.json", "*.json", what="QA_information"
    )
    for path in paths:
        for number, row in enumerate(rows(path)):
            where = f"{path}, row {number + 1}"
            name = field(row, "image_path", where=where)
            yield with_choices(
                name=f"{path.stem}-{maybe(row, 'question_id') or number}",
                question=field(row, "question", where=where),
                choices=choices_of(row),
                gold=field(row, "gt_answer", where=where),
                shown=Pictures(files=(beside(folder, name, ("", "Images")),)),
                cluster=name,
                groups={
                    "modality": maybe(row, "modality_type"),
                    "question type": maybe(row, "question_type"),
                    "dataset": maybe(row, "dataset"),
                },
                where=where,
            )


BENCHMARKS = (
    Benchmark(
        name="omnimed-vqa",
        summary="questions with choices on pictures of twelve modalities",
        read=_items,
        files=("QA_information/Open-access/*.json", "Images/... as image_path names them"),
        source="foreverbeliever/OmniMedVQA on the hub",
    ),
)
