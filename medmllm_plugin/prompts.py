"""A prompt as typed parts, and how a task and its slice sets become one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.geometry import orientation_letters, plane_name
from medmllm_plugin.slice import Montage
from medmllm_plugin.sliceset import SliceSet

if TYPE_CHECKING:
    from medmllm_plugin.tasks import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPart:
    """Words."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PicturePart:
    """A picture, shape (rows, columns, 3)."""

    number: int
    """Its number, from 1, by which the reply cites it."""
    pixels: NDArray[np.uint8]


Part = TextPart | PicturePart


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What a model is asked: a system text, then parts in the order they are shown."""

    system: str
    parts: tuple[Part, ...]

    @property
    def pictures(self) -> tuple[PicturePart, ...]:
        """The pictures in the order they are shown."""
        return tuple(part for part in self.parts if isinstance(part, PicturePart))

    @property
    def text(self) -> str:
        """All words, with `<image_k>` where picture k stands: what `sha256` and tests look at."""
        words = [part.text if isinstance(part, TextPart) else f"<image_{part.number}>" for part in self.parts]
        return "\n".join([self.system, *words])

    @property
    def sha256(self) -> str:
        """Hash over the words and the pictures."""
        digest = hashlib.sha256(self.text.encode())
        for part in self.pictures:
            digest.update(np.ascontiguousarray(part.pixels).tobytes())
        return digest.hexdigest()


TERSE_SYSTEM = "You read phantoms."

SYSTEM = (
    "You are an expert radiologist. You read the pictures of one study and report only what can be seen in "
    "them. Sides are the patient's own: unless you are told otherwise, the patient's right is on the left of "
    "an axial, coronal or frontal picture. What you are not sure of has the status indeterminate. Answer "
    "with one JSON object and nothing else."
)


def build_prompt(
    task: Task,
    slices: SliceSet,
    *,
    terse: bool = False,
    findings: Sequence[str] = (),
    sites: Sequence[str] = (),
    question: str | None = None,
    correction: str | None = None,
) -> Prompt:
    """The prompt of a task on a slice set.

    Only coded and computed facts of the study go into the words (modality, plane, order); free text of a
    header never does, so it can't instruct the model.

    Args:
        task: What is asked.
        slices: The pictures, numbered from 1 in their order.
        terse: For a small model: pictures, then the task's short words, nothing else.
        findings: Keys to list as the vocabulary.
        sites: Keys to list as the vocabulary.
        question: The user's own question, for tasks that take one.
        correction: What was wrong with the reply before, when asked again.
    """
    parts: list[Part] = []
    for number, one in enumerate(slices.slices, 1):
        parts.append(TextPart(text=f"{number}:" if terse else f"<image_{number}>: "))
        parts.append(PicturePart(number=number, pixels=one.pixels))
    if terse:
        words = [task.short]
    else:
        words = [_describe(slices), task.instruction]
        if findings:
            words.append("Values of finding: " + ", ".join(findings) + ".")
        if sites:
            words.append("Values of site: " + ", ".join(sites) + ".")
    if question is not None:
        words.append(f"Question: {question}")
    if correction is not None:
        words.append(f"Your reply before could not be used: {correction} Answer again, as one JSON object.")
    parts.append(TextPart(text="\n".join(words)))
    return Prompt(system=TERSE_SYSTEM if terse else SYSTEM, parts=tuple(parts))


def _describe(slices: SliceSet) -> str:
    first, last = slices.shown[0], slices.shown[-1]
    modality = "".join(filter(str.isalnum, slices.study.modality))[:16]
    pictures = "is 1 picture" if len(slices) == 1 else f"are {len(slices)} pictures"
    text = f"There {pictures} of one {modality} series"
    if first.to_patient is not None:
        text += f", {plane_name(first.to_patient)}"
        if last.to_patient is not None and last is not first:
            way = last.to_patient[:3, 3] - first.to_patient[:3, 3]
            if np.linalg.norm(way) > 1e-3:
                text += f", in order towards {orientation_letters(way)[:1]}"
    if first.edges:
        right, down = (first.edges[edge][:1] for edge in ("right", "bottom"))
        what = "slice" if isinstance(slices.slices[0].source, Montage) else "picture"
        text += f"; the right edge of each {what} is {right}, its lower edge {down}"
    windows = list(dict.fromkeys(one.window for one in slices.shown))
    in_turn = ", in turn" if len(windows) > 1 else ""
    return f"{text}. Grey levels{in_turn}: {'; '.join(windows)}.{_laid_out(slices)}"


def _laid_out(slices: SliceSet) -> str:
    """Where the slices of montages are; nothing where each picture is a slice."""
    grid = slices.slices[0].source
    if not isinstance(grid, Montage):
        return ""
    shown, first = [], 1
    for number, one in enumerate(slices.slices, 1):
        last = first + len(one.insets) - 1
        numbers = f"slice {first}" if first == last else f"slices {first} to {last}"
        shown.append(f"picture {number} shows {numbers}")
        first = last + 1
    return (
        f" Each picture is a montage of slices, {grid.columns} in a row, in order row by row from the upper "
        f"left: {', '.join(shown)}. Draw each box within one slice."
    )
