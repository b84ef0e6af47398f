"""One association on which instances come: bytes from the socket to the spool, touched as little as can be.

pynetdicom would make objects of every PDU and data sets of every command; its ceiling is a fifth of what the
disk takes. Here commands are read as bytes, data go on as they come, and only what is durable is answered
with Success.
"""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from medmllm_plugin.dicom_bridge.commands import (
    C_ECHO_RQ,
    C_STORE_RQ,
    Command,
    CommandError,
    Status,
    parse_command,
    part10_head,
    response,
)
from medmllm_plugin.dicom_bridge.negotiation import Agreed
from medmllm_plugin.dicom_bridge.segments import Facts, Record
from medmllm_plugin.dicom_bridge.spool import Incoming, Spool
from medmllm_plugin.errors import OutputError

log = logging.getLogger(__name__)

BUFFER = 1 << 20
"""Bytes of a receive buffer; holds the largest PDU that we take."""

MOST_COMMAND = 1 << 16
"""Bytes of a command set; a C-STORE-RQ has some 300."""

_P_DATA, _RELEASE_RQ, _ABORT = 4, 5, 7
_RELEASE_RP = b"\x06\0\0\0\0\x04\0\0\0\0"
_PDV = struct.Struct(">IBB")
_RESPONSE = struct.Struct(">BBIIBB")
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class AbortError(Exception):
    """The association can't go on: `reason` as PS3.8 9.3.8 numbers it, 0 if the other side is gone."""

    def __init__(self, message: str, *, reason: int | None = 0) -> None:
        self.reason = reason
        super().__init__(message)


