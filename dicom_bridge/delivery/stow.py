"""A DICOMweb service that takes objects by STOW-RS (PS3.18 10.5)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2

from medmllm_plugin.dicom_bridge import web
from medmllm_plugin.dicom_bridge.delivery.objects import DicomObject, objects_of
from medmllm_plugin.dicom_bridge.delivery.values import Certainty, Delivered, Reference
from medmllm_plugin.errors import DeliveryError

_FAILED, _STORED, _REASON, _INSTANCE = "00081198", "00081199", "00081197", "00081155"
"""Failed SOP Sequence, Referenced SOP Sequence, Failure Reason, Referenced SOP Instance UID (PS3.18 I.2)."""
_DUPLICATE, _PROCESSING_FAILURE = 0x0111, 0x0110
_PIECE = 1 << 20


class StowDestination:
    """One service. Storage commitment has no counterpart there: after storing it is asked what it has."""

    def __init__(self, url: str, *, token_env: str | None = None, timeout_s: float = 120.0) -> None:
        """Take where to; nothing is sent yet.

        Args:
            url: Of the service, such as `https://pacs/dicom-web`.
            token_env: The environment variable that holds its bearer token.
            timeout_s: How long nothing may come.

        Raises:
            SettingsError: If it is no address of HTTP, or there is no token.
        """
        self._url = url.rstrip("/")
        self._client = web.client(url, token_env=token_env, timeout_s=timeout_s)

    def deliver(self, paths: Sequence[Path], *, ours: bool = True) -> Delivered:
        """See `Destination.deliver`; an object is taken if the service lists it as stored, or finds it.

        Success alone doesn't say so: it may be that of a page to sign in, from a proxy in between.
        """
        objects = objects_of(paths, ours=ours)
        listed, notes = self._stored(objects)
        missing = [one for one in objects if not self._has(one)]
        if unknown := [one for one in missing if one.sop_instance_uid not in listed]:
            raise DeliveryError(
                f"{self._url}: answered success, but neither lists nor finds {len(unknown)} of "
                f"{len(objects)} objects; see that this is the address of a DICOMweb service",
                retry=True,
            )
        return Delivered(
            objects=tuple(one.reference for one in objects),
            certainty=Certainty.SENT if missing else Certainty.FOUND,
            notes=tuple([*notes, "it doesn't find what it took yet"] if missing else notes),
        )

    def confirm(self, objects: Sequence[Reference]) -> Delivered:
        """See `Destination.confirm`; nothing is left open here."""
        return Delivered(objects=tuple(objects), certainty=Certainty.SENT)

    def close(self) -> None:
        """See `Destination.close`."""
        self._client.close()

    def _stored(self, objects: Sequence[DicomObject]) -> tuple[set[str], list[str]]:
        """Have them taken; SOP Instance UIDs that it says to have, and what was out of the ordinary."""
        boundary = secrets.token_hex(16)
        response = web.asked(
            self._url,
            DeliveryError,
            lambda: self._client.post(
                "/studies",
                content=_body(objects, boundary),
                headers={"Content-Type": f"{web.DICOM}; boundary={boundary}", "Accept": web.JSON},
            ),
        )
        said = web.said(response)
        stored = {str(web.value_of(one, _INSTANCE)) for one in web.values_of(said, _STORED)}
        failed = {
            str(web.value_of(one, _INSTANCE)): _reason(web.value_of(one, _REASON))
            for one in web.values_of(said, _FAILED)
        }
        left = {uid: reason for uid, reason in failed.items() if reason != _DUPLICATE}
        only_duplicates = bool(failed) and not left
        if left or (not response.is_success and not only_duplicates):
            raise self._refused(objects, left, response)
        notes = [f"it has {one} already" for one in objects if one.sop_instance_uid in failed]
        return stored | failed.keys(), notes

    def _refused(
        self, objects: Sequence[DicomObject], left: dict[str, int], response: httpx2.Response
    ) -> DeliveryError:
        if not left:
            return web.refused(self._url, DeliveryError, response.status_code)
        names = ", ".join(str(one) for one in objects if one.sop_instance_uid in left) or "an object"
        reasons = ", ".join(sorted({f"{reason:#06x}" for reason in left.values()}))
        for_now = all(0xA700 <= reason <= 0xA7FF or reason == _PROCESSING_FAILURE for reason in left.values())
        return DeliveryError(f"{self._url}: refused {names} ({reasons}); see its log", retry=for_now)

    def _has(self, one: DicomObject) -> bool:
        """Whether a query finds it (PS3.18 10.6); a service that can't be asked is taken at its word."""
        try:
            response = self._client.get(
                f"/studies/{one.study_uid}/series/{one.series_uid}/instances",
                params={"SOPInstanceUID": one.sop_instance_uid},
                headers={"Accept": web.JSON},
            )
        except httpx2.HTTPError:
            return False
        found = web.said(response) if response.status_code == 200 else None
        return isinstance(found, list) and any(
            web.value_of(each, "00080018") == one.sop_instance_uid for each in found
        )


def _body(objects: Sequence[DicomObject], boundary: str) -> Iterator[bytes]:
    for one in objects:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        with one.path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _reason(value: Any) -> int:
    """Failure Reason (0008,1197)."""
    try:
        return int(value) or _PROCESSING_FAILURE
    except (TypeError, ValueError, OverflowError):
        return _PROCESSING_FAILURE
