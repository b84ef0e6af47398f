"""What a run keeps of each item, a line of JSON each, so that a killed run goes on and others can look."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import OutputError, SettingsError
from medmllm_plugin.evaluation.benchmark import Item, Kind, Marks, Verdict
from medmllm_plugin.evaluation.measures import Score

SCHEMA = "medmllm-eval/1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One item of a run: what was asked, what was said, what it is worth."""

    item: str
    kind: Kind
    task: str
    question: str | None
    choices: tuple[str, ...]
    gold: tuple[str, ...]
    verdict: Verdict
    answer: str
    """As it was understood; why there is none where that is so."""
    reply: str
    """The model's last reply, as it came."""
    prompt_sha256: str
    seconds: float
    """Of the model, all asks together."""
    cluster: str
    pair: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Score] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    certainty: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The object of its line."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """The record that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: If it is none.
        """
        listed = {key: tuple(data[key]) for key in ("choices", "gold")}
        kinds = {"kind": Kind(data["kind"]), "verdict": Verdict(data["verdict"])}
        return cls(**{**data, **listed, **kinds})


def record_of(
    item: Item, marks: Marks, *, reply: str = "", prompt_sha256: str = "", seconds: float = 0.0
) -> Record:
    """An item and what became of it."""
    return Record(
        item=item.name,
        kind=item.kind,
        task=item.task,
        question=item.question,
        choices=item.choices,
        gold=item.gold,
        verdict=marks.verdict,
        answer=marks.answer,
        reply=reply,
        prompt_sha256=prompt_sha256,
        seconds=round(seconds, 3),
        cluster=item.cluster or item.name,
        pair=item.pair,
        groups=dict(item.groups),
        scores=dict(marks.scores),
        details=dict(marks.details),
        certainty=marks.certainty,
    )


def file_of(folder: Path, shard: tuple[int, int]) -> Path:
    """Where a shard keeps its records.

    >>> file_of(Path("run"), (1, 1)).name, file_of(Path("run"), (2, 4)).name
    ('items.jsonl', 'items.2-of-4.jsonl')
    """
    number, shards = shard
    return folder / ("items.jsonl" if shards == 1 else f"items.{number}-of-{shards}.jsonl")


def read_lines(path: Path) -> list[Record]:
    """The records of a file, none if it isn't there; a last line that was cut short is left out.

    Raises:
        SettingsError: If another line is no record.
    """
    if not path.exists():
        return []
    found = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(Record.from_json(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise SettingsError(
                f"{path}, line {number}: found no record of a run ({type(error).__name__}), expected one; "
                "name another -o"
            ) from error
    return found


def mend(path: Path, records: Sequence[Record]) -> None:
    """Cut off a last line that was written in part, so that the next one begins a line of its own."""
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        write_lines(path, records)


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """A file of records, whole or not at all.

    Raises:
        OutputError: If it can't be written.
    """
    write_whole(path, "".join(_line(one) for one in records))


def append(path: Path, records: Iterable[Record]) -> None:
    """Add records, and see that they are on disk.

    Raises:
        OutputError: If they can't be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(_line(one) for one in records)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror}; name another -o") from error


def write_whole(path: Path, text: str) -> None:
    """A file whole or not at all.

    Raises:
        OutputError: If it can't be written.
    """
    part = path.with_name(f".{path.name}.new")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{path}: can't be written: {error.strerror}; name another -o") from error


def _line(one: Record) -> str:
    return json.dumps(one.to_json(), ensure_ascii=True, sort_keys=True) + "\n"
