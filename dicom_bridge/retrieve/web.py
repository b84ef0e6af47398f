"""A PACS that is asked by QIDO-RS and gives by WADO-RS (PS3.18 10.4, 10.6)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from medmllm_plugin.dicom_bridge import web
from medmllm_plugin.dicom_bridge.retrieve.values import Came, FoundStudy, count_of, file_in, require_whole
from medmllm_plugin.errors import RetrieveError

_FIELDS = {
    "study_uid": "0020000D",
    "patient_id": "00100020",
    "issuer": "00100021",
    "date": "00080020",
    "time": "00080030",
    "modalities": "00080061",
    "instances": "00201208",
}
MOST_STUDIES = 10_000
"""Of one answer in pages: whoever gives more gives without end."""

_UID = re.compile(r"[0-9.]{1,64}")


class WebArchive:
    """One service."""

    def __init__(self, url: str, *, token_env: str | None = None, timeout_s: float = 120.0) -> None:
        """Take whom to ask; nothing is asked yet.

        Args:
            url: Of the service, such as `https://pacs/dicom-web`.
            token_env: The environment variable that holds its bearer token.
            timeout_s: How long nothing may come.

        Raises:
            SettingsError: If it is no address of HTTP, or there is no token.
        """
        self.name = url.rstrip("/")
        self._client = web.client(url, token_env=token_env, timeout_s=timeout_s)

    def studies(self, *, study_uid: str = "", patient_id: str = "") -> list[FoundStudy]:
        """See `Archive.studies`."""
        keys = {"StudyInstanceUID": study_uid, "PatientID": patient_id}
        matched = {name: value for name, value in keys.items() if value}
        if not matched:
            raise ValueError("found neither study_uid nor patient_id, expected one of them")
        return self.find(matched)

    def find(self, keys: Mapping[str, str]) -> list[FoundStudy]:
        """See `Archive.find`."""
        found = self._page(keys, offset=0)
        seen = {one.study_uid for one in found}
        # a service may give less than it has (PS3.18 8.3.4.4); one that knows no offset begins anew
        while found and "StudyInstanceUID" not in keys:
            more = [one for one in self._page(keys, offset=len(found)) if one.study_uid not in seen]
            if not more:
                break
            found += more
            seen.update(one.study_uid for one in more)
            if len(found) > MOST_STUDIES:
                raise RetrieveError(
                    f"{self.name}: found over {MOST_STUDIES} studies; ask for less, or see how it matches",
                    retry=False,
                )
        return found

    def _page(self, matched: Mapping[str, str], *, offset: int) -> list[FoundStudy]:
        params: list[tuple[str, str | int | float | bool | None]] = [
            *matched.items(),
            *(("includefield", tag) for tag in _FIELDS.values()),
            *([("offset", offset)] if offset else []),
        ]
        response = web.asked(
            self.name,
            RetrieveError,
            lambda: self._client.get("/studies", params=params, headers={"Accept": web.JSON}),
        )
        if response.status_code == 204:
            return []
        if response.status_code != 200:
            raise web.refused(self.name, RetrieveError, response.status_code)
        found = web.said(response)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise RetrieveError(f"{self.name}: gave no DICOM JSON; see its address", retry=False)
        return [_study(one) for one in found if _text(one, _FIELDS["study_uid"])]

    def instance_count(self, study_uid: str) -> int | None:
        """See `Archive.instance_count`."""
        found = [one for one in self.studies(study_uid=study_uid) if one.study_uid == study_uid]
        return found[0].instances if found else 0

    def fetch(self, study_uid: str, folder: Path, *, came: Came | None = None) -> list[Path]:
        """See `Archive.fetch`."""
        if not _UID.fullmatch(study_uid):
            raise ValueError("found no UID, expected a Study Instance UID")
        counted = self.instance_count(study_uid)
        if counted == 0:
            raise RetrieveError(f"{self.name}: found no such study; see its UID", retry=True)
        files = web.asked(self.name, RetrieveError, lambda: self._streamed(study_uid, folder, counted, came))
        require_whole(self.name, study_uid, files, counted=counted)
        return files

    def close(self) -> None:
        """See `Archive.close`."""
        self._client.close()

    def _streamed(self, study_uid: str, folder: Path, counted: int | None, came: Came | None) -> list[Path]:
        """Write the instances as they come, none of them ever held whole."""
        files: list[Path] = []
        accept = f"{web.DICOM}; transfer-syntax=*"
        with self._client.stream("GET", f"/studies/{study_uid}", headers={"Accept": accept}) as response:
            if response.status_code != 200:
                raise web.refused(self.name, RetrieveError, response.status_code)
            boundary = web.boundary_of(response.headers.get("Content-Type", ""))
            if boundary is None:
                raise RetrieveError(f"{self.name}: gave no multipart body; see its address", retry=False)
            try:
                for part in web.parts_of(_pieces(response), boundary):
                    path = file_in(folder, len(files) + 1)
                    with path.open("wb") as file:
                        file.writelines(part)
                    files.append(path)
                    if came is not None:
                        came(len(files), counted)
            except ValueError as error:
                raise RetrieveError(
                    f"{self.name}: broke off ({error}); try again later", retry=True
                ) from error
            except OSError as error:
                raise RetrieveError(
                    f"{folder}: a study can't be written there ({error.strerror}); make room", retry=True
                ) from error
        return files


def _pieces(response: httpx2.Response) -> Any:
    return response.iter_bytes(1 << 18)


def _study(found: dict[str, Any]) -> FoundStudy:
    date, time = _text(found, _FIELDS["date"]), _text(found, _FIELDS["time"])
    return FoundStudy(
        study_uid=_text(found, _FIELDS["study_uid"]),
        patient_id=_text(found, _FIELDS["patient_id"]),
        issuer=_text(found, _FIELDS["issuer"]),
        date=date + time if date else "",
        modalities=tuple(map(str, web.values_of(found, _FIELDS["modalities"]))),
        instances=count_of(_text(found, _FIELDS["instances"])),
    )


def _text(found: dict[str, Any], tag: str) -> str:
    value = web.value_of(found, tag)
    return "" if value is None else str(value).strip()
