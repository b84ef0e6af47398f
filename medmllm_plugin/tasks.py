"""What can be asked of a study.

Each built-in task is a file of `prompt_files`: what it asks in each language, and what its reply has. A task
from outside is a `Task` that an entry point of the group `medmllm.tasks` names; `read_task` makes one of a
file of the same form.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import MedMLLMError, SettingsError

GROUP = "medmllm.tasks"
FOLDER = Path(__file__).with_name("prompt_files")
COMMON = "common"
"""The file of words that all tasks share."""

BUILT_IN = (
    "report",
    "question",
    "locate",
    "modality",
    "diagnosis",
    "rationale",
    "compare",
    "differential",
    "qa",
)
"""Names of the tasks of this package, in the order to list them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """How a task is put in one language."""

    instruction: str
    """What a model is told after the pictures. `{box}` stands where boxes are spoken of, `{box_words}` for
    how the model gives one."""
    prose: str
    """The same for a model that can't be expected to write JSON."""
    volume: str = ""
    """The same for a model that sees whole volumes and was taught by short questions; empty for `prose`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One kind of question, and how it is put."""

    name: str
    summary: str
    """What a user gets, in one line."""
    reply: tuple[str, ...]
    """What its reply has, keys of `reply_forms.PARTS` in the order they are written."""
    words: Mapping[str, Words]
    """By ISO 639-1 code of the language."""
    version: int = 1
    """Counts the changes of its words that can change replies."""
    sha256: str = ""
    """Hash over its file and the words that all tasks share; empty if it was made without one."""
    short: str = ""
    """What a terse model is told after the pictures, on which it was trained; empty if no such model can."""
    takes_question: bool = False
    """Whether the user's own question goes with it."""
    needs_pictures: bool = True
    needs_priors: bool = False
    """Whether it compares with an earlier study."""
    needs_boxes: bool = False
    """Whether it makes sense for models that can point only."""
    tells: bool = True
    """Whether the prompt tells what is known of the series: modality, plane, order, grey levels."""
    whole: bool = False
    """Whether all findings are asked for, so that none means that there are none."""
    checklist: bool = False
    """Whether it is told what to go through, see `checklists`."""

    def __post_init__(self) -> None:
        if not self.words or not self.reply:
            raise ValueError(f"the task {self.name!r} needs words in a language and a reply with parts")

    @property
    def version_line(self) -> str:
        """Name, version and the beginning of its hash, for the provenance of a report.

        >>> task("report").version_line.startswith("report/2 ")
        True
        """
        return f"{self.name}/{self.version} {self.sha256[:8]}".rstrip()

    def said_in(self, language: str) -> Words:
        """Its words in a language.

        Raises:
            SettingsError: If it has none.
        """
        if language not in self.words:
            raise SettingsError(
                f"the task {self.name}: found no words in the language {language!r}, expected one of "
                f"{', '.join(self.words)}"
            )
        return self.words[language]


class _BuiltIn(Mapping[str, Task]):
    """The tasks of this package by name, each read from its file when it is first asked for."""

    def __getitem__(self, name: str) -> Task:
        if name not in BUILT_IN:
            raise KeyError(name)
        return _built_in(name)

    def __iter__(self) -> Iterator[str]:
        return iter(BUILT_IN)

    def __len__(self) -> int:
        return len(BUILT_IN)


TASKS: Mapping[str, Task] = _BuiltIn()
"""The built-in tasks by name."""


def task(name: str) -> Task:
    """The task of a name: a built-in one, else one that an installed package brings.

    Raises:
        SettingsError: If there is no such task, or its package is broken.

    >>> task("locate").needs_boxes
    True
    """
    if name in BUILT_IN:
        return _built_in(name)
    outside = _outside()
    if name not in outside:
        names = ", ".join([*BUILT_IN, *outside])
        raise SettingsError(f"no task is named {name!r}; there are: {names}")
    return _load(name, outside[name])


def all_tasks() -> list[tuple[str, str]]:
    """Each task's name and what a user gets, in a line; ours first. A broken one says so, hiding no other."""
    listed = [(name, _built_in(name).summary) for name in BUILT_IN]
    for name, entry in _outside().items():
        try:
            listed.append((name, _load(name, entry).summary))
        except MedMLLMError as error:
            listed.append((name, str(error)))
    return listed


def read_task(path: Path) -> Task:
    """The task of a TOML file of the form of those in `prompt_files`; its name is that of the file.

    Raises:
        SettingsError: If the file is none; the error names the field.
    """
    try:
        text = path.read_bytes()
        data = tomllib.loads(text.decode())
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{path.name}: found no TOML of a task ({error}); see the built-in ones"
        ) from error
    words = {key: data.pop(key) for key in list(data) if isinstance(data[key], dict)}
    digest = hashlib.sha256(text + (FOLDER / f"{COMMON}.toml").read_bytes()).hexdigest()
    try:
        return Task(
            name=path.stem,
            sha256=digest,
            reply=tuple(data.pop("reply")),
            words={language: Words(**said) for language, said in words.items()},
            **data,
        )
    except (TypeError, KeyError, ValueError) as error:
        raise SettingsError(
            f"{path.name}: found fields that don't make a task ({error}); see the built-in ones"
        ) from error


@cache
def common_words(language: str) -> Mapping[str, Any]:
    """The words that prompts of all tasks share, in a language.

    Raises:
        SettingsError: If there are none in that language.
    """
    table = tomllib.loads((FOLDER / f"{COMMON}.toml").read_text(encoding="utf-8"))
    if language not in table:
        raise SettingsError(f"found the language {language!r}, expected one of {', '.join(table)}")
    words: Mapping[str, Any] = table[language]
    return words


@cache
def _built_in(name: str) -> Task:
    return read_task(FOLDER / f"{name}.toml")


def _outside() -> dict[str, Any]:
    """Entry points by name; ours keep their names, between others the first by distribution has it."""
    from importlib.metadata import entry_points

    found = sorted(entry_points(group=GROUP), key=lambda one: (one.dist.name if one.dist else "", one.name))
    entries: dict[str, Any] = {}
    for one in found:
        if one.name not in BUILT_IN:
            entries.setdefault(one.name, one)
    return entries


def _load(name: str, entry: Any) -> Task:
    try:
        loaded = entry.load()
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise SettingsError(
            f"task {name}: {entry.value} can't be loaded ({type(error).__name__}: {reason}); install that "
            "package again"
        ) from error
    if not isinstance(loaded, Task):
        raise SettingsError(
            f"task {name}: found a {type(loaded).__name__} at {entry.value}, expected a Task of "
            "medmllm_plugin.tasks; tell the author of that package"
        )
    return loaded
