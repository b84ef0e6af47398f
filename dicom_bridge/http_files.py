"""The files of a report over HTTP: its JSON, its page, its DICOM objects, its pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from fastapi.responses import FileResponse, Response

from medmllm_plugin.sliceset import picture_name
from medmllm_plugin.writing import PAGE

PICTURES_S = 5.0
"""How long a request waits for pictures that are about to be made."""

PAGE_POLICY = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
"""Content-Security-Policy of a report's page: it runs nothing, and the status page may show it in a frame."""


def report(folder: Path) -> Response:
    """`report.json`."""
    return _file(folder / "report.json", "application/json")


def page(folder: Path) -> Response:
    """`report.html`, once it is made."""
    _wait_for_pictures(folder)
    answer = _file(folder / PAGE, "text/html; charset=utf-8")
    answer.headers["Content-Security-Policy"] = PAGE_POLICY
    return answer


def dicom_object(folder: Path, name: str, known: Collection[str]) -> Response:
    """A DICOM object by its file name.

    Raises:
        HTTPException: If it is none of those that are known.
    """
    if name not in known:
        raise HTTPException(404, f"found no object of that name, expected one of {', '.join(sorted(known))}")
    return _file(folder / name, "application/dicom")


def picture(folder: Path, number: int) -> Response:
    """A picture as it was shown to the model, by its number from 1, once it is made."""
    _wait_for_pictures(folder)
    return _file(folder / "pictures" / picture_name(number), "image/png")


def brief(folder: Path) -> dict[str, Any] | None:
    """What a report says, in short; None if it can't be read here."""
    try:
        said = json.loads((folder / "report.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    told = ("finding", "site", "side", "status", "certainty", "sentence", "image_supported", "tracking_uid")
    answer = said.get("answer")
    return {
        "outcome": said.get("outcome"),
        "impression": (said.get("narrative") or {}).get("impression", []),
        "answer": answer.get("text") if isinstance(answer, dict) else None,
        "findings": [{name: one.get(name) for name in told} for one in said.get("findings", ())],
        "notes": said.get("notes", []),
        "model": (said.get("provenance") or {}).get("model"),
    }


def _wait_for_pictures(folder: Path) -> None:
    """Give the node a moment: it makes pictures and page once a report is delivered.

    Raises:
        HTTPException: If they aren't there then; they may be later.
    """
    until = time.monotonic() + PICTURES_S
    while not (folder / PAGE).is_file():
        if not (folder / "report.json").is_file():
            return  # the report isn't here at all, which is told by whoever looks for a file
        if time.monotonic() > until:
            raise HTTPException(503, "its pictures are not made yet; ask again", {"Retry-After": "2"})
        time.sleep(0.05)


def _file(path: Path, kind: str) -> Response:
    if not path.is_file():
        raise HTTPException(404, "the file isn't on this node; ask the node that made the report")
    return FileResponse(path, media_type=kind)
