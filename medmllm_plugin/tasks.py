"""What can be asked of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One kind of question, and how it is put."""

    name: str
    summary: str
    """What a user gets, in one line."""
    instruction: str
    """What a full-sized model is told after the pictures."""
    short: str
    """What a terse model is told after the pictures; it was trained on exactly these words."""
    takes_question: bool = False
    """Whether the user's own question goes with it."""


REPORT = Task(
    name="report",
    summary="all findings with site, side, pictures and box, and an impression",
    instruction=(
        "Report every finding that these pictures show. First list in abnormal_pictures the numbers of "
        "the pictures that show something abnormal. Then give each finding once: its key, site and side, "
        "its status, its severity if you can grade it (else null), the numbers of the pictures that show "
        "it, a box around it in the picture that shows it best (bbox_2d is [x1, y1, x2, y2] in pixels of "
        "that picture; null if it can't be boxed), and one sentence. State important absent findings with"
        " status absent. If nothing is abnormal, give no finding with status present. End with an "
        "impression of one to six short sentences."
    ),
    short="Report findings as JSON.",
)

QUESTION = Task(
    name="question",
    summary="an answer to your own question (--ask), with the findings that support it",
    instruction=(
        "Answer the question from these pictures alone. Put the answer into impression, as one to six "
        "short sentences, and give as findings only what supports the answer: key, site, side, status, "
        "severity or null, the numbers of the pictures that show it, a box in the picture that shows it "
        "best (bbox_2d is [x1, y1, x2, y2] in pixels of that picture, or null), and one sentence. In "
        "abnormal_pictures list the pictures that matter for the answer. If the pictures can't answer the"
        " question, say so."
    ),
    short="Answer the question as JSON.",
    takes_question=True,
)

TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in (REPORT, QUESTION)})
"""The built-in tasks by name."""
