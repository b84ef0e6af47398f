"""RadBench (Wu et al., 2023), RadFM's five tasks, from the tables that its authors publish.

Their tables name pictures by the paths of the authors' disks; a picture is looked for in the folder by the
end of that path. Where their loader draws a question at random, one is fixed here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Benchmark, Item, Kind, Shown
from medmllm_plugin.evaluation.pictures import Pictures
from medmllm_plugin.evaluation.questions import asked
from medmllm_plugin.evaluation.references import report_item
from medmllm_plugin.evaluation.stacks import Stack
from medmllm_plugin.evaluation.tables import Row, field, find_all, maybe, rows

EXPLAINED = "What is the diagnosis, and which features of the images lead to it?"
"""Asked for the rationale, after what is known of the patient."""

Make = Callable[[Row, str, Path, Shown, str], Item]
"""An item of a row: with its name, the table it is of, its pictures, and where it stands, for errors."""


def _reader(make: Make, *patterns: str) -> Callable[[Path], Iterator[Item]]:
    def items(folder: Path) -> Iterator[Item]:
        known = _files(folder)
        for path in find_all(
            folder, *patterns, *(f"**/{one}" for one in patterns), what="table of this task"
        ):
            for number, row in enumerate(rows(path)):
                where = f"{path}, row {number + 1}"
                yield make(row, f"{path.stem}-{number}", path, _shown(row, folder, known, where), where)

    return items


def _files(folder: Path) -> Mapping[str, list[Path]]:
    """The files of the folder by their names."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.setdefault(path.name, []).append(path)
    return found


def _shown(row: Row, folder: Path, known: Mapping[str, list[Path]], where: str) -> Shown:
    """The picture or volume of a row: of the files of its name the one whose path ends most alike."""
    name = field(row, "image_path", "Figure_path", "npy_path", where=where)
    wanted = PurePosixPath(name.replace("\\", "/")).parts
    alike = known.get(wanted[-1] if wanted else "", [])

    def shared(path: Path) -> int:
        pairs = zip(reversed(wanted), reversed(path.parts), strict=False)
        return next((k for k, (one, other) in enumerate(pairs) if one != other), len(wanted))

    if not alike:
        raise SettingsError(
            f"{where}: found no file {wanted[-1] if wanted else name!r} anywhere in {folder}, expected the "
            "picture; put RadBench's pictures into the folder"
        )
    path = max(alike, key=shared)
    return Stack(file=path) if path.suffix == ".npy" else Pictures(files=(path,))


def _modality(row: Row, name: str, path: Path, shown: Shown, where: str) -> Item:
    return Item(
        name=name,
        kind=Kind.OPEN,
        task="modality",
        gold=(field(row, "answer", "Answer", where=where),),
        shown=shown,
        groups={"dataset": path.stem},
    )


def _diagnosis(row: Row, name: str, path: Path, shown: Shown, where: str) -> Item:
    label = field(row, "label", where=where).removesuffix(".0")
    if label not in ("0", "1"):
        raise SettingsError(f"{where}: found the label {label!r}, expected 0 or 1; fetch the table again")
    disease = field(row, "disease", where=where)
    return asked(
        name=name,
        question=f"Is {disease} shown in this image?",
        gold="yes" if label == "1" else "no",
        shown=shown,
        groups={"dataset": path.stem, "disease": disease},
    )


def _vqa(row: Row, name: str, path: Path, shown: Shown, where: str) -> Item:
    return asked(
        name=name,
        question=field(row, "Question", "question", where=where),
        gold=field(row, "Answer", "answer", where=where),
        shown=shown,
        groups={"dataset": path.stem},
    )


def _report(row: Row, name: str, path: Path, shown: Shown, where: str) -> Item:
    parts = (("Findings", maybe(row, "finding", "findings")), ("Impression", maybe(row, "impression")))
    sections = " ".join(f"{heading}: {text}" for heading, text in parts if text)
    gold = sections or field(row, "caption", "report", where=where)
    return report_item(name=name, gold=gold, shown=shown, groups={"dataset": path.stem})


def _rationale(row: Row, name: str, path: Path, shown: Shown, where: str) -> Item:
    known = " ".join(filter(None, (maybe(row, "pat"), maybe(row, "pre"))))
    said = [_joined(row.get("articles")), _joined(row.get("radiographic_features"))]
    gold = " ".join(filter(None, (field(row, "title", where=where) + ".", *said)))
    return Item(
        name=name,
        kind=Kind.REPORT,
        task="rationale",
        gold=(gold,),
        shown=shown,
        question=f"{known} {EXPLAINED}".strip(),
        groups={"dataset": path.stem},
    )


def _joined(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _benchmark(task: str, summary: str, make: Make, files: tuple[str, ...], *patterns: str) -> Benchmark:
    return Benchmark(
        name=f"rad-bench-{task}",
        summary=summary,
        read=_reader(make, *patterns),
        files=(*files, "the pictures anywhere in the folder, by the names in the table"),
        source="chaoyi-wu/RadFM_data_csv on the hub",
        sample=f"rad-bench/{task}",
    )


BENCHMARKS = (
    _benchmark(
        "modality",
        "RadBench: what modality the images are",
        _modality,
        ("radio_modality_test.csv (image_path, answer)",),
        "*modality*test.csv",
    ),
    _benchmark(
        "diagnosis",
        "RadBench: is a disease shown, yes or no",
        _diagnosis,
        ("*_balance_test.csv (image_path, disease, label)",),
        "*balance_test.csv",
    ),
    _benchmark(
        "vqa",
        "RadBench: open questions on images and volumes",
        _vqa,
        ("vqarad_test.csv, slakevqa_test.csv, pmcvqa_test.csv, radiology_vqa_test.csv",),
        "*vqa*test.csv",
        "vqarad_test.csv",
    ),
    _benchmark(
        "report",
        "RadBench: reports",
        _report,
        ("mimic_caption_test.csv (image_path, caption)", "or radiology_article_npy_test.json"),
        "*caption*test.csv",
        "*article*test.json",
    ),
    _benchmark(
        "rationale",
        "RadBench: a diagnosis with its reasons",
        _rationale,
        ("radiology_article_npy_test.json (npy_path, title, articles, radiographic_features, pat, pre)",),
        "*article*test.json",
    ),
)
