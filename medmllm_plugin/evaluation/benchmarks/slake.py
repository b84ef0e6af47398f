"""SLAKE (Liu et al., 2021): radiology pictures, questions in English and Chinese."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.pictures import Pictures, beside
from medmllm_plugin.evaluation.questions import asked
from medmllm_plugin.evaluation.tables import field, find, maybe, rows


def _items(folder: Path) -> Iterator[Item]:
    path = find(folder, "test.json", "*/test.json", what="test.json")
    for number, row in enumerate(rows(path)):
        where = f"{path}, row {number + 1}"
        name = field(row, "img_name", where=where)
        yield asked(
            name=maybe(row, "qid") or str(number),
            question=field(row, "question", where=where),
            gold=field(row, "answer", where=where),
            shown=Pictures(files=(beside(path.parent, name, ("imgs", "")),)),
            cluster=name,
            groups={
                "answer type": maybe(row, "answer_type").upper(),
                "modality": maybe(row, "modality"),
                "location": maybe(row, "location"),
                "content": maybe(row, "content_type"),
                "language": maybe(row, "q_lang"),
            },
            language="zh" if maybe(row, "q_lang") == "zh" else "en",
        )


BENCHMARKS = (
    Benchmark(
        name="slake",
        summary="questions on radiology pictures in English and Chinese (--only language=en)",
        read=_items,
        files=("test.json", "imgs/xmlab*/source.jpg"),
        source="med-vqa.com/slake",
    ),
)
