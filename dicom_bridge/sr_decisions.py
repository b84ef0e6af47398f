"""What a person decides on each finding of an AI SR: accept, edit or reject."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from pydicom.config import RAISE
from pydicom.dataset import Dataset
from pydicom.valuerep import validate_value

from medmllm_plugin import codes
from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_items import clean, has_words, long_string
from medmllm_plugin.dicom_bridge.sr_keys import finding_key, qualifier_key, site_key
from medmllm_plugin.dicom_bridge.sr_statement import BoxRegion, Number, Statement
from medmllm_plugin.dicom_bridge.sr_words import restated, sentence_of
from medmllm_plugin.findings import Box, Side, Status


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Who verifies; no role, for validators disagree on the codes of roles (CID 7452)."""

    name: str
    """Verifying Observer Name (0040,A075), VR PN: Family^Given."""
    organization: str
    """Verifying Organization (0040,A027), VR LO."""

    def __post_init__(self) -> None:
        if not has_words(self.name) or clean(self.name) != self.name or "\\" in self.name:
            raise ValueError("the verifying person's name is empty or has characters that a name can't have")
        try:
            validate_value("PN", self.name, RAISE)
        except ValueError:
            raise ValueError("the verifying person's name is no Person Name (PS3.5 6.2)") from None
        if not long_string(self.organization) or long_string(self.organization) != self.organization:
            raise ValueError("the verifying organization is one line of 1 to 64 characters, no backslash")


class Verdict(StrEnum):
    """What becomes of a finding."""

    ACCEPT = "accept"
    EDIT = "edit"
    REJECT = "reject"


_MEANING = ("finding", "site", "side", "status")
_CHANGES = (*_MEANING, "sentence", "box", "size_mm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What a person says to one finding; all but the first two are changes, for `EDIT` alone."""

    tracking_uid: str
    """Tracking Unique Identifier (0062,0021) of the finding."""
    verdict: Verdict
    finding: str | None = None
    """A key of the findings of `codes.toml`."""
    site: str | None = None
    """A key of the sites of `codes.toml`."""
    side: Side | None = None
    """`NONE` takes a side away."""
    status: Status | None = None
    sentence: str | None = None
    """Needed with any change of what the finding says, so that code and words never disagree."""
    box: Box | None = None
    """The place; the numbers measured at the old one go."""
    size_mm: float | None = None
    """Longer side of the new box in mm."""

    def __post_init__(self) -> None:
        changes = self.changed
        if bool(changes) != (self.verdict is Verdict.EDIT):
            found = ", ".join(changes) or "nothing"
            raise ValueError(
                f"{self.tracking_uid}: the verdict is {self.verdict.value}, but it changes {found}"
            )
        if any(name in changes for name in _MEANING) and not has_words(self.sentence or ""):
            raise ValueError(
                f"{self.tracking_uid}: a change of finding, site, side or status needs the new sentence"
            )
        if self.sentence is not None and not has_words(self.sentence):
            raise ValueError(f"{self.tracking_uid}: the new sentence has no words")
        if self.size_mm is not None and (self.box is None or not 0 < self.size_mm < 1e5):
            raise ValueError(f"{self.tracking_uid}: a size in mm is of a new box and above 0")
        if self.finding is not None:
            codes.finding(self.finding)
        if self.site is not None:
            codes.site(self.site)

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of what it changes."""
        return tuple(name for name in _CHANGES if getattr(self, name) is not None)

    def to_json(self) -> dict[str, Any]:
        """The decision as plain values, what it doesn't change left out."""
        box = None if self.box is None else {**asdict(self.box), "image": self.box.image.to_json()}
        values = {name: getattr(self, name) for name in self.changed} | ({"box": box} if box else {})
        return {"tracking_uid": self.tracking_uid, "verdict": self.verdict.value, **values}


def edited(statement: Statement, decision: Decision, *, image: Dataset | None) -> Statement:
    """The statement as the decision changes it.

    Args:
        statement: What the AI said.
        decision: An `EDIT` of it.
        image: The reference to the image of the decision's box, None without one.

    Raises:
        ValueError: If the finding can't be at that site, the site can't have that side, or what is absent
            gets a box.
    """
    meant = any(name in decision.changed for name in _MEANING)
    status = decision.status or statement.status
    region = statement.region
    if decision.box is not None and status is Status.ABSENT:
        raise ValueError(f"{statement.tracking_uid}: an absent finding has no box")
    if decision.box is not None and image is not None:
        box = decision.box
        corners = (box.column_min, box.row_min, box.column_max, box.row_max)
        region = BoxRegion(corners=corners, image=image)
    if status is Status.ABSENT:
        region = None
    changed = replace(
        statement,
        finding=statement.finding if decision.finding is None else codes.finding(decision.finding).code,
        site=statement.site if decision.site is None else codes.site(decision.site).code,
        status=status,
        region=region,
        numbers=_numbers(statement, decision, meant=meant),
    )
    if decision.side is not None:
        none = decision.side is Side.NONE
        side = None if none else codes.qualifier("laterality", decision.side.value)
        changed = replace(changed, laterality=side)
    if isinstance(region, BoxRegion) and not any(one == region.image for one in changed.evidence):
        changed = replace(changed, evidence=(region.image, *changed.evidence))
    _check(changed)
    comment = statement.comment
    moved = (region is None) != (statement.region is None)
    if meant or moved or decision.sentence is not None:
        comment = restated(
            comment,
            sentence=clean(decision.sentence or sentence_of(comment)),
            status=status,
            placed=region is not None,
            holds=not (meant or moved),
        )
    label = statement.tracking_identifier
    if meant or not label:
        number = re.match(r"AI-\d+\b", label)
        label = f"{number[0] if number else 'AI'} {called(changed)}"
    return replace(changed, comment=comment, tracking_identifier=label)


def called(statement: Statement) -> str:
    """What a statement is of, in words, such as `Nodule, Lung, Right`."""
    named = (statement.finding, statement.site, statement.laterality)
    return ", ".join(code.meaning for code in named if code is not None)


def _numbers(statement: Statement, decision: Decision, *, meant: bool) -> tuple[Number, ...]:
    """The numbers that still hold: certainty was of the model's words, sizes of the model's place."""
    if decision.status is Status.ABSENT:
        return ()
    kept = () if decision.box is not None else statement.numbers
    if meant:
        kept = tuple(one for one in kept if one[0].value != concepts.CERTAINTY.value)
    if decision.size_mm is None:
        return kept
    return ((concepts.LONG_AXIS, decision.size_mm, concepts.MILLIMETER), *kept)


def _check(statement: Statement) -> None:
    """Refuse a finding where it can't be, as far as `codes.toml` knows its codes."""
    finding, site = finding_key(statement.finding), site_key(statement.site)
    side = "none" if statement.laterality is None else qualifier_key("laterality", statement.laterality)
    if site is not None and side is not None and not codes.side_allowed(site, side):
        raise ValueError(f"{statement.tracking_uid}: {statement.site.meaning} can't be {side}")
    if site is not None and finding is not None and not codes.site_allowed(finding, site):
        raise ValueError(
            f"{statement.tracking_uid}: {statement.finding.meaning} can't be at {statement.site.meaning}"
        )
