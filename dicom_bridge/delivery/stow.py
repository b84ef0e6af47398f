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

_FAILED, _REASON, _INSTANCE = "00081198", "00081197", "00081155"
"""Failed SOP Sequence, Failure Reason, Referenced SOP Instance UID."""
_DUPLICATE = 0x0111
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
        """See `Destination.deliver`."""
        objects = objects_of(paths, ours=ours)
        notes = self._stored(objects)
        found = all(self._has(one) for one in objects)
        return Delivered(
            objects=tuple(one.reference for one in objects),
            certainty=Certainty.FOUND if found else Certainty.SENT,
            notes=tuple(notes if found else [*notes, "it doesn't find what it took yet"]),
        )

    def confirm(self, objects: Sequence[Reference]) -> Delivered:
        """See `Destination.confirm`; nothing is left open here."""
        return Delivered(objects=tuple(objects), certainty=Certainty.SENT)

    def close(self) -> None:
        """See `Destination.close`."""
        self._client.close()

    def _stored(self, objects: Sequence[DicomObject]) -> list[str]:
        """Have them taken; what was out of the ordinary."""
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
        failed = _failures(response)
        left = {uid: reason for uid, reason in failed.items() if reason != _DUPLICATE}
        only_duplicates = bool(failed) and not left
        if left or (not response.is_success and not only_duplicates):
            raise self._refused(objects, left, response)
        return [f"it has {one} already" for one in objects if one.sop_instance_uid in failed]

    def _refused(
        self, objects: Sequence[DicomObject], left: dict[str, int], response: httpx2.Response
    ) -> DeliveryError:
        if not left:
            return web.refused(self._url, DeliveryError, response.status_code)
        names = ", ".join(str(one) for one in objects if one.sop_instance_uid in left) or "an object"
        reasons = ", ".join(sorted({f"{reason:#06x}" for reason in left.values()}))
        for_now = all(0xA700 <= reason <= 0xA7FF or reason == 0x0110 for reason in left.values())
        return DeliveryError(f"{self._url}: refused {names} ({reasons}); see its log", retry=for_now)

    def _has(self, one: DicomObject) -> bool:
        """Whether a query finds it (PS3.18 10.6); a service that can't be asked is taken at its word."""
        try:
            response = self._client.get(
                f"/studies/{one.study_uid}/series/{one.series_uid}/instances",
                params={"SOPInstanceUID": one.sop_instance_uid},
                headers={"Accept": web.JSON},
            )
            found = response.json() if response.status_code == 200 else []
            return any(_value(each, "00080018") == one.sop_instance_uid for each in found)
        except (httpx2.HTTPError, ValueError, AttributeError, TypeError):
            return False


def _body(objects: Sequence[DicomObject], boundary: str) -> Iterator[bytes]:
    for one in objects:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        with one.path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _failures(response: httpx2.Response) -> dict[str, int]:
    """SOP Instance UIDs that were not taken, and why; empty where the service doesn't say."""
    try:
        items = response.json()[_FAILED]["Value"]
        return {str(_value(one, _INSTANCE)): int(_value(one, _REASON) or 0x0110) for one in items}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _value(item: dict[str, Any], tag: str) -> Any:
    values = item.get(tag, {}).get("Value") or [None]
    return values[0]
