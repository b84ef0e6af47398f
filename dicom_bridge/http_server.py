"""Serves the HTTP API of a node, in a thread, until it is closed."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from types import TracebackType
from typing import Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from medmllm_plugin.dicom_bridge.http_api import app
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.on_request import Desk
from medmllm_plugin.errors import SettingsError

CONNECTIONS = 256
"""Most at a time; further ones are told that there is no room."""
REQUEST_S = 20.0
"""How long a connection may be open without a request that has come whole, seconds."""
CLOSED_S = 10.0


class _Impatient(H11Protocol):
    """Closes connections that say nothing, or say it too slowly, so that they keep nobody out."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look at it now and then."""
        super().connection_made(transport)
        self._answered: object = self
        self.loop.call_later(REQUEST_S / 2, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._answered is self.cycle:
            self.transport.close()
            return
        self._answered = self.cycle if idle else self
        self.loop.call_later(REQUEST_S / 2, self._look)


class HttpServer:
    """The API of a node; as a context manager it is started and closed."""

    def __init__(self, node: Node) -> None:
        """Take the port and make everything ready; nothing is answered before it is started.

        Args:
            node: Whose; best one that wasn't started yet, so that it doesn't work if this fails.

        Raises:
            SettingsError: If the port can't be listened on, or the token or the certificate isn't there.
        """
        settings = node.settings
        if settings.http_port is None:
            raise ValueError("the node is to have no HTTP")
        self._socket = _listening(settings.http_host, settings.http_port)
        self.port: int = self._socket.getsockname()[1]
        self._ending = threading.Event()
        try:
            self._desk = Desk(settings, node.store, node.models)
            node.followers.append(self._desk.take)
            made = app(node, self._desk, ending=self._ending)
            tls = settings.http_tls
            self._server = uvicorn.Server(
                uvicorn.Config(
                    made,
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    lifespan="off",
                    ws="none",
                    http=_Impatient,
                    proxy_headers=settings.behind_proxy,
                    limit_concurrency=CONNECTIONS,
                    timeout_keep_alive=15,
                    timeout_graceful_shutdown=3,
                    ssl_certfile=None if tls is None else str(tls.certificate),
                    ssl_keyfile=None if tls is None else str(tls.key),
                    ssl_ca_certs=str(tls.authorities) if tls and tls.authorities else None,
                    ssl_cert_reqs=ssl.CERT_REQUIRED if tls and tls.authorities else ssl.CERT_NONE,
                )
            )
            logging.getLogger("uvicorn.access").disabled = True  # addresses of STOW-RS hold UIDs
            self._server.config.load()
        except (SettingsError, OSError) as error:
            self._socket.close()
            if isinstance(error, SettingsError):
                raise
            raise SettingsError(f"node.http_tls: certificate or key can't be used ({error})") from error
        self._thread = threading.Thread(target=self._serve, name="medmllm-http", daemon=True)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the status page."""
        return f"{'https' if self._server.config.is_ssl else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Answer, and read what is asked for."""
        self._desk.start()
        self._thread.start()

    def close(self) -> None:
        """Answer what was asked, cut what watches, and end."""
        self._ending.set()
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(CLOSED_S)
        self._socket.close()
        self._desk.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._socket]))


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"node.http_port: {host}:{port} can't be listened on ({error.strerror}); name another "
            "port, or see what listens there"
        ) from error
    return listening
