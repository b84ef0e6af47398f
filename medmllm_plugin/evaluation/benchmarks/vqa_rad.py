"""VQA-RAD (Lau et al., 2018): radiology pictures, questions by clinicians."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.pictures import Pictures, beside
from medmllm_plugin.evaluation.questions import asked
from medmllm_plugin.evaluation.tables import field, find_all, maybe, picture, rows

FOLDERS = ("VQA_RAD Image Folder", "images", "")


def _items(folder: Path) -> Iterator[Item]:
    paths = find_all(
        folder, "VQA_RAD Dataset Public.json", "questions.json", "*test*.json", "**/test-*.parquet",
        what="file of questions",
    )  # fmt: skip
    for path in paths:
        listed = list(rows(path))
        marked = [one for one in listed if str(one.get("phrase_type", "")).startswith("test")]
        for number, row in enumerate(marked or listed):
            where = f"{path}, row {number + 1}"
            inside = picture(row, "image", label=f"{path.stem}-{number}.jpg")
            name = inside.name if inside else field(row, "image_name", "image", where=where)
            if not name:
                raise SettingsError(f"{where}: found no picture, expected image_name; fetch the file again")
            yield asked(
                name=f"{maybe(row, 'qid') or number}",
                question=field(row, "question", where=where),
                gold=field(row, "answer", where=where),
                shown=Pictures(files=(inside or beside(folder, name, FOLDERS),)),
                cluster=name,
                groups={
                    "answer type": maybe(row, "answer_type").upper(),
                    "organ": maybe(row, "image_organ").upper(),
                    "question type": maybe(row, "question_type"),
                },
            )


BENCHMARKS = (
    Benchmark(
        name="vqa-rad",
        summary="questions by clinicians on radiology pictures: yes or no, and open",
        read=_items,
        files=(
            "VQA_RAD Dataset Public.json (or questions.json, or the hub's test-*.parquet)",
            "VQA_RAD Image Folder/*.jpg (or images/, or beside the JSON)",
        ),
        source="osf.io/89kps",
        licence="CC0 1.0",
    ),
)
