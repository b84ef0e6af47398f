"""Rad-ReStruct (Pellegrini et al., 2023): structured reports of IU X-ray as questions, level by level.

Each question is an item of its own. Those that go deeper are asked with the questions and right answers above
them as the dataset lists them: the figure of single questions, not the autoregressive one of whole reports.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Benchmark, Item, Kind
from medmllm_plugin.evaluation.pictures import Pictures, beside
from medmllm_plugin.evaluation.tables import find, find_all
from medmllm_plugin.request import Exchange

FOLDERS = ("images", "imgs", "")


def _items(folder: Path) -> Iterator[Item]:
    paths = find_all(folder, "test_qa_pairs/*.json", "*/test_qa_pairs/*.json", what="test_qa_pairs")
    top = paths[0].parents[1]
    pictures = _read(find(top, "id_to_img_mapping_frontal_reports.json", what="table of pictures"))
    for path in sorted(paths, key=lambda one: (len(one.stem), one.stem)):
        names = pictures.get(path.stem) or []
        if not names:
            raise SettingsError(f"{path}: found a report without a picture in the table of pictures")
        shown = Pictures(files=(beside(top, f"{names[0]}.png", FOLDERS),), modality="DX")
        for number, row in enumerate(_read(path)):
            yield _item(row, name=f"{path.stem}-{number}", shown=shown, cluster=path.stem, where=path)


def _item(row: Any, *, name: str, shown: Pictures, cluster: str, where: Path) -> Item:
    try:
        question, answers, history, facts = row
        options = [str(one) for one in facts["options"]]
        right = tuple(str(one) for one in answers)
        above = tuple(Exchange(question=str(one[0]), answer=_said(one[1])) for one in history)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise SettingsError(
            f"{where}: found a row that is no (question, answers, history, facts), expected such; fetch it "
            "again"
        ) from error
    several = facts.get("answer_type") == "multi_choice" or len(right) > 1
    low = {one.lower() for one in options}
    groups = {"answer type": str(facts.get("answer_type", "")), "level": str(len(above) + 1)}
    choices: tuple[str, ...] = tuple(dict.fromkeys(options))
    if low == {"yes", "no"}:
        kind, choices, right = Kind.YES_NO, (), tuple(one.lower() for one in right)
    elif several:
        kind = Kind.SEVERAL
        question = f"{question} Name all that apply."
    else:
        kind = Kind.CHOICE
    return Item(
        name=name,
        kind=kind,
        task="question",
        gold=right,
        shown=shown,
        question=str(question),
        choices=choices,
        history=above,
        cluster=cluster,
        groups=groups,
    )


def _said(answers: object) -> str:
    if isinstance(answers, str):
        return answers
    return ", ".join(map(str, answers)) if isinstance(answers, Sequence) else str(answers)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: found no JSON ({type(error).__name__}); fetch it again") from error


BENCHMARKS = (
    Benchmark(
        name="rad-restruct",
        summary="structured chest X-ray reports as questions, level by level",
        read=_items,
        files=(
            "test_qa_pairs/*.json, id_to_img_mapping_frontal_reports.json",
            "images/*.png (of IU X-ray; or imgs/)",
        ),
        source="github.com/ChantalMP/Rad-ReStruct",
    ),
)
