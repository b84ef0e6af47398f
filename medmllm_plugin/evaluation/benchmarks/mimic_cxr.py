"""MIMIC-CXR (Johnson et al., 2019): reports of chest X-rays of an emergency department."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.pictures import Pictures
from medmllm_plugin.evaluation.references import reference, report_item, sections
from medmllm_plugin.evaluation.tables import field, find, maybe, rows

FRONTAL = ("PA", "AP", "")
"""Views in the order they are shown; others, such as LATERAL, follow."""

MOST = 2
"""Pictures of a study that are shown."""


def _items(folder: Path) -> Iterator[Item]:
    parts = find(folder, "mimic-cxr-2.*-split.csv*", "*split.csv*", what="table of parts")
    views = _views(folder)
    studies: dict[tuple[str, str], list[str]] = {}
    for number, row in enumerate(rows(parts)):
        where = f"{parts}, row {number + 1}"
        if field(row, "split", where=where) == "test":
            key = field(row, "subject_id", where=where), field(row, "study_id", where=where)
            studies.setdefault(key, []).append(field(row, "dicom_id", where=where))
    for (subject, study), images in sorted(studies.items()):
        inside = Path("files", f"p{subject[:2]}", f"p{subject}")
        text = next(
            (
                path
                for top in ("", "mimic-cxr-reports")
                if (path := folder / top / inside / f"s{study}.txt").is_file()
            ),
            None,
        )
        if text is None:
            raise SettingsError(
                f"{folder}: found no report s{study}.txt of a study, expected {inside}/s{study}.txt"
            )
        gold = reference(*sections(text.read_text(encoding="utf-8", errors="replace")))
        if not gold:
            continue
        ordered = sorted(images, key=lambda one: (views.get(one, "") not in FRONTAL, views.get(one, ""), one))
        files = tuple(folder / inside / f"s{study}" / f"{one}.jpg" for one in ordered[:MOST])
        yield report_item(
            name=f"s{study}", gold=gold, shown=Pictures(files=files, modality="DX"), cluster=f"p{subject}"
        )


def _views(folder: Path) -> dict[str, str]:
    """The view of each image, where the table of headers is there."""
    try:
        path = find(folder, "mimic-cxr-2.*-metadata.csv*", "*metadata.csv*", what="table of headers")
    except SettingsError:
        return {}
    return {maybe(row, "dicom_id"): maybe(row, "ViewPosition") for row in rows(path)}


BENCHMARKS = (
    Benchmark(
        name="mimic-cxr",
        summary="reports of chest X-rays, the test part",
        read=_items,
        files=(
            "mimic-cxr-2.0.0-split.csv.gz, mimic-cxr-2.0.0-metadata.csv.gz",
            "files/p10/p10000032/s50414267.txt (reports, also under mimic-cxr-reports/)",
            "files/p10/p10000032/s50414267/*.jpg (MIMIC-CXR-JPG)",
        ),
        source="physionet.org/content/mimic-cxr",
        licence="PhysioNet credentialed health data licence",
    ),
)
