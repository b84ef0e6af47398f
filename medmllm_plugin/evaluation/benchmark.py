"""What a benchmark is: items from a folder in its published format, each with what is right.

A benchmark from outside registers an entry point in the group `medmllm.benchmarks`: a `Benchmark`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.evaluation.measures import Score
from medmllm_plugin.models import Model
from medmllm_plugin.report import Report
from medmllm_plugin.request import Exchange
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.strategies import View
from medmllm_plugin.volume import Study


class Kind(StrEnum):
    """How an item is answered, and so how it is scored."""

    YES_NO = "yes-no"
    CHOICE = "choice"
    SEVERAL = "several"
    """Any number of the choices are right."""
    OPEN = "open"
    REPORT = "report"
    PHANTOM = "phantom"
    """What is right is known to the voxel; the item brings its own scoring."""


class Verdict(StrEnum):
    """What became of an item."""

    RIGHT = "right"
    WRONG = "wrong"
    NO_ANSWER = "no-answer"
    """It was asked and gave no answer that can be held against the right one, or said that it is unclear."""
    ABSTAINED = "abstained"
    """The model was not made for it, and says so."""
    FAILED = "failed"
    """It could not be asked, or its reply could not be used."""
    SCORED = "scored"
    """Neither right nor wrong as a whole: it has scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Marks:
    """What an answer is worth."""

    verdict: Verdict
    answer: str
    """As it was understood, for a reader."""
    scores: Mapping[str, Score] = field(default_factory=dict)
    """By keys of `measures.MEASURES`."""
    details: Mapping[str, object] = field(default_factory=dict)
    """What figures over many items are made of; JSON."""
    certainty: float | None = None
    """Of the answer, 0 to 1; None if the model gave none."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Preview:
    """A picture of an item for a reader of the page."""

    pixels: NDArray[np.uint8]
    """Shape (rows, columns, 3)."""
    words: str
    """Which it is."""
    frames: tuple[tuple[str, tuple[float, float, float, float]], ...] = ()
    """(`truth` or `said`, box in corner coordinates) to draw over it."""


class Shown(Protocol):
    """What a model is shown of an item."""

    def preview(self, details: Mapping[str, Any]) -> tuple[Preview, ...]:
        """A few of its pictures, whatever the model is.

        Args:
            details: Of the record: what was said where.
        """

    def show(self, model: Model) -> tuple[SliceSet, tuple[SliceSet, ...]]:
        """The pictures, and those of earlier studies.

        Raises:
            MedMLLMError: If they can't be shown; the item fails, and the run goes on.
        """


@runtime_checkable
class ShownAgain(Protocol):
    """What more pictures can be made of."""

    def view(self, model: Model) -> View:
        """Makes them, of what the model was shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Nothing:
    """An item in words alone."""

    def preview(self, details: Mapping[str, Any]) -> tuple[Preview, ...]:
        """None."""
        return ()

    def show(self, model: Model) -> tuple[SliceSet, tuple[SliceSet, ...]]:
        """No picture."""
        return SliceSet(slices=(), study=Study(modality="OT"), plan="nothing shown"), ()


Scoring = Callable[["Item", Report, SliceSet], Marks]
"""Judges a report on an item; the slices are those that its boxes name."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Item:
    """One question of a benchmark, with what is right. No prompt is made of `gold` or `kind`."""

    name: str
    """The same in every run, and one item's alone."""
    kind: Kind
    task: str
    """What of `tasks` it is put as."""
    gold: tuple[str, ...]
    """What is right: an answer, all ways to say it, all right choices, or the reference report."""
    shown: Shown = field(default_factory=Nothing)
    question: str | None = None
    choices: tuple[str, ...] = ()
    history: tuple[Exchange, ...] = ()
    cluster: str = ""
    """Items of one picture, study or passage share it: intervals are drawn over these. Empty: its own."""
    pair: str = ""
    """Two items that ask the same both ways share it."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """What tables are made by, such as modality and organ."""
    language: str = "en"
    scoring: Scoring | None = None
    """Where the item brings its own; else `scored.marks_of` goes by its kind."""
    rubric: tuple[tuple[str, float], ...] = ()
    """Criteria and their points, for a judge that was asked for; see `judge`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A benchmark of a published format."""

    name: str
    summary: str
    """What it asks, in a line."""
    read: Callable[[Path], Iterator[Item]]
    """The items of a folder, in an order of their own. Raises SettingsError, which says which file is missing
    or broken. A benchmark of our own phantoms is given a folder that it doesn't look at."""
    files: tuple[str, ...] = ()
    """Which files go where in the folder, a line each; empty if it needs none."""
    source: str = ""
    """Where its publishers give it away."""
    licence: str = ""
    """What its publishers ask, where it is known; else see there."""
    text_only: bool = False
    """Whether nothing is shown."""
    sample: str = ""
    """The folder of `samples` that holds five synthetic items in its format; by default its name."""

    @property
    def needs_folder(self) -> bool:
        """Whether it is read from files."""
        return bool(self.files)
