"""A node with its HTTP API for tests: real, on a port of this machine, with a client."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from medmllm_plugin.dicom_bridge.http_server import HttpServer
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.states import State
from tests.node_runner import settings_for, wait_for

BOUNDARY = "a-boundary"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


@dataclass(frozen=True, kw_only=True)
class HttpNode:
    """A node, its server, and who asks."""

    node: Node
    server: HttpServer
    client: httpx2.Client

    def stow(self, parts: Sequence[bytes], *, study: str = "") -> httpx2.Response:
        """Send files by STOW-RS."""
        path = f"/dicom-web/studies/{study}" if study else "/dicom-web/studies"
        return self.client.post(path, content=multipart(parts), headers={"Content-Type": MULTIPART})

    def only_study(self, *states: State) -> dict[str, Any]:
        """The one study that the API lists, once it is in one of these states."""
        query = [("state", one.value) for one in states]

        def found() -> dict[str, Any] | None:
            listed = self.client.get("/api/studies", params=query).json()["studies"]
            return listed[0] if len(listed) == 1 else None

        one: dict[str, Any] = wait_for(found)
        return one

    def ended(self, job: str) -> dict[str, Any]:
        """A job once it ended."""

        def found() -> dict[str, Any] | None:
            told = self.client.get(f"/api/jobs/{job}").json()
            return told if told["state"] in ("done", "failed", "cancelled") else None

        one: dict[str, Any] = wait_for(found)
        return one


@contextmanager
def http_node(folder: Path, *, headers: dict[str, str] | None = None, **settings: Any) -> Iterator[HttpNode]:
    """A node that was started, with its HTTP API, as `medmllm serve` starts them."""
    with (
        closing(Node(settings_for(folder, **{"http_port": 0, **settings}))) as node,
        closing(HttpServer(node)) as server,
    ):
        node.start()
        server.start()
        tls = settings.get("http_tls")
        verify = True if tls is None else ssl.create_default_context(cafile=tls.certificate)
        with httpx2.Client(base_url=server.url, headers=headers, timeout=60.0, verify=verify) as client:
            yield HttpNode(node=node, server=server, client=client)


def multipart(parts: Sequence[bytes]) -> bytes:
    """A body of STOW-RS."""
    mark = f"\r\n--{BOUNDARY}".encode()
    return (
        b"".join(mark + b"\r\nContent-Type: application/dicom\r\n\r\n" + one for one in parts)
        + mark
        + b"--\r\n"
    )
