"""MMMU, its medical subjects (Yue et al., 2024): college questions with one or several pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.pictures import Pictures
from medmllm_plugin.evaluation.questions import asked, with_choices
from medmllm_plugin.evaluation.tables import choices_of, field, find_all, maybe, picture, rows

SUBJECTS = (
    *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy"),
    "Public_Health",
)

MOST = 7
"""Columns `image_1` to `image_7`."""


def _items(folder: Path) -> Iterator[Item]:
    paths = find_all(
        folder,
        *(f"**/{split}*.parquet" for split in ("validation", "test")),
        what="Parquet file of a subject",
    )
    for path in paths:
        subject = next((one for one in SUBJECTS if one in path.as_posix()), None)
        for number, row in enumerate(rows(path)):
            # ids are such as validation_Clinical_Medicine_1
            of_id = next((one for one in SUBJECTS if one in maybe(row, "id")), subject)
            if of_id is not None:
                yield _item(row, of_id, where=f"{path}, row {number + 1}")


def _item(row: dict[str, Any], subject: str, *, where: str) -> Item:
    found = [picture(row, f"image_{k}", label=f"image_{k}.png") for k in range(1, MOST + 1)]
    files = tuple(one for one in found if one is not None)
    name, choices = field(row, "id", where=where), choices_of(row)
    question = _numbered(field(row, "question", where=where))
    groups = {
        "subject": subject.replace("_", " "),
        "difficulty": maybe(row, "topic_difficulty"),
        "pictures": "several" if len(files) > 1 else "one",
    }
    shown = Pictures(files=files)
    if len(choices) < 2:
        return asked(
            name=name, question=question, gold=field(row, "answer", where=where), shown=shown, groups=groups
        )
    return with_choices(
        name=name,
        question=question,
        choices={letter: _numbered(text) for letter, text in choices.items()},
        gold=field(row, "answer", where=where),
        shown=shown,
        groups=groups,
        where=where,
    )


def _numbered(text: str) -> str:
    """Marks such as `<image 2>` in words."""
    return re.sub(r"<image (\d)>", r"(image \1)", text)


BENCHMARKS = (
    Benchmark(
        name="mmmu-med",
        summary="college questions of five medical subjects, one or several pictures",
        read=_items,
        files=(
            "SUBJECT/validation-*.parquet (or test-*) of the five medical subjects:",
            ", ".join(SUBJECTS),
        ),
        source="MMMU/MMMU on the hub",
        licence="Apache-2.0",
    ),
)
