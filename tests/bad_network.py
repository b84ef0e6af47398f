"""A network between two ports of this machine that cuts connections and is slow, as it is told."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_CHUNK = 4096
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: what is closed is cut, and the other side hears of it as a reset."""


class BadNetwork:
    """What comes to `port` goes on to `target` and back."""

    def __init__(
        self,
        target: int,
        *,
        cut_after: Callable[[], int | None] = lambda: None,
        bytes_per_s: float | None = None,
    ) -> None:
        """Begin to listen.

        Args:
            target: The port behind it.
            cut_after: Asked for each connection: after how many bytes it is cut; None for never.
            bytes_per_s: How fast a client's bytes go through; None for at once.
        """
        self._target, self._cut_after, self._bytes_per_s = target, cut_after, bytes_per_s
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._socket.getsockname()[1]
        self.cuts = 0
        """Connections that were cut."""
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Take no more connections; those there are go on."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._threads[0].join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _cut(client)
                client.close()
                continue
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            arguments = (client, server, self._cut_after())
            threading.Thread(target=self._serve, args=arguments, daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket, cut_after: int | None) -> None:
        """Pass on what comes, both ways, until both have ended or it was cut."""
        back = threading.Thread(target=_pump, args=(server, client), daemon=True)
        back.start()
        try:
            self._forward(client, server, cut_after)
        except OSError:
            _cut(client, server)
        back.join()
        for one in (client, server):
            one.close()

    def _forward(self, client: socket.socket, server: socket.socket, cut_after: int | None) -> None:
        done = 0
        while part := client.recv(_CHUNK):
            if cut_after is not None and done + len(part) > cut_after:
                server.sendall(part[: cut_after - done])
                self.cuts += 1
                _cut(client, server)
                return
            if self._bytes_per_s is not None:
                time.sleep(len(part) / self._bytes_per_s)
            server.sendall(part)
            done += len(part)
        server.shutdown(socket.SHUT_WR)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while part := source.recv(_CHUNK):
            sink.sendall(part)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        _cut(source, sink)


@contextmanager
def bad_network(target: int, **manner: object) -> Iterator[BadNetwork]:
    """One that is there as long as it is needed; `manner` as `BadNetwork` takes it."""
    network = BadNetwork(target, **manner)  # type: ignore[arg-type]
    try:
        yield network
    finally:
        network.close()


def _cut(*connections: socket.socket) -> None:
    """Reset connections; who serves them closes them."""
    for one in connections:
        with suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.shutdown(socket.SHUT_RDWR)
