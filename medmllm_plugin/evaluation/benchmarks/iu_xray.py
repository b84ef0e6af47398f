"""IU X-ray (Demner-Fushman et al., 2016): reports of chest X-rays, frontal and lateral."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.pictures import Pictures, beside
from medmllm_plugin.evaluation.references import reference, report_item
from medmllm_plugin.evaluation.tables import field, find, maybe, rows

FOLDERS = ("images", "images/images_normalized", "")


def _items(folder: Path) -> Iterator[Item]:
    path = find(folder, "annotation.json", "test.json*", "indiana_reports.csv", what="file of reports")
    if path.suffix == ".csv":
        yield from _of_tables(folder, path)
        return
    for number, row in enumerate(_split(path)):
        where = f"{path}, row {number + 1}"
        names = row.get("image_path") or row.get("image") or row.get("images") or []
        names = [names] if isinstance(names, str) else names
        gold = maybe(row, "report") or reference(maybe(row, "findings"), maybe(row, "impression"))
        if gold:
            yield report_item(
                name=maybe(row, "id") or str(number),
                gold=gold,
                shown=Pictures(
                    files=tuple(beside(folder, str(one), FOLDERS) for one in names), modality="DX"
                ),
            )
        elif not names:
            raise SettingsError(f"{where}: found neither report nor picture; fetch the file again")


def _split(path: Path) -> list[dict[str, Any]]:
    """The rows of the test part; a file without parts is one."""
    content: Any = None
    if path.name == "annotation.json":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"{path}: found no JSON, expected the parts of R2Gen; fetch it again"
            ) from error
    if isinstance(content, dict) and isinstance(content.get("test"), list):
        return list(content["test"])
    return list(rows(path))


def _of_tables(folder: Path, path: Path) -> Iterator[Item]:
    views: dict[str, list[tuple[str, str]]] = {}
    for row in rows(find(folder, "indiana_projections.csv", what="table of pictures")):
        views.setdefault(maybe(row, "uid"), []).append((maybe(row, "projection"), maybe(row, "filename")))
    for number, row in enumerate(rows(path)):
        uid = field(row, "uid", where=f"{path}, row {number + 1}")
        gold = reference(maybe(row, "findings"), maybe(row, "impression"))
        if gold and uid in views:
            # Frontal before Lateral, as reports are read
            files = tuple(beside(folder, name, FOLDERS) for _, name in sorted(views[uid]))
            yield report_item(name=uid, gold=gold, shown=Pictures(files=files, modality="DX"))


BENCHMARKS = (
    Benchmark(
        name="iu-xray",
        summary="reports of chest X-rays, frontal and lateral",
        read=_items,
        files=(
            "annotation.json (R2Gen's parts) and images/CXR*/0.png, 1.png",
            "or test.json (rows of findings, impression, image)",
            "or indiana_reports.csv, indiana_projections.csv and images/*.png",
        ),
        source="openi.nlm.nih.gov",
    ),
)
