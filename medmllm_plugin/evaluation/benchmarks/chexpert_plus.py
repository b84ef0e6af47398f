"""CheXpert Plus (Chambon et al., 2024): reports of chest X-rays, the validation part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medmllm_plugin.evaluation.benchmark import Benchmark, Item
from medmllm_plugin.evaluation.pictures import Pictures, beside
from medmllm_plugin.evaluation.references import reference, report_item
from medmllm_plugin.evaluation.tables import field, find, maybe, rows


def _items(folder: Path) -> Iterator[Item]:
    path = find(folder, "df_chexpert_plus*.csv", "*.csv", what="df_chexpert_plus table")
    for number, row in enumerate(rows(path)):
        where = f"{path}, row {number + 1}"
        name = field(row, "path_to_image", where=where)
        gold = reference(maybe(row, "section_findings"), maybe(row, "section_impression"))
        if field(row, "split", where=where) != "valid" or not gold:
            continue
        yield report_item(
            name=name,
            gold=gold,
            shown=Pictures(files=(_file(folder, name),), modality="DX"),
            cluster=maybe(row, "deid_patient_id"),
            groups={"view": maybe(row, "frontal_lateral")},
        )


def _file(folder: Path, name: str) -> Path:
    """Published as .jpg in the table and as .png on disk."""
    found = beside(folder, name, ("PNG", "images", ""))
    return (
        found
        if found.exists()
        else beside(folder, str(Path(name).with_suffix(".png")), ("PNG", "images", ""))
    )


BENCHMARKS = (
    Benchmark(
        name="chexpert-plus",
        summary="reports of chest X-rays, the validation part",
        read=_items,
        files=("df_chexpert_plus_240401.csv", "PNG/valid/patient*/study*/view*.png (or images/...)"),
        source="aimi.stanford.edu/datasets/chexpert-plus",
        licence="Stanford University dataset research use agreement",
    ),
)
