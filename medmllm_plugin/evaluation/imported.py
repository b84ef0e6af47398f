"""Replies that another harness wrote, scored here: RadBench's CSV, and MedEvalKit's `results.json`."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Item
from medmllm_plugin.evaluation.questions import asked, with_choices
from medmllm_plugin.evaluation.records import Record, record_of
from medmllm_plugin.evaluation.scored import of_answer
from medmllm_plugin.evaluation.tables import field, maybe, rows
from medmllm_plugin.report import Answer


def scored_file(path: Path) -> list[Record]:
    """The records of a file of replies.

    RadBench's columns are `Question`, `Ground Truth`, `Pred`, `belong_to`; MedEvalKit's samples have
    `question` (or `prompt`), `answer`, `response`, and `choices` where there are some.

    Raises:
        SettingsError: If it is no such file.
    """
    found = []
    for number, row in enumerate(rows(path)):
        where = f"{path}, row {number + 1}"
        reply = _listed(row, "Pred", "response", where=where)
        item = _item(row, number, where=where)
        found.append(record_of(item, of_answer(item, Answer(text=reply)), reply=reply))
    if not found:
        raise SettingsError(f"{path}: found no reply, expected some; see docs/evaluation.md")
    return found


def _item(row: dict[str, Any], number: int, *, where: str) -> Item:
    gold = _listed(row, "Ground Truth", "answer", where=where)
    question = _listed(row, "Question", "question", "prompt", where=where)
    dataset = maybe(row, "belong_to")
    groups = {"dataset": _first(dataset)} if dataset else {}
    choices = row.get("choices")
    if isinstance(choices, Sequence) and not isinstance(choices, str) and len(choices) > 1:
        lettered = dict(zip(ascii_uppercase, map(str, choices), strict=False))
        return with_choices(
            name=str(number), question=question, choices=lettered, gold=gold, groups=groups, where=where
        )
    return asked(name=str(number), question=question, gold=gold, groups=groups)


def _listed(row: dict[str, Any], *names: str, where: str) -> str:
    """A field; RadBench writes each of its values as a list of one."""
    return _first(field(row, *names, where=where))


def _first(text: str) -> str:
    if text.startswith(("[", "(")) and text.endswith(("]", ")")):
        try:
            content = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text
        if isinstance(content, list | tuple) and len(content) == 1:
            return str(content[0])
    return text
