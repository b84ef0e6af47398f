"""MedMCQA (Pal et al., 2022): questions of Indian entrance examinations in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.questions import with_choices
from medmllm_plugin.evaluation.tables import choices_of, field, find, maybe, rows


def _items(folder: Path) -> Iterator[Item]:
    path = find(folder, "dev.json", "**/validation-*.parquet", what="dev.json")
    # the authors' files count the right choice from 1, the hub's Parquet files from 0
    first = 0 if path.suffix == ".parquet" else 1
    for number, row in enumerate(rows(path)):
        where = f"{path}, row {number + 1}"
        right = field(row, "cop", where=where)
        if not right.isdecimal() or not 0 <= int(right) - first < 4:
            raise SettingsError(
                f"{where}: found cop {right!r}, expected {first} to {first + 3}; the test part is published "
                "without what is right, take dev.json"
            )
        yield with_choices(
            name=maybe(row, "id") or str(number),
            question=field(row, "question", where=where),
            choices=choices_of(row),
            gold="ABCD"[int(right) - first],
            groups={"subject": maybe(row, "subject_name")},
            where=where,
        )


BENCHMARKS = (
    Benchmark(
        name="medmcqa",
        summary="questions of Indian medical entrance examinations, four choices",
        read=_items,
        files=("dev.json (or the hub's validation-*.parquet)",),
        source="github.com/medmcqa/medmcqa",
        text_only=True,
    ),
)
