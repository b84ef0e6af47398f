"""MMLU, its medical subjects (Hendrycks et al., 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.questions import with_choices
from medmllm_plugin.evaluation.tables import choices_of, field, find_all, rows_without_head

SUBJECTS = (
    *("anatomy", "clinical_knowledge", "college_biology", "college_medicine", "medical_genetics"),
    "professional_medicine",
)
COLUMNS = ("question", "A", "B", "C", "D", "answer")


def _items(folder: Path) -> Iterator[Item]:
    for path in find_all(folder, "test/*_test.csv", "*_test.csv", what="table of a subject"):
        subject = path.stem.removesuffix("_test")
        if subject not in SUBJECTS:
            continue
        for number, row in enumerate(rows_without_head(path, COLUMNS)):
            where = f"{path}, row {number + 1}"
            yield with_choices(
                name=f"{subject}-{number}",
                question=field(row, "question", where=where),
                choices=choices_of(row),
                gold=field(row, "answer", where=where),
                groups={"subject": subject.replace("_", " ")},
                where=where,
            )


BENCHMARKS = (
    Benchmark(
        name="mmlu-medical",
        summary="six medical subjects of MMLU, four choices",
        read=_items,
        files=("test/SUBJECT_test.csv of: " + ", ".join(SUBJECTS),),
        source="github.com/hendrycks/test",
        licence="MIT",
        text_only=True,
    ),
)
