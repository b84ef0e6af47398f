"""MedFrameQA (Yu et al., 2025): questions that need two to five pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.pictures import Pictures
from medmllm_plugin.evaluation.questions import with_choices
from medmllm_plugin.evaluation.tables import choices_of, field, find_all, maybe, picture, rows

MOST = 5
"""Columns `image_1` to `image_5`."""


def _items(folder: Path) -> Iterator[Item]:
    for path in find_all(folder, "**/test-*.parquet", "*.parquet", what="Parquet file"):
        for number, row in enumerate(rows(path)):
            where = f"{path}, row {number + 1}"
            found = [picture(row, f"image_{k}", label=f"image_{k}.jpg") for k in range(1, MOST + 1)]
            files = tuple(one for one in found if one is not None)
            yield with_choices(
                name=maybe(row, "question_id") or f"{path.stem}-{number}",
                question=field(row, "question", where=where),
                choices=choices_of(row),
                gold=field(row, "correct_answer", where=where),
                shown=Pictures(files=files),
                cluster=maybe(row, "video_id"),
                groups={
                    "pictures": str(len(files)),
                    "system": maybe(row, "system"),
                    "modality": maybe(row, "modality"),
                    "organ": maybe(row, "organ"),
                },
                where=where,
            )


BENCHMARKS = (
    Benchmark(
        name="medframe-qa",
        summary="questions with choices that need two to five pictures",
        read=_items,
        files=("test-*.parquet (also in data/)",),
        source="SuhaoYu1020/MedFrameQA on the hub",
    ),
)
