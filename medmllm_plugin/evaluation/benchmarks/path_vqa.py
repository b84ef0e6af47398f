"""PathVQA (He et al., 2020): pathology pictures of textbooks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.pictures import Encoded, Pictures, beside
from medmllm_plugin.evaluation.questions import asked
from medmllm_plugin.evaluation.tables import field, find_all, picture, rows


def _items(folder: Path) -> Iterator[Item]:
    paths = find_all(
        folder, "**/test-*.parquet", "qas/test/test_qa.json*", "test_qa.json*", what="file of questions"
    )
    for path in paths:
        for number, row in enumerate(rows(path)):
            where = f"{path}, row {number + 1}"
            inside = picture(row, "image", label=f"{path.stem}-{number}.jpg")
            shown: Path | Encoded = inside or _beside(folder, field(row, "image", where=where))
            question = field(row, "question", where=where)
            yield asked(
                name=f"{path.stem}-{number}",
                question=question,
                gold=field(row, "answer", where=where),
                shown=Pictures(files=(shown,)),
                cluster=shown.name if isinstance(shown, Path) else "",
                groups={"asked": question.split(maxsplit=1)[0].lower() if question else ""},
            )


def _beside(folder: Path, name: str) -> Path:
    """The published rows name pictures without the end of their file names."""
    known = name if "." in name else f"{name}.jpg"
    return beside(folder, known, ("images/test", "images", ""))


BENCHMARKS = (
    Benchmark(
        name="path-vqa",
        summary="questions on pathology pictures: yes or no, and open",
        read=_items,
        files=(
            "test-*.parquet as the hub has it (also in data/)",
            "or qas/test/test_qa.json (rows of image, question, answer) and images/test/*.jpg",
        ),
        source="flaviagiammarino/path-vqa on the hub",
    ),
)
