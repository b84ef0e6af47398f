"""Where studies and their priors come from: a PACS by DIMSE or DICOMweb.

What comes is written as it is, under names of ours, and counts only when all of it is there and belongs to
the study that was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom import dcmread

from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.errors import RetrieveError, SettingsError
from medmllm_plugin.outputs import printable
from medmllm_plugin.transforms.quiet import quiet

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

    def studies(self, *, study_uid: str = "", patient_id: str = "") -> list[FoundStudy]:
        """The studies of that UID or of that patient; one of both must be given."""

    def instance_count(self, study_uid: str) -> int | None:
        """How many instances it has of a study, 0 for none; None if it doesn't say."""

    def fetch(self, study_uid: str, folder: Path, *, came: Came | None = None) -> list[Path]:
        """Write a study into a folder that is there; the files, in the order in which they came."""

    def close(self) -> None:
        """Let go of connections."""


def priors_of(archive: Archive, study_uid: str, *, most: int = 1) -> list[FoundStudy]:
    """The latest earlier studies of the same patient that share a modality with a study, newest first.

    A patient is the same only if Patient ID and, where both say it, its issuer are. Studies without a date,
    or of the same time as far as both tell it, are not taken for earlier.

    Raises:
        RetrieveError: If the archive can't be asked, or doesn't have the study.
    """
    found = [one for one in archive.studies(study_uid=study_uid) if one.study_uid == study_uid]
    current = found[0] if found else None
    if current is None:
        raise RetrieveError(f"{archive.name}: found no such study; see its UID", retry=True)
    if not current.patient_id or not current.date:
        return []
    earlier = [
        one
        for one in archive.studies(patient_id=current.patient_id)
        if one.study_uid != study_uid
        and one.patient_id == current.patient_id
        and (one.issuer == current.issuer or not one.issuer or not current.issuer)
        and _is_before(one.date, current.date)
        and set(one.modalities) & set(current.modalities)
    ]
    return sorted(earlier, key=lambda one: one.date, reverse=True)[:most]


def archive(
    source: str,
    *,
    calling_ae: str = "MEDMLLM",
    peers: Mapping[str, Peer] | None = None,
    token_env: str | None = None,
) -> Archive:
    """The PACS that a user means.

    Args:
        source: A name of `peers`, `AE@host:port`, or the address of a DICOMweb service.
        calling_ae: Our title, for a PACS that is asked by DIMSE.
        peers: Known by name; one with a DICOMweb service is asked there.
        token_env: The environment variable that holds a service's bearer token.

    Raises:
        SettingsError: If it is none of them.

    >>> archive("PACS@10.0.0.5:104").name
    'PACS@10.0.0.5:104'
    """
    peer = (peers or {}).get(source)
    url = peer.web if peer is not None else source if "://" in source else None
    if url is not None:
        from medmllm_plugin.dicom_bridge.retrieve.web import WebArchive

        return WebArchive(url, token_env=peer.web_token_env if peer is not None else token_env)
    from medmllm_plugin.dicom_bridge.retrieve.dimse import DimseArchive

    return DimseArchive(peer or peer_named(source), calling_ae=calling_ae)


def peer_named(text: str) -> Peer:
    """The peer that `AE@host:port` means.

    Raises:
        SettingsError: If it means none.

    >>> peer_named("PACS@[::1]:104").host
    '::1'
    """
    parts = re.fullmatch(r"([^@\\]{1,16})@(?:\[([^\]]+)\]|([^:@/]+)):([0-9]{1,5})", text)
    if parts is None or not parts[1].isascii() or not parts[1].strip() or int(parts[4]) > 65535:
        raise SettingsError(
            f"{printable(text)}: found no PACS of that name, expected a name of [peers], AE@host:port, or "
            "https://... of a DICOMweb service"
        )
    return Peer(ae_title=parts[1].strip(), host=parts[2] or parts[3], port=int(parts[4]))


def file_in(folder: Path, number: int) -> Path:
    """Where an instance is written, by the order in which they come; nothing of its own is in the name."""
    return folder / f"{number:06d}.dcm"


def _is_before(one: str, other: str) -> bool:
    """Whether a date and time is earlier than another, as far as both are told.

    >>> _is_before("20260130", "20260131101500"), _is_before("20260131", "20260131101500")
    (True, False)
    """
    told = min(len(one), len(other))
    return one[:told] < other[:told]


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
