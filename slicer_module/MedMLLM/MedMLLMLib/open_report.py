"""A report that is open in the scene: what it says, where it lies, what was decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import codes
from .geometry import Placed
from .model import Report
from .review import Review, Verdict


class WrongReportError(Exception):
    """A report can't be shown here; the message says why and what to do."""


@dataclass(eq=False)
class OpenReport:
    """A report in the scene."""

    node: Any
    """The node that holds its SRs."""
    report: Report
    review: Review
    volume: Any
    """The volume of its images; None if they aren't loaded."""
    folder: int
    document: Any = None
    """The SR of the findings; None of a volume without DICOM origin."""
    placed: dict[str, list[Placed]] = field(default_factory=dict)
    """Places by finding."""
    markups: dict[str, list[Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """What the reader has to know about it."""
    modality: str = ""
    thickness_mm: float = 1.0
    hidden: bool = False

    @property
    def banner(self) -> str:
        """What the views say."""
        return f"{self.report.state}; the study has changed since" if self.has_changed else self.report.state

    has_changed: bool = False
    """Whether the study has other images now than those that it is about."""

    @property
    def title(self) -> str:
        """What lists of reports call it."""
        return f"{self.report.title}, {self.report.content_time or self.report.uid[-8:]}"

    def name_of(self, key: str) -> str:
        """What the views call a finding."""
        number = [one.key for one in self.report.findings].index(key) + 1
        finding, made = self.report.finding(key), self.review.decision(key)
        word = codes.findings()[made.finding] if made.finding else codes.words("findings", finding.finding)
        states = {Verdict.ACCEPTED: "accepted", Verdict.EDITED: "edited", Verdict.REJECTED: "rejected"}
        state = self.report.state if self.report.is_verified else states.get(made.verdict, self.report.state)
        return f"{number} {word} ({state})"
