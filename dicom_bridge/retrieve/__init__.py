"""Where studies and their priors come from: a PACS by DIMSE or DICOMweb.

What comes is written as it is, under names of ours, and counts only when all of it is there and belongs to
the study that was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.retrieve.values import Archive, Came, FoundStudy
from medmllm_plugin.errors import RetrieveError, SettingsError
from medmllm_plugin.outputs import printable

__all__ = ["Archive", "Came", "FoundStudy", "archive", "peer_named", "priors_of"]


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


def _is_before(one: str, other: str) -> bool:
    """Whether a date and time is earlier than another, as far as both are told.

    >>> _is_before("20260130", "20260131101500"), _is_before("20260131", "20260131101500")
    (True, False)
    """
    told = min(len(one), len(other))
    return one[:told] < other[:told]
