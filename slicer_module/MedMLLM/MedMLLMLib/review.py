"""What a reader decides on the findings of a report: accept, reject, edit, undo; and how that is kept.

Decisions are kept beside the scene, too, in a folder of drafts: work on a report isn't lost when the scene is
closed, Slicer ends, or the engine goes away.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from . import codes
from .model import Finding, ImageRef, Region, Report, Status


class Verdict(StrEnum):
    """What becomes of a finding."""

    PROPOSED = "proposed"
    """Nobody has decided yet."""
    ACCEPTED = "accepted"
    EDITED = "edited"
    """Accepted as changed."""
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Where a reader put a finding."""

    image: ImageRef
    box: tuple[float, float, float, float]
    """(column_min, row_min, column_max, row_max) on it, from the outer corner of its first pixel."""
    size_mm: float
    """The longer side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a reader put a finding that is a point."""

    image: ImageRef
    """The one it lies on, or the nearest to it."""
    point: tuple[float, ...]
    """(column, row) on it, from the outer corner of its first pixel, or (x, y, z) LPS mm."""
    frame_of_reference_uid: str = ""
    """Of millimetres; empty of columns and rows."""

    @property
    def region(self) -> Region:
        """As an SR has it."""
        flat = not self.frame_of_reference_uid
        return Region(
            graphic_type="POINT",
            points=(self.point,),
            image=self.image if flat else None,
            frame_of_reference_uid=self.frame_of_reference_uid,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a reader says to one finding. None means as it was."""

    verdict: Verdict = Verdict.PROPOSED
    finding: str | None = None
    """A key of `codes.findings`."""
    site: str | None = None
    """A key of `codes.sites`."""
    side: str | None = None
    status: Status | None = None
    sentence: str | None = None
    box: Box | None = None
    point: Point | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """What it changes, by name."""
        names = (one.name for one in fields(self) if one.name != "verdict")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class WrongEditError(ValueError):
    """A change contradicts itself; the message says how to put it right."""


class Review:
    """The decisions on one report, with a way back."""

    def __init__(self, report: Report) -> None:
        """Begin with nothing decided."""
        self.report = report
        self._decisions: dict[str, Decision] = {}
        self._before: list[tuple[str, Decision | None]] = []

    def decision(self, key: str) -> Decision:
        """On the finding of a key."""
        return self._decisions.get(key, Decision())

    @property
    def undecided(self) -> tuple[Finding, ...]:
        """Findings that nobody has decided on yet."""
        return tuple(
            one for one in self.report.findings if self.decision(one.key).verdict is Verdict.PROPOSED
        )

    @property
    def can_undo(self) -> bool:
        """Whether there is something to take back."""
        return bool(self._before)

    def accept(self, key: str) -> None:
        """Take the finding as it is, with the changes made so far."""
        made = self.decision(key)
        self._decide(key, replace(made, verdict=Verdict.EDITED if made.changes else Verdict.ACCEPTED))

    def reject(self, key: str) -> None:
        """Leave the finding out; its changes are kept for the case that it is accepted after all."""
        self._decide(key, replace(self.decision(key), verdict=Verdict.REJECTED))

    def edit(self, key: str, **changes: Any) -> None:
        """Accept the finding, changed.

        Args:
            key: Of the finding.
            **changes: As fields of `Decision`.

        Raises:
            WrongEditError: If the code, site, side and words don't go together.
        """
        made = replace(self.decision(key), **changes)
        found = self.report.finding(key)
        made = _without_what_is_as_it_was(made, found)
        if not made.changes:
            raise WrongEditError("nothing was changed; accept the finding instead")
        check(found, made)
        self._decide(key, replace(made, verdict=Verdict.EDITED))

    def undo(self) -> str | None:
        """Take the last decision back; the key of its finding, None if there was none."""
        if not self._before:
            return None
        key, before = self._before.pop()
        if before is None:
            self._decisions.pop(key, None)
        else:
            self._decisions[key] = before
        return key

    def to_json(self) -> str:
        """The decisions as text."""
        said = {key: asdict(one) for key, one in self._decisions.items() if one != Decision()}
        return json.dumps({"version": 1, "report": self.report.uid, "decisions": said}, ensure_ascii=False)

    def restore(self, text: str) -> int:
        """Take up decisions that `to_json` wrote; how many. Those on findings that aren't there are left out.

        Raises:
            ValueError: If the text is none that it wrote, or is of another report.
        """
        said = json.loads(text)
        if not isinstance(said, dict) or said.get("version") != 1 or said.get("report") != self.report.uid:
            raise ValueError("the decisions are of another report")
        known = {one.key for one in self.report.findings}
        restored = {key: _decision(one) for key, one in said["decisions"].items() if key in known}
        self._decisions.update(restored)
        return len(restored)

    def _decide(self, key: str, made: Decision) -> None:
        self.report.finding(key)
        before = self._decisions.get(key)
        if made != before:
            self._before.append((key, before))
            self._decisions[key] = made


def check(found: Finding, made: Decision) -> None:
    """Refuse changes that contradict themselves.

    Raises:
        WrongEditError: If the finding can't be at that site, the site can't have that side, what is absent
        has
            a new place, or the words weren't written anew where the meaning changed.
    """
    finding = made.finding or codes.key_of("findings", found.finding)
    site = made.site or codes.key_of("sites", found.site)
    side = made.side or found.side
    status = made.status or found.status
    if made.site is None and found.site is None:
        raise WrongEditError("the finding has no site; choose one")
    if finding is not None and site is not None and site not in codes.sites_of(finding):
        raise WrongEditError(
            f"{codes.findings()[finding]} can't be at the site {codes.sites()[site]}; choose another site"
        )
    if site is not None and side not in codes.sides_of(site):
        allowed = ", ".join(codes.sides_of(site))
        raise WrongEditError(f"the site {codes.sites()[site]} can't be {side}, only {allowed}; choose one")
    if (made.box or made.point) is not None and status is Status.ABSENT:
        raise WrongEditError("an absent finding has no place; set its status to present or undo the move")
    meaning = {"finding", "site", "side", "status"} & set(made.changes)
    if meaning and made.sentence is None:
        raise WrongEditError("code, site, side or status changed; write the sentence that fits, too")
    if made.sentence is not None and not made.sentence.strip():
        raise WrongEditError("the sentence is empty; write one")


def _without_what_is_as_it_was(made: Decision, found: Finding) -> Decision:
    same = {
        "finding": codes.key_of("findings", found.finding),
        "site": codes.key_of("sites", found.site),
        "side": found.side,
        "status": found.status,
        "sentence": found.sentence,
    }
    return replace(made, **{name: None for name, value in same.items() if getattr(made, name) == value})


def _decision(said: dict[str, Any]) -> Decision:
    box = said.get("box")
    if box is not None:
        edges = tuple(float(one) for one in box["box"])
        box = Box(
            image=ImageRef(**box["image"]),
            box=(edges[0], edges[1], edges[2], edges[3]),
            size_mm=float(box["size_mm"]),
        )
    point = said.get("point")
    if point is not None:
        point = Point(
            image=ImageRef(**point["image"]),
            point=tuple(float(one) for one in point["point"]),
            frame_of_reference_uid=str(point["frame_of_reference_uid"]),
        )
    status = said.get("status")
    return Decision(
        verdict=Verdict(said["verdict"]),
        finding=said.get("finding"),
        site=said.get("site"),
        side=said.get("side"),
        status=None if status is None else Status(status),
        sentence=said.get("sentence"),
        box=box,
        point=point,
    )


class Drafts:
    """Decisions on reports that aren't saved yet, a file for each report, in a folder of the user's."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, which is made when there is something to keep."""
        self._folder = folder

    def keep(self, review: Review) -> None:
        """Write the decisions down; of no decisions, nothing stays."""
        path = self._path(review.report.uid)
        text = review.to_json()
        if json.loads(text)["decisions"]:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = path.with_suffix(".part")
            with os.fdopen(
                os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
            ) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        else:
            path.unlink(missing_ok=True)

    def take_up(self, review: Review) -> int:
        """Restore what was kept for the report; how many decisions."""
        try:
            return review.restore(self._path(review.report.uid).read_text("utf-8"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return 0

    def forget(self, uids: Iterable[str]) -> None:
        """Delete what was kept for reports that are saved."""
        for uid in uids:
            self._path(uid).unlink(missing_ok=True)

    def _path(self, uid: str) -> Path:
        return self._folder / f"{hashlib.sha256(uid.encode()).hexdigest()[:32]}.json"
