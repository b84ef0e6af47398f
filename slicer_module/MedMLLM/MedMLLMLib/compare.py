"""Two reports of one patient against each other: AI against AI, AI against a reader, now against before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from . import codes
from .model import Finding, Report

NEAR_MM = 20.0
"""Findings of the same code whose middles are nearer than this are taken for the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A finding in one report, in the other, or in both."""

    one: Finding | None
    other: Finding | None

    @property
    def words(self) -> str:
        """What became of it."""
        if self.one is None or self.other is None:
            return "only in the first" if self.other is None else "only in the second"
        changed = [
            name
            for name in ("finding", "site", "side", "status")
            if getattr(self.one, name) != getattr(self.other, name)
        ]
        if self.one.regions != self.other.regions:
            changed.append("place")
        return f"in both, other {', '.join(changed)}" if changed else "in both, the same"


def pairs(
    one: Report,
    other: Report,
    centers: Mapping[tuple[str, str], np.ndarray],
) -> list[Pair]:
    """The findings of two reports, matched by tracking UID, else by code and place.

    Args:
        one: A report.
        other: Another.
        centers: LPS mm by (report UID, finding key), of those that have a place.
    """
    left = {finding.key: finding for finding in other.findings}
    made = []
    for finding in one.findings:
        same = left.pop(finding.key, None) if finding.tracked else None
        if same is None:
            near = [
                key
                for key, candidate in left.items()
                if candidate.finding == finding.finding
                and _near(
                    centers.get((one.uid, finding.key)), centers.get((other.uid, key)), finding, candidate
                )
            ]
            same = left.pop(near[0]) if near else None
        made.append(Pair(one=finding, other=same))
    return [*made, *(Pair(one=None, other=finding) for finding in left.values())]


def _near(a: np.ndarray | None, b: np.ndarray | None, one: Finding, other: Finding) -> bool:
    if a is None or b is None:
        return a is None and b is None and (one.site, one.side) == (other.site, other.side)
    return float(np.linalg.norm(a - b)) <= NEAR_MM


def words(found: list[Pair]) -> str:
    """The comparison as lines."""
    lines = []
    for one in found:
        finding = one.one or one.other
        assert finding is not None
        side = "" if finding.side == "none" else f", {finding.side}"
        named = f"{codes.words('findings', finding.finding)}, {codes.words('sites', finding.site)}{side}"
        lines.append(f"{named}: {one.words}")
    return "\n".join(lines) or "Neither report has a finding."
