"""The HTTP API of a node: studies, readings on request, STOW-RS, health, metrics, and the status page."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib.resources import files
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from medmllm_plugin import __version__, tasks
from medmllm_plugin.dicom_bridge import health, http_jobs, http_stow, http_studies, listing, steering
from medmllm_plugin.dicom_bridge.http_guard import Guard
from medmllm_plugin.dicom_bridge.metrics import CONTENT_TYPE, Metrics
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.on_request import Desk
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.errors import InputError, MedMLLMError, SettingsError
from medmllm_plugin.outputs import printable

log = logging.getLogger(__name__)

CHANGED_S = 1.0
"""How often it is looked for changes while somebody watches, seconds."""
MOST_WATCHERS = 64
"""Who may watch at the same time; others are told to ask now and then."""

_PAGE = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "studies.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""Files of the status page, beside its `page.html`."""


def app(node: Node, desk: Desk, *, ending: threading.Event | None = None) -> ASGIApp:
    """The whole API of a node, guarded.

    Args:
        node: Which.
        desk: Takes readings on request.
        ending: Set when those who watch are to be let go.

    Raises:
        SettingsError: If there is to be a token and it isn't there.
    """
    end = ending or threading.Event()
    api = FastAPI(
        title="MedMLLM node",
        version=__version__,
        description="Studies in, reports out. Research use only; not a medical device.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        # addresses of STOW-RS hold UIDs, which no trace shall carry away
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    api.include_router(_about(node, desk, end))
    api.include_router(http_studies.router(node))
    api.include_router(http_jobs.router(node, desk, end))
    api.include_router(http_stow.router(node))
    api.include_router(_page())
    api.add_exception_handler(AnyHTTPException, _http_error)
    api.add_exception_handler(RequestValidationError, _wrong_request)
    api.add_exception_handler(MedMLLMError, _our_error)
    api.add_exception_handler(SQLAlchemyError, _database_error)
    api.add_exception_handler(Exception, _defect)
    api.openapi()  # what FastAPI puts off till the first request is built now, while no other thread works
    return Guard(_Caught(api), settings=node.settings)


def _about(node: Node, desk: Desk, ending: threading.Event) -> APIRouter:
    routes = APIRouter(tags=["node"])
    metrics, watchers = Metrics(node, desk), [0]

    @routes.get("/api/node", summary="What this node is and can do")
    def about() -> dict[str, Any]:
        """Good for testing a connection: who answers, in which version, and which tasks and models it has."""
        settings = node.settings
        return {
            "name": "MedMLLM",
            "version": __version__,
            "node": settings.node,
            "ae_title": settings.ae_title,
            "port": node.port,
            "model": settings.model,
            "measured": node.models.measured(),
            "models": steering.model_names(settings, node.config),
            "tasks": [{"name": name, "summary": summary} for name, summary in tasks.all_tasks()],
            "states": [one.value for one in State],
            "outputs": sorted(settings.outputs),
            "dicom_web": "/dicom-web",
        }

    @routes.post("/api/node/reload", summary="Read the settings file again")
    def reload() -> dict[str, Any]:
        """`changed`: the fields that did; 400 with why if the file can't be used, and nothing changed."""
        return {"changed": node.reload()}

    @routes.get("/health/live", summary="Whether the program runs")
    def live() -> dict[str, bool]:
        """Always true, if it is answered."""
        return {"live": True}

    @routes.get("/health/ready", summary="Whether it receives and reads, and if not why")
    def ready() -> Response:
        """200 or 503; `parts` says of each part whether it is well, and in words how it is."""
        well, parts = health.ready(node)
        return JSONResponse({"ready": well, "parts": parts}, 200 if well else 503)

    @routes.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    def measured() -> Response:
        """Without names or UIDs."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @routes.get("/api/events", summary="Watch for changes (SSE)", response_class=StreamingResponse)
    async def events() -> StreamingResponse:
        """An event `changed` whenever something happened to a study, its data the last event's number."""
        if watchers[0] >= MOST_WATCHERS:
            raise HTTPException(503, f"{MOST_WATCHERS} watch already; poll instead", {"Retry-After": "10"})

        async def changes() -> AsyncIterator[str]:
            watchers[0] += 1
            try:
                shown, turns = -1, 0
                while not ending.is_set():
                    try:
                        last = await anyio.to_thread.run_sync(listing.last_event, node.store)
                    except SQLAlchemyError:
                        return  # the browser comes again by itself
                    turns += 1
                    if last != shown:
                        yield f"event: changed\ndata: {json.dumps({'event': last})}\n\n"
                        shown, turns = last, 0
                    elif turns >= http_jobs.ALIVE_S / CHANGED_S:
                        yield ": still here\n\n"
                        turns = 0
                    await asyncio.sleep(CHANGED_S)
            finally:
                watchers[0] -= 1

        return StreamingResponse(changes(), media_type="text/event-stream")

    return routes


def _page() -> APIRouter:
    routes = APIRouter(include_in_schema=False)
    folder = files(__package__) / "status_page"

    @routes.get("/")
    def page() -> Response:
        return Response((folder / "page.html").read_bytes(), media_type="text/html; charset=utf-8")

    @routes.get("/web/{name}")
    def part(name: str) -> Response:
        if name not in _PAGE:
            raise HTTPException(404, "found no such file of the status page")
        return Response((folder / name).read_bytes(), media_type=_PAGE[name])

    return routes


class _Caught:
    """An application whose defects end nothing else; `_defect` has told of them by then."""

    def __init__(self, api: ASGIApp) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(Exception):
            await self._api(scope, receive, send)


def _error(status: int, words: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": " ".join(printable(words).split())[:1000]}, status, headers)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    return _error(error.status_code, str(error.detail), dict(error.headers or {}))


async def _wrong_request(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:5])
    return _error(400, "; ".join(wrong))


async def _our_error(_: Request, error: Exception) -> Response:
    return _error(400 if isinstance(error, SettingsError | InputError) else 500, str(error))


async def _database_error(_: Request, error: Exception) -> Response:
    log.error("the database can't be used now (%s)", type(error).__name__)
    return _error(503, "the database can't be used now; try again", {"Retry-After": "5"})


async def _defect(request: Request, error: Exception) -> Response:
    route = getattr(request.scope.get("route"), "path", "a route")
    log.error("a defect of ours: %s at %s", type(error).__name__, route, exc_info=error)
    return _error(500, "a defect of ours; see the node's log")
