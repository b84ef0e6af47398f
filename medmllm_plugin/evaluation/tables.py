"""Rows of the files that benchmarks are published in: JSON, JSON lines, CSV and Parquet."""

from __future__ import annotations

import ast
import csv
import gzip
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.parquet import Cell, parquet_rows
from medmllm_plugin.evaluation.pictures import Encoded

Row = Mapping[str, Any]

MOST_CHOICES = 10
"""Choices that are looked for as columns of their own."""


def find(folder: Path, *patterns: str, what: str) -> Path:
    """The first file of a folder that a pattern names; of several that one pattern names, the first by name.

    Args:
        folder: Where to look.
        patterns: Globs, the likeliest first.
        what: What the file holds, for the error.

    Raises:
        SettingsError: If there is none.
    """
    return find_all(folder, *patterns, what=what)[0]


def find_all(folder: Path, *patterns: str, what: str) -> list[Path]:
    """All files that the first pattern names that names any, by name.

    Raises:
        SettingsError: If there is none.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder}: found no folder, expected the benchmark's files; name it with --data")
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if found:
            return found
    raise SettingsError(
        f"{folder}: found no {what}, expected {' or '.join(patterns)}; see medmllm eval list for what goes "
        "where"
    )


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, by what its name ends with: .json, .jsonl, .csv, .tsv (also .gz) or .parquet.

    A JSON file holds a list of objects, an object of them by their keys (each gets its key as `_key`), or,
    as some are published, one object a line.

    Raises:
        SettingsError: If it can't be read as that.
    """
    name = path.name.lower()
    if name.endswith(".parquet"):
        yield from parquet_rows(path)
    elif name.removesuffix(".gz").endswith((".csv", ".tsv")):
        yield from _separated(path, "\t" if ".tsv" in name else ",")
    else:
        yield from _json(path)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, ValueError, EOFError) as error:
        raise SettingsError(
            f"{path}: found a file that can't be read ({type(error).__name__}), expected UTF-8 text; "
            "fetch it again"
        ) from error


def _json(path: Path) -> Iterator[dict[str, Any]]:
    text = _text(path)
    try:
        content = json.loads(text)
    except ValueError:
        content = list(_lines(path, text))
    except RecursionError as error:
        raise SettingsError(f"{path}: found JSON nested too deeply, expected rows; fetch it again") from error
    if isinstance(content, dict):
        keyed = content and all(isinstance(row, dict) for row in content.values())
        content = [{"_key": key, **row} for key, row in content.items()] if keyed else [content]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise SettingsError(f"{path}: found JSON without rows, expected a list of objects; fetch it again")
    yield from content


def _lines(path: Path, text: str) -> Iterator[Any]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise SettingsError(
                    f"{path}, line {number}: found no JSON, expected an object; fetch it again"
                ) from error


def _separated(
    path: Path, delimiter: str, *, fields: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    try:
        lines = _text(path).splitlines(keepends=True)
        for row in csv.DictReader(lines, fieldnames=fields, delimiter=delimiter):
            yield {str(key).strip(): value for key, value in row.items() if key is not None}
    except csv.Error as error:
        raise SettingsError(f"{path}: found no table ({error}), expected CSV; fetch it again") from error


def rows_without_head(path: Path, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a CSV file whose first line is a row already.

    Raises:
        SettingsError: If it can't be read.
    """
    yield from _separated(path, ",", fields=fields)


def field(row: Row, *names: str, where: object) -> str:
    """The first of some fields that a row has, as text without blanks around it.

    Raises:
        SettingsError: If it has none of them.

    >>> field({"Question": " Is it? "}, "question", "Question", where="test.csv")
    'Is it?'
    """
    for name in names:
        if row.get(name) is not None:
            return str(row[name]).strip()
    raise SettingsError(
        f"{where}: found a row with {', '.join(sorted(map(str, row)))[:160]}, expected {' or '.join(names)}; "
        "is it the published file?"
    )


def maybe(row: Row, *names: str) -> str:
    """As `field`, but empty where the row has none."""
    return next((str(row[name]).strip() for name in names if row.get(name) is not None), "")


def choices_of(row: Row) -> dict[str, str]:
    """The choices of a row by their letters, in the ways in which benchmarks write them.

    >>> choices_of({"options": {"A": "lung", "B": "heart"}})
    {'A': 'lung', 'B': 'heart'}
    >>> choices_of({"opa": "lung", "opb": "heart", "opc": None})
    {'A': 'lung', 'B': 'heart'}
    >>> choices_of({"options": "['lung', 'heart']"})
    {'A': 'lung', 'B': 'heart'}
    >>> choices_of({"Choice A": " A: lung", "Choice B": " B: heart"})
    {'A': 'lung', 'B': 'heart'}
    """
    listed = row.get("options", row.get("choices"))
    if isinstance(listed, str):
        try:
            listed = ast.literal_eval(listed)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = None
    if isinstance(listed, Mapping):
        pairs = [(str(key), value) for key, value in listed.items() if value is not None]
    elif isinstance(listed, Sequence):
        pairs = [_pair(letter, one) for letter, one in zip(ascii_uppercase, listed, strict=False)]
    else:
        columns = ("op{}", "option_{}", "Choice {}", "{}")
        for form in columns:
            pairs = [
                (letter, row[name])
                for letter in ascii_uppercase[:MOST_CHOICES]
                for name in (form.format(letter), form.format(letter.lower()))
                if row.get(name) not in (None, "")
            ]
            if pairs:
                break
    return {
        letter.strip().upper(): _bare(letter, str(value)) for letter, value in pairs if str(value).strip()
    }


def _pair(letter: str, one: Any) -> tuple[str, Any]:
    if isinstance(one, Mapping):
        key = one.get("letter", one.get("key", letter))
        return str(key), one.get("content", one.get("value"))
    return letter, one


def _bare(letter: str, text: str) -> str:
    """A choice without its letter before it."""
    return (
        re.sub(rf"^\s*\(?{re.escape(letter)}\s*[).:]\s*", "", text, flags=re.IGNORECASE).strip()
        or text.strip()
    )


def unique(choices: Mapping[str, str]) -> tuple[str, ...]:
    """The choices in their order, each once, as nobody can choose between two that are the same."""
    kept: dict[str, str] = {}
    for text in choices.values():
        kept.setdefault(" ".join(text.split()).casefold(), text)
    return tuple(kept.values())


def picture(row: Row, name: str, *, label: str) -> Encoded | None:
    """A picture that lies in a row as the hub's Parquet files hold one; None if the row has none there."""
    value = row.get(name)
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes | Cell):
        return Encoded(name=str(value.get("path") or label), content=value["bytes"])
    if isinstance(value, bytes):
        return Encoded(name=label, content=value)
    return None
