"""What archives are asked, and what counts as a study that came."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom import dcmread

from medmllm_plugin.errors import RetrieveError
from medmllm_plugin.transforms.quiet import quiet

_COUNT = re.compile(r"[0-9]{1,12}")

Came = Callable[[int, int | None], None]
"""Told how many instances have come, and of how many if that is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundStudy:
    """A study that a PACS has, as it says."""

    study_uid: str
    patient_id: str
    """Patient ID (0010,0020); never shown or logged."""
    issuer: str
    """Issuer of Patient ID (0010,0021), or empty."""
    date: str
    """Study Date (0008,0020) and Time (0008,0030), such as `20260131101500`; empty if unknown."""
    modalities: tuple[str, ...]
    """Modalities in Study (0008,0061)."""
    instances: int | None
    """Number of Study Related Instances (0020,1208); None if it doesn't say."""


class Archive(Protocol):
    """A PACS that is asked; each method may be called from any thread, one at a time.

    Every method raises `RetrieveError` if it can't be asked or doesn't give what it is asked for.
    """

    name: str
    """How errors call it."""

    def find(self, keys: Mapping[str, str]) -> list[FoundStudy]:
        """The studies that match, by DICOM keywords of what a study says; values as PS3.4 C.2.2.2 has them.

        So `*` is any text, `?` any character, and `20260101-` any date from then on.
        """

    def studies(self, *, study_uid: str = "", patient_id: str = "") -> list[FoundStudy]:
        """The studies of that UID or of that patient; one of both must be given."""

    def instance_count(self, study_uid: str) -> int | None:
        """How many instances it has of a study, 0 for none; None if it doesn't say."""

    def fetch(self, study_uid: str, folder: Path, *, came: Came | None = None) -> list[Path]:
        """Write a study into a folder that is there; the files, in the order in which they came."""

    def close(self) -> None:
        """Let go of connections."""


def count_of(text: str) -> int | None:
    """How many, as Number of Study Related Instances has it (an Integer String); None for anything else.

    >>> count_of("300"), count_of("many"), count_of("")
    (300, None, None)
    """
    return int(text) if _COUNT.fullmatch(text) else None


def file_in(folder: Path, number: int) -> Path:
    """Where an instance is written, by the order in which they come; nothing of its own is in the name."""
    return folder / f"{number:06d}.dcm"


def require_whole(name: str, study_uid: str, files: Sequence[Path], *, counted: int | None) -> None:
    """Refuse what came unless it is all of the study and nothing else.

    Args:
        name: Of the archive.
        study_uid: What was asked for.
        files: What came.
        counted: How many instances there should be; None if nobody says.

    Raises:
        RetrieveError: If it isn't.
    """
    if not files:
        raise RetrieveError(f"{name}: gave no instance of the study; see its UID", retry=True)
    if counted is not None and len(files) < counted:
        raise RetrieveError(
            f"{name}: gave {len(files)} of {counted} instances; try again, or see its log", retry=True
        )
    for path in files:
        try:
            with quiet():
                found = dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
            uid = str(found.get("StudyInstanceUID") or "")
        except Exception as error:  # whatever pydicom says of what a PACS gave
            raise RetrieveError(
                f"{name}: gave something that is no DICOM; see its log", retry=False
            ) from error
        if uid != study_uid:
            raise RetrieveError(
                f"{name}: gave an instance of another study than was asked for; see its log", retry=False
            )
