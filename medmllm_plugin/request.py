"""Everything that is asked of a model at once, before it is words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.place import Place
from medmllm_plugin.quoting import CONTEXT_LENGTH
from medmllm_plugin.sliceset import SliceSet

if TYPE_CHECKING:
    from medmllm_plugin.slice import Slice
    from medmllm_plugin.tasks import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Exchange:
    """An earlier question on the same study, and its answer."""

    question: str
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What is known of the patient beside the images; only what a user or a rule gives, never header text.

    Raises:
        SettingsError: If one of them is longer than a prompt takes; what a person wrote is never cut.

    >>> Context(history="x" * 2001)
    Traceback (most recent call last):
    medmllm_plugin.errors.SettingsError: context history: found 2001 characters, expected 2000 at most;
    shorten it
    """

    age: str | None = None
    """Such as `64 years`."""
    sex: str | None = None
    indication: str | None = None
    """Why the study was made."""
    history: str | None = None
    """Earlier illnesses, operations and treatment."""

    def __post_init__(self) -> None:
        """Check the lengths."""
        for name, text in asdict(self).items():
            if text is not None and len(text) > CONTEXT_LENGTH:
                raise SettingsError(
                    f"context {name}: found {len(text)} characters, expected {CONTEXT_LENGTH} at most; "
                    "shorten it"
                )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Request:
    """What is asked of which pictures."""

    task: Task
    slices: SliceSet
    """The pictures of the study, numbered from 1. May be empty for a task that needs none."""
    priors: tuple[SliceSet, ...] = ()
    """Pictures of earlier studies of the same patient, the latest first; their numbers follow."""
    question: str | None = None
    """The user's own question, for a task that takes one."""
    choices: tuple[str, ...] = ()
    """Of a closed question the answers to choose from; empty for an open one."""
    history: tuple[Exchange, ...] = ()
    """Earlier questions on the same pictures, the first first."""
    context: Context | None = None
    language: str = "en"
    """ISO 639-1 code of the language to ask and answer in."""
    seed: int = 0
    """For models that draw their tokens."""
    second_pass: bool = True
    """Whether the prose of a model that can't write JSON is turned into the task's form by asking it once
    more, about its words alone; if not, such a model is refused."""
    focus: tuple[str, ...] = ()
    """Keys of sites of `codes.toml` that alone are asked about; empty for everything."""
    place: Place | None = None
    """A place in the patient that is asked about; None for all that is shown."""

    @property
    def pictures(self) -> int:
        """How many pictures are shown, those of priors included."""
        return len(self.slices) + sum(map(len, self.priors))

    def numbered(self) -> Iterator[tuple[int, SliceSet, Slice]]:
        """Each picture with its number in the prompt and the set that it belongs to, in the order shown."""
        number = 0
        for slices in (self.slices, *self.priors):
            for one in slices.slices:
                number += 1
                yield number, slices, one
