"""Where a study is on its way through the node, and where it may go from there."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Of a study, and so of the report on it."""

    ARRIVING = "arriving"
    """Instances come, or may still come."""
    KEPT = "kept"
    """No rule wants it read: it is kept, or passed on, and nothing else is done."""
    COMPLETE = "complete"
    """It waits to be read."""
    READING = "reading"
    REPORTED = "reported"
    """What the model said is kept; its objects can be made again at any time, the same."""
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    """Every destination has what it should have, and has committed to it where it can."""
    PARKED = "parked"
    """It can't go on by itself: a person must look, see its reason."""


class Sent(StrEnum):
    """Of a report on its way to one destination."""

    WAITING = "waiting"
    """To be sent, or sent again."""
    ASKED = "asked"
    """Sent; the destination was asked to commit to it and hasn't answered yet."""
    SENT = "sent"
    """Taken; the destination can't be asked whether it keeps it."""
    COMMITTED = "committed"
    """The destination says that it keeps it."""
    REFUSED = "refused"
    """It will never take it: a person must look."""
    SUPERSEDED = "superseded"
    """A newer report on the study goes in its place."""


NEXT: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.ARRIVING: frozenset({State.COMPLETE, State.KEPT, State.DELIVERING, State.PARKED}),
        State.KEPT: frozenset({State.ARRIVING, State.COMPLETE}),
        State.COMPLETE: frozenset({State.READING, State.ARRIVING, State.KEPT, State.PARKED}),
        State.READING: frozenset({State.REPORTED, State.COMPLETE, State.ARRIVING, State.PARKED}),
        State.REPORTED: frozenset({State.DELIVERING, State.ARRIVING, State.PARKED}),
        State.DELIVERING: frozenset({State.DELIVERED, State.ARRIVING, State.PARKED}),
        State.DELIVERED: frozenset({State.ARRIVING, State.COMPLETE, State.DELIVERING}),
        State.PARKED: frozenset({State.ARRIVING, State.COMPLETE, State.DELIVERING, State.KEPT}),
    }
)
"""To arriving again when more instances come, to complete when what read it is gone or a person says so; from
arriving to delivering again if what came changes nothing of its report."""


def may_go(before: State, after: State) -> bool:
    """Whether a study may go from one state to another.

    >>> may_go(State.ARRIVING, State.COMPLETE), may_go(State.ARRIVING, State.DELIVERED)
    (True, False)
    """
    return after in NEXT[before]