_UNEXPECTED_PDU, _INVALID_PARAMETER = 2, 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a sender may ask of us."""

    idle_s: float = 60.0
    """How long nothing may come."""
    pdu_s: float = 60.0
    """How long one PDU may take to come."""
    instance_bytes: int = 4 << 30
    """Largest instance."""


class Receiver:
    """Answers one association until it ends."""

    def __init__(
        self,
        connection: socket.socket,
        agreed: Agreed,
        spool: Spool,
        *,
        limits: Limits,
        admit: Callable[[], bool],
        received: Callable[[Record], None],
    ) -> None:
        """Take over a connection whose association was agreed on and answered.

        Args:
            connection: The caller closes it.
            agreed: What was agreed on.
            spool: Where instances are kept.
            limits: What the sender may ask of us.
            admit: Whether instances are taken now; False tells the sender that we are out of resources.
            received: Told of each instance after it is durable and before the sender knows.
        """
        self._socket = connection
        self._agreed = agreed
        self._spool = spool
        self._limits = limits
        self._admit = admit
        self._received = received
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._read = self._filled = 0
        self._incoming: Incoming | None = None
        self._command: Command | None = None
        self._said = b""
        self._refusal = Status.SUCCESS
        self.instances = 0
        """Acknowledged so far."""
        self.heard = time.monotonic()
        """When something came last, by a clock that never jumps."""

    def serve(self) -> None:
        """Answer until the sender releases the association.

        Raises:
            AbortError: If it ends in another way. What was acknowledged is kept.
        """
        try:
            self._socket.settimeout(self._limits.idle_s)
            while self._pdu():
                pass
        except TimeoutError as error:
            raise AbortError("nothing came for too long") from error
        except OSError as error:
            raise AbortError(f"the connection broke ({error.strerror})", reason=None) from error
        finally:
            if self._incoming is not None:
                self._incoming.abandon()
                self._incoming = None

    def _pdu(self) -> bool:
        """Answer one PDU; False if it was the last."""
        self._need(6)
        kind, length = self._buffer[self._read], self._uint(self._read + 2)
        self._read += 6
        if kind == _P_DATA:
            self._data(length)
            return True
        if kind == _RELEASE_RQ:
            self._socket.sendall(_RELEASE_RP)
            return False
        if kind == _ABORT:
            raise AbortError("the sender aborted", reason=None)
        raise AbortError(f"found a PDU of the type {kind:#04x}", reason=_UNEXPECTED_PDU)

    def _data(self, left: int) -> None:
        """The presentation data values of a P-DATA-TF PDU."""
        until = time.monotonic() + self._limits.pdu_s
        while left:
            if left < 6:
                raise AbortError("found half a presentation data value", reason=_INVALID_PARAMETER)
            self._need(6, until)
            length, context, control = _PDV.unpack_from(self._buffer, self._read)
            self._read += 6
            left -= length + 4
            rest = length - 2
            if rest < 0 or left < 0:
                raise AbortError(
                    "found a presentation data value longer than its PDU", reason=_INVALID_PARAMETER
                )
            if control & 1:
                self._command_part(rest, context, last=bool(control & 2), until=until)
            else:
                self._data_part(rest, context, last=bool(control & 2), until=until)

    def _command_part(self, length: int, context: int, *, last: bool, until: float) -> None:
        if self._command is not None:
            raise AbortError("found a command before the data set of another", reason=_UNEXPECTED_PDU)
        if len(self._said) + length > MOST_COMMAND:
            raise AbortError(f"found a command of more than {MOST_COMMAND} bytes", reason=_INVALID_PARAMETER)
        self._need(length, until)
        self._said += self._view[self._read : self._read + length]
        self._read += length
        if last:
            said, self._said = self._said, b""
            try:
                self._begin(parse_command(said), context)
            except CommandError as error:
                raise AbortError(str(error), reason=_INVALID_PARAMETER) from error

    def _begin(self, command: Command, context: int) -> None:
        syntax = self._agreed.contexts.get(context)
        if syntax is None:
            raise AbortError(
                f"found the presentation context {context}, never agreed on", reason=_INVALID_PARAMETER
            )
        if command.field == C_ECHO_RQ:
            self._answer(command, context, Status.SUCCESS)
            return
        if command.field != C_STORE_RQ:
            self._refusal = Status.UNRECOGNIZED
        elif not command.instance_uid_is_sound:
            self._refusal = Status.INVALID_INSTANCE_UID
        elif not command.class_uid_is_sound:
            self._refusal = Status.NO_SUCH_CLASS
        elif not command.has_data_set:
            self._refusal = Status.NOT_UNDERSTOOD
        elif not self._admit():
            self._refusal = Status.OUT_OF_RESOURCES
        else:
            self._refusal = Status.SUCCESS
            self._incoming = self._spool.incoming(*self._beginning(command, syntax))
        if command.has_data_set:
            self._command = command
        else:
            self._answer(command, context, self._refusal)

    def _beginning(self, command: Command, syntax: bytes) -> tuple[Facts, bytes]:
        calling = self._agreed.calling
        head = part10_head(
            class_uid=command.class_uid,
            instance_uid=command.instance_uid,
            transfer_syntax=syntax,
            source_ae=calling.encode("ascii", "replace"),
        )
        facts = Facts(
            sop_class_uid=command.class_uid.decode("ascii"),
            sop_instance_uid=command.instance_uid.decode("ascii"),
            transfer_syntax_uid=syntax.decode(),
            calling_ae=calling,
            called_ae=self._agreed.called,
            received=time.time(),
        )
        return facts, head

    def _data_part(self, length: int, context: int, *, last: bool, until: float) -> None:
        if self._command is None:
            raise AbortError("found a data set without a command", reason=_UNEXPECTED_PDU)
        while length:
            if self._filled == self._read:
                self._need(1, until)
            count = min(length, self._filled - self._read)
            self._take(self._view[self._read : self._read + count])
            self._read += count
            length -= count
        if last:
            command, self._command = self._command, None
            self._answer(command, context, self._kept())

    def _take(self, part: memoryview) -> None:
        """Add to the instance that is coming; one that can't be kept is read to its end all the same."""
        if self._incoming is None:
            return
        try:
            if self._incoming.length + len(part) > self._limits.instance_bytes:
                raise OutputError(f"found an instance of more than {self._limits.instance_bytes} bytes")
            self._incoming.write(part)
        except OutputError as error:
            log.error("an instance was refused: %s", error)
            self._incoming.abandon()
            self._incoming, self._refusal = None, Status.OUT_OF_RESOURCES

    def _kept(self) -> Status:
        """Make the instance that has come durable; what to answer."""
        if self._incoming is None:
            return self._refusal
        incoming, self._incoming = self._incoming, None
        try:
            self._received(incoming.commit())
        except OutputError as error:
            log.error("an instance was refused: %s", error)
            return Status.OUT_OF_RESOURCES
        self.instances += 1
        return Status.SUCCESS

    def _answer(self, command: Command, context: int, status: Status) -> None:
        body = response(command, status)
        self._socket.sendall(_RESPONSE.pack(_P_DATA, 0, len(body) + 6, len(body) + 2, context, 3) + body)

    def _uint(self, at: int) -> int:
        return int.from_bytes(self._view[at : at + 4], "big")

    def _need(self, count: int, until: float | None = None) -> None:
        """Have so many bytes in the buffer, behind those that were read."""
        while self._filled - self._read < count:
            if self._read == self._filled:
                self._read = self._filled = 0
            elif BUFFER - self._read < count:
                left = self._filled - self._read
                self._view[:left] = bytes(self._view[self._read : self._filled])
                self._read, self._filled = 0, left
            got = self._socket.recv_into(self._view[self._filled :])
            if _QUICKACK is not None:
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            if not got:
                raise AbortError("the sender closed the connection", reason=None)
            self._filled += got
            self.heard = time.monotonic()
            if until is not None and self.heard > until:
                raise AbortError("a PDU took too long to come", reason=_UNEXPECTED_PDU)
