"""The port on which instances come: a quick way for those who only send, pynetdicom for everybody else.

What an association is about is seen by peeking at its first PDU, which stays in the socket. Storage and
verification are answered here (`receiving`); storage commitment and whatever else go to pynetdicom, as does
all TLS, which has a port of its own.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from medmllm_plugin.dicom_bridge.negotiation import (
    LOCAL_LIMIT_EXCEEDED,
    Admission,
    agree,
    is_plain,
    not_dicom,
    read_request,
    rejection,
    titled,
)
from medmllm_plugin.dicom_bridge.receiving import AbortError, Limits, Receiver
from medmllm_plugin.dicom_bridge.segments import Record
from medmllm_plugin.dicom_bridge.spool import Spool
from medmllm_plugin.errors import SettingsError

log = logging.getLogger(__name__)

PEEKED = 48 << 10
"""Bytes of an A-ASSOCIATE-RQ that surely fit into a socket's buffer; a longer one goes to pynetdicom."""

LONGEST_REQUEST = 1 << 20
"""Bytes of an A-ASSOCIATE-RQ; with 128 contexts of 60 transfer syntaxes each it has some 250,000."""

GIVES_WAY_S = 10.0
"""Where there are as many associations as there may be, one on which nothing came for so long makes room."""
GIVES_WAY_TO_OTHERS_S = 1.0
"""The same of the address that has the most of them, for somebody from another."""

_REQUEST = 1
_ABORT_HEAD = b"\x07\0\0\0\0\x04\0\0"

