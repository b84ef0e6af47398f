"""MedXpertQA (Zuo et al., 2025): hard questions of specialists, with pictures (MM) and in words (Text)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.pictures import Pictures, beside
from medmllm_plugin.evaluation.questions import with_choices
from medmllm_plugin.evaluation.tables import choices_of, field, find, maybe, rows


def _of(part: str) -> Callable[[Path], Iterator[Item]]:
    """The reader of a part, `MM` or `Text`."""

    def items(folder: Path) -> Iterator[Item]:
        path = find(folder, f"{part}/test.jsonl", f"{part.lower()}/test.jsonl", what=f"{part}/test.jsonl")
        for number, row in enumerate(rows(path)):
            where = f"{path}, row {number + 1}"
            names = row.get("images") or []
            files = tuple(beside(folder, str(name), ("images", f"{part}/images", "")) for name in names)
            yield with_choices(
                name=field(row, "id", where=where),
                question=_bare(field(row, "question", where=where)),
                choices=choices_of(row),
                gold=field(row, "label", where=where),
                shown=Pictures(files=files) if files else None,
                groups={
                    "task": maybe(row, "medical_task"),
                    "system": maybe(row, "body_system"),
                    "type": maybe(row, "question_type"),
                },
                where=where,
            )

    return items


def _bare(question: str) -> str:
    """The question without the list of its choices, which some are published with."""
    return re.split(r"\n\s*Answer Choices:", question)[0].strip()


BENCHMARKS = (
    Benchmark(
        name="medxpert-qa-mm",
        summary="hard questions of specialists on pictures, five choices",
        read=_of("MM"),
        files=("MM/test.jsonl", "images/*.jpeg"),
        source="TsinghuaC3I/MedXpertQA on the hub",
    ),
    Benchmark(
        name="medxpert-qa-text",
        summary="hard questions of specialists in words, ten choices",
        read=_of("Text"),
        files=("Text/test.jsonl",),
        source="TsinghuaC3I/MedXpertQA on the hub",
        text_only=True,
    ),
)
