"""What destinations are given, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""


class Certainty(StrEnum):
    """How sure it is that a destination has what it was given."""

    COMMITTED = "committed"
    """It said that it keeps it safe, by storage commitment; or it lies in the folder, synced."""
    FOUND = "found"
    """It was asked, and finds it."""
    SENT = "sent"
    """It said that it took it, and nothing better is to be had or was asked for."""
    WAITING = "waiting"
    """It took it and was asked to commit, and hasn't answered yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """What a destination has."""

    objects: tuple[Reference, ...]
    certainty: Certainty
    notes: tuple[str, ...] = ()
    """What was out of the ordinary, without a name in it."""


class Destination(Protocol):
    """Takes objects; each method may be called from any thread, one at a time."""

    def deliver(self, paths: Sequence[Path], *, ours: bool = True) -> Delivered:
        """Have the destination take these DICOM files, and commit to them where that was asked for.

        Args:
            paths: The files.
            ours: Whether they are reports of ours, which are checked before they leave, and not what others
                made.

        Raises:
            DeliveryError: If it doesn't take one. What it took before that is there.
        """

    def confirm(self, objects: Sequence[Reference]) -> Delivered:
        """Ask again whether it keeps what it was given, after `Certainty.WAITING`.

        Raises:
            DeliveryError: If it doesn't have them, or can't be asked; to deliver them again does no harm.
        """

    def close(self) -> None:
        """Let go of connections."""
