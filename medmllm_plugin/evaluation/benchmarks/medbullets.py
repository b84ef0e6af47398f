"""Medbullets (Chen et al., 2024): questions of USMLE steps 2 and 3, four or five choices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.questions import with_choices
from medmllm_plugin.evaluation.tables import choices_of, field, find, maybe, rows


def _of(count: int) -> Callable[[Path], Iterator[Item]]:
    """The reader of the part with so many choices."""

    def items(folder: Path) -> Iterator[Item]:
        name = f"medbullets_op{count}.csv"
        path = find(folder, name, f"**/{name}", f"**/op{count}_test-*.parquet", what=name)
        for number, row in enumerate(rows(path)):
            where = f"{path}, row {number + 1}"
            choices = choices_of(row)
            yield with_choices(
                name=maybe(row, "idx") or str(number),
                question=field(row, "question", where=where),
                choices={letter: choices[letter] for letter in list(choices)[:count]},
                gold=maybe(row, "answer_idx") or field(row, "answer", where=where),
                where=where,
            )

    return items


BENCHMARKS = tuple(
    Benchmark(
        name=f"medbullets-{count}",
        summary=f"questions of USMLE steps 2 and 3, {words} choices",
        read=_of(count),
        files=(f"medbullets_op{count}.csv (or the hub's op{count}_test-*.parquet)",),
        source="github.com/HanjieChen/ChallengeClinicalQA",
        text_only=True,
        sample="medbullets",
    )
    for count, words in ((4, "four"), (5, "five"))
)
