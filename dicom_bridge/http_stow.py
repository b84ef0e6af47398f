"""The STOW-RS route: `POST /dicom-web/studies`, and the same of one study."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import anyio.from_thread
import anyio.to_thread
from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.part10 import is_uid
from medmllm_plugin.dicom_bridge.stowing import Stored, response, store
from medmllm_plugin.dicom_bridge.web import JSON, boundary_of, parts_of

IDLE_S = 60.0
"""How long nothing may come of a body, seconds."""
AT_ONCE = 8
"""Requests that send at the same time; others are told to come later."""
INDEXED_S = 5.0
"""How long an answer waits until what came can be asked about, seconds; it is durable whether or not."""

_KIND = 'multipart/related; type="application/dicom"; boundary=...'


def router(node: Node) -> APIRouter:
    """The route, for a node."""
    routes = APIRouter(tags=["DICOMweb"])
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def stow(request: Request, study_uid: str | None) -> Response:
        boundary = boundary_of(request.headers.get("content-type", ""))
        if boundary is None:
            raise HTTPException(415, f"found another Content-Type, expected {_KIND}")
        accepted = request.headers.get("accept", "*/*")
        if not any(kind in accepted for kind in ("*/*", "application/*", JSON, "application/json")):
            raise HTTPException(406, f"found the Accept header {accepted[:100]!r}, expected {JSON}")
        if study_uid is not None and not is_uid(study_uid):
            raise HTTPException(400, "found no sound Study Instance UID in the address, expected one")
        if limiter.available_tokens < 1:
            raise HTTPException(503, f"{AT_ONCE} senders send already; try again", {"Retry-After": "2"})

        def work() -> list[Stored]:
            begun, whole = list[str](), False

            def sending(study: str) -> None:
                begun.append(study)
                node.watch.sending(study)

            try:
                stored = store(
                    parts_of(pieces(request.stream()), boundary),
                    node.spool,
                    called=node.settings.ae_title,
                    most_bytes=node.settings.instance_bytes,
                    admit=node.room,
                    received=node.indexer,
                    sending=sending,
                    study_uid=study_uid,
                )
                node.indexer.settle(INDEXED_S)
                whole = True
                return stored
            finally:
                node.sent_by_web(begun, whole=whole)

        try:
            stored = await anyio.to_thread.run_sync(work, limiter=limiter)
        except (ValueError, TimeoutError, ClientDisconnect) as error:
            reason = str(error) or "nothing came for too long"
            raise HTTPException(400, f"found a body cut short ({reason}); send it again") from error
        if not stored:
            raise HTTPException(400, f"found no part in the body, expected {_KIND}")
        status, said = response(stored)
        return JSONResponse(said, status, {"Retry-After": "60"} if status == 503 else None, JSON)

    @routes.post("/dicom-web/studies", summary="Send instances", response_class=Response)
    async def instances(request: Request) -> Response:
        """STOW-RS (PS3.18 10.5): PS3.10 files as `multipart/related; type="application/dicom"`.

        Answered when they are durable: 200 all are kept, 202 some, 409 none, 503 there is no room now.
        """
        return await stow(request, None)

    @routes.post("/dicom-web/studies/{study_uid}", summary="Send instances of a study")
    async def instances_of(study_uid: str, request: Request) -> Response:
        """The same; instances of other studies are refused (A900)."""
        return await stow(request, study_uid)

    return routes


def pieces(stream: AsyncIterator[bytes]) -> Iterator[bytes]:
    """A body as it comes, for a thread that anyio started.

    Raises:
        TimeoutError: If nothing comes for too long.
        ClientDisconnect: If the sender is gone.
    """

    async def following() -> bytes | None:
        try:
            return await asyncio.wait_for(anext(stream), IDLE_S)
        except StopAsyncIteration:
            return None

    while (piece := anyio.from_thread.run(following)) is not None:
        if piece:
            yield piece
