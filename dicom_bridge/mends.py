"""What pynetdicom 3.0 does with hostile or hurried peers, mended where it can't be asked to do otherwise.

`mend` is called where pynetdicom is used. Each mend is a method in place of theirs, and each has its test.
"""

from __future__ import annotations

import errno
import logging
import socket
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, Protocol

from pynetdicom import timer
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.transport import AssociationSocket

log = logging.getLogger(__name__)

LONGEST_PDU = 1 << 20
"""Bytes of a PDU. For data we announce less; an association request may be longer than that."""
PDU_S = 60.0
"""How long one PDU may take to come."""
LONGEST_COMMAND = 1 << 16
"""Bytes of a command set."""

_RECEIVED_AT_ONCE = 1 << 16
_BROKEN = "Evt19"
"""What PS3.8 9.2 calls an unrecognised or invalid PDU: the association is aborted."""


class _Message(Protocol):
    encoded_command_set: Any
    data_set: Any


def limit(ae: ApplicationEntity, *, instance_bytes: int) -> None:
    """Have the associations of an AE aborted on which a larger data set comes; it would be held in memory."""
    ae.medmllm_instance_bytes = instance_bytes


def mend() -> None:
    """Put our methods in place of theirs; once is enough.

    Their timers, too, go by a clock that never jumps.
    """
    Association.run_reactor = _associate
    AssociationSocket._shutdown_socket = _close
    AssociationSocket.recv = _receive
    DIMSEServiceProvider.get_msg = _get_message
    DIMSEServiceProvider.receive_primitive = _take
    DULServiceProvider.run_reactor = _run
    timer.time = SimpleNamespace(time=time.monotonic)


_their_associate = Association.run_reactor


def _associate(self: Association) -> None:
    """Serve an association, and let go of the connection where what was asked for can't be agreed on.

    Theirs ends its thread by whatever exception the request causes, such as for a presentation context that
    names no abstract syntax, and leaves the connection open, with a second thread, as long as the other side
    likes.
    """
    try:
        _their_associate(self)
    except Exception as error:
        log.info("an association never began or broke off (%s)", type(error).__name__)
        self.dul._kill_thread = True  # it closes the connection


def _close(self: AssociationSocket) -> None:
    """Close a socket also where there is no connection to shut down, which they leave open."""
    connection = self.socket
    if connection is not None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def _receive(self: AssociationSocket, nr_bytes: int) -> bytearray:
    """So many bytes, or fewer if the other side closes; no more than a PDU may have, nor for ever.

    Theirs takes as many as the other side says that it will send, up to 4 GiB, however slowly.
    """
    if nr_bytes > LONGEST_PDU:
        raise OSError(errno.EMSGSIZE, f"found a PDU of {nr_bytes} bytes, expected {LONGEST_PDU} at most")
    received = bytearray()
    until = time.monotonic() + PDU_S
    while len(received) < nr_bytes:
        part = self.socket.recv(min(_RECEIVED_AT_ONCE, nr_bytes - len(received)))
        if not part:
            break
        received += part
        if time.monotonic() > until:
            raise TimeoutError("a PDU took too long to come")
    return received


_their_get = DIMSEServiceProvider.get_msg


def _get_message(self: DIMSEServiceProvider, block: bool = False) -> tuple[int | None, Any]:
    """Leave answers to who asked.

    An association's own thread looks for what the other side asks, without waiting. It is paused while we
    wait for an answer, but on a busy machine it may look once more after it was told to pause. It would throw
    the answer away, and we would wait until the association times out.
    """
    if not block:
        with self.msg_queue.mutex:
            _, first = self.msg_queue.queue[0] if self.msg_queue.queue else (None, None)
        if getattr(first, "MessageIDBeingRespondedTo", None) is not None:
            return None, None
    found: tuple[int | None, Any] = _their_get(self, block)
    return found


_their_take = DIMSEServiceProvider.receive_primitive


def _take(self: DIMSEServiceProvider, primitive: Any) -> None:
    """Part of a message: one that is none, or too large to be held, ends the association and nothing else.

    Theirs ends the thread by whatever exception the bytes cause, and holds what comes however much it is.
    """
    try:
        _their_take(self, primitive)
    except Exception as error:
        log.info("an association is aborted: found no DIMSE message (%s)", type(error).__name__)
        self.dul.event_queue.put(_BROKEN)
        return
    message: _Message | None = self.message
    if message is None:
        return
    most = getattr(self.assoc.ae, "medmllm_instance_bytes", None)
    command, data = message.encoded_command_set.tell(), message.data_set.tell()
    if command > LONGEST_COMMAND or (most is not None and data > most):
        log.info("an association is aborted: found a command of %d bytes with %d of data", command, data)
        self.message = None
        self.dul.event_queue.put(_BROKEN)


_their_run = DULServiceProvider.run_reactor


def _run(self: DULServiceProvider) -> None:
    """Serve a connection to its end, and close it then, whatever ended it.

    Theirs leaves it open after a message that can't come in the state that it is in, and who waits for it to
    connect, or for what comes next, waits on.
    """
    try:
        _their_run(self)
    except Exception as error:
        log.info("an association broke off (%s)", type(error).__name__)
        self.assoc._kill = True
    finally:
        if self.socket is not None:
            self.socket._shutdown_socket()
            self.socket._ready.set()
        self.to_user_queue.put(None)
        self.assoc.dimse.msg_queue.put((None, None))