HandOver = Callable[[socket.socket, tuple[str, int]], None]
"""Takes over a connection nothing was read from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """Where and how to listen."""

    host: str = "127.0.0.1"
    port: int = 11112
    """0 for any that is free."""
    associations: int = 64
    """Most at a time."""
    request_s: float = 30.0
    """How long a sender may take to say what it wants (the ARTIM timer, PS3.8 9.1.5)."""
    limits: Limits = field(default_factory=Limits)


@dataclass(kw_only=True, slots=True, eq=False)
class _Connection:
    """Somebody who connected."""

    socket: socket.socket
    address: str
    since: float
    """By a clock that never jumps, seconds."""
    agreed: bool = False
    """Whether it has an association, or is about to."""
    receiver: Receiver | None = None
    leaving: bool = False
    """Whether it was sent away, and so counts no more."""

    @property
    def heard(self) -> float:
        """When something came last."""
        return self.since if self.receiver is None else self.receiver.heard

    def send_away(self) -> None:
        """Cut it; its thread will find that out."""
        self.leaving = True
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Listener:
    """Listens until it is closed.

    Who connects and says nothing, or has an association and is idle, takes nobody's place for long: when
    there are as many as there may be, it makes room for who comes.
    """

    def __init__(
        self,
        port: Port,
        admission: Admission,
        spool: Spool,
        *,
        received: Callable[[Record], None],
        admit: Callable[[], bool] = lambda: True,
        hand_over: HandOver | None = None,
        ended: Callable[[str, int], None] | None = None,
    ) -> None:
        """Begin to listen.

        Args:
            port: Where and how.
            admission: Who may connect.
            spool: Where instances are kept.
            received: Told of each instance once it is durable.
            admit: Whether instances are taken now.
            hand_over: Takes associations that are about more than storage; None refuses them.
            ended: Told of the calling AE and the number of instances when an association was released.

        Raises:
            SettingsError: If the port can't be listened on.
        """
        self._port, self._spool = port, spool
        self.admission = admission
        """Who may connect from now on."""
        self._received, self._admit, self._hand_over, self._ended = received, admit, hand_over, ended
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[socket.socket, _Connection] = {}
        self._threads: set[threading.Thread] = set()
        family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((port.host, port.port))
            self._socket.listen(128)
        except OSError as error:
            self._socket.close()
            raise SettingsError(
                f"{port.host}:{port.port}: can't be listened on ({error.strerror}); name another port, or "
                "see what listens there"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name="medmllm-listener", daemon=True)
        self._accepting.start()

    @property
    def associations(self) -> int:
        """How many there are now."""
        with self._lock:
            return len(self._here(agreed=True))

    def close(self, *, grace_s: float = 5.0) -> None:
        """Take no new association, let those there are end, and cut what is left after `grace_s`."""
        self._closing.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._accepting.join()
        until = time.monotonic() + grace_s
        for thread in self._all_threads():
            thread.join(max(0.0, until - time.monotonic()))
        with self._lock:
            left = list(self._connections)
        for connection in left:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._all_threads():
            thread.join(grace_s + 1)

    def _all_threads(self) -> list[threading.Thread]:
        with self._lock:
            return list(self._threads)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, address = self._socket.accept()
            except OSError as error:
                if not self._closing.is_set():
                    log.error("no connection can be taken: %s", error.strerror)
                    self._closing.wait(0.2)
                continue
            thread = threading.Thread(
                target=self._serve, args=(connection, address[:2]), name="medmllm-association", daemon=True
            )
            if self._has_room(connection, address[0]):
                with self._lock:
                    self._threads.add(thread)
                thread.start()
            else:
                connection.close()

    def _here(self, *, agreed: bool) -> list[_Connection]:
        """Those with an association, or those who haven't said what they want; the lock is held."""
        return [one for one in self._connections.values() if one.agreed is agreed and not one.leaving]

    def _has_room(self, connection: socket.socket, address: str) -> bool:
        """Whether one more may connect; one that has said nothing yet leaves for it."""
        with self._lock:
            silent = self._here(agreed=False)
            if len(silent) + len(self._here(agreed=True)) >= 2 * self._port.associations:
                if not silent:
                    return False
                _first_to_go(silent).send_away()
            new = _Connection(socket=connection, address=address, since=time.monotonic())
            self._connections[connection] = new
            return True

    def _has_turn(self, connection: socket.socket) -> bool:
        """Whether one more may have an association; one that is idle leaves for it."""
        with self._lock:
            new, others = self._connections[connection], self._here(agreed=True)
            if len(others) >= self._port.associations:
                first = _first_to_go(others)
                least = GIVES_WAY_S if first.address == new.address else GIVES_WAY_TO_OTHERS_S
                if time.monotonic() - first.heard < least:
                    return False
                first.send_away()
            new.agreed = True
            return True

    def _serve(self, connection: socket.socket, address: tuple[str, int]) -> None:
        kept = False
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kept = self._answer(connection, address)
        except AbortError as error:
            log.info("an association was aborted: %s", error)
            _abort(connection, error)
        except (OSError, ValueError) as error:
            log.info("an association never began: %s", error)
        except Exception:
            log.exception("a defect of ours ended an association")
        finally:
            if not kept:
                connection.close()
            with self._lock:
                self._connections.pop(connection, None)
                self._threads.discard(threading.current_thread())

    def _answer(self, connection: socket.socket, address: tuple[str, int]) -> bool:
        """Serve a connection; True if somebody else has it now."""
        if not self.admission.knows(address[0]):
            return False
        length = self._peeked(connection)
        if length > LONGEST_REQUEST:
            raise ValueError(f"found an A-ASSOCIATE-RQ of {length} bytes")
        if length > PEEKED:
            return self._handed_over(connection, address)
        request = read_request(connection.recv(length, socket.MSG_PEEK))
        calling, called = titled(request.calling_ae_title), titled(request.called_ae_title)
        refusal = not_dicom(request) or self.admission.refused(
            calling=calling, called=called, address=address[0]
        )
        if refusal is None and not is_plain(request) and self._hand_over is not None:
            return self._handed_over(connection, address)
        if refusal is None and not self._has_turn(connection):
            refusal = LOCAL_LIMIT_EXCEEDED
        _read_exactly(connection, length)
        if refusal is not None:
            connection.sendall(rejection(refusal))
            return False
        agreed = agree(request)
        connection.sendall(agreed.answer)
        receiver = Receiver(
            connection,
            agreed,
            self._spool,
            limits=self._port.limits,
            admit=self._admit,
            received=self._received,
        )
        with self._lock:
            self._connections[connection].receiver = receiver
        receiver.serve()
        if self._ended is not None:
            self._ended(agreed.calling, receiver.instances)
        return False

    def _handed_over(self, connection: socket.socket, address: tuple[str, int]) -> bool:
        if self._hand_over is None:
            raise ValueError("found an A-ASSOCIATE-RQ too long to be looked at")
        connection.settimeout(None)
        self._hand_over(connection, address)
        return True

    def _peeked(self, connection: socket.socket) -> int:
        """Bytes of the first PDU, once it is all there, or more than can be peeked at.

        Raises:
            ValueError: If it is no A-ASSOCIATE-RQ.
            OSError: If it doesn't come in time.
        """
        until = time.monotonic() + self._port.request_s
        pause = 0.0005
        while True:
            left = until - time.monotonic()
            if left <= 0 or self._closing.is_set():
                raise TimeoutError("no A-ASSOCIATE-RQ came in time")
            connection.settimeout(left)
            seen = connection.recv(PEEKED, socket.MSG_PEEK)
            if not seen:
                raise ConnectionError("the connection was closed")
            if seen[0] != _REQUEST:
                raise ValueError(f"found a PDU of the type {seen[0]:#04x} where an association begins")
            if len(seen) >= 6:
                length = 6 + int.from_bytes(seen[2:6], "big")
                if length > PEEKED or len(seen) >= length:
                    return length
            if _has_left(connection):
                raise ConnectionError("the connection was closed")
            time.sleep(pause)  # a peek returns at once, whether or not more has come
            pause = min(2 * pause, 0.05)


def _first_to_go(connections: list[_Connection]) -> _Connection:
    """Of the address that has the most of these, the one on which nothing came for longest."""
    counts = Counter(one.address for one in connections)
    return min(connections, key=lambda one: (-counts[one.address], one.heard))


def _has_left(connection: socket.socket) -> bool:
    """Whether the other side will send nothing more, where the system tells; a peek doesn't."""
    asked = select.poll()
    asked.register(connection, getattr(select, "POLLRDHUP", 0))
    return bool(asked.poll(0))


def _read_exactly(connection: socket.socket, count: int) -> None:
    while count:
        part = connection.recv(count)
        if not part:
            raise ConnectionError("the connection was closed")
        count -= len(part)


def _abort(connection: socket.socket, error: AbortError) -> None:
    if error.reason is None:
        return
    with suppress(OSError):
        connection.settimeout(1.0)
        connection.sendall(_ABORT_HEAD + bytes((2, error.reason)))
