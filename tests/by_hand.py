"""Speaks the DICOM upper layer by hand, as a sender that no library would be."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

ACCEPTED, REJECTED, ABORTED = 2, 3, 7
"""Kinds of PDU that answer an A-ASSOCIATE-RQ."""


def connected(port: int, *, address: str = "127.0.0.1") -> socket.socket:
    """A connection to a port of this machine, from one of its addresses."""
    connection = socket.create_connection(("127.0.0.1", port), source_address=(address, 0), timeout=5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def item(kind: int, content: bytes) -> bytes:
    """An item of a request."""
    return struct.pack(">BBH", kind, 0, len(content)) + content


def context(number: int, *, abstract: str | None, transfer: str | None = ExplicitVRLittleEndian) -> bytes:
    """A presentation context; None leaves a syntax out, which no sender may."""
    content = struct.pack(">BBBB", number, 0, 0, 0)
    for kind, uid in ((0x30, abstract), (0x40, transfer)):
        content += b"" if uid is None else item(kind, uid.encode())
    return item(0x20, content)


def request(
    *,
    calling: str = "HAND",
    called: str = "MEDMLLM",
    wanted: Sequence[str] = (CTImageStorage,),
    more: bytes = b"",
    about: str | None = "1.2.840.10008.3.1.1.1",
) -> bytes:
    """An A-ASSOCIATE-RQ; contexts are 1, 3, 5 and so on, then `more`; `about` is the application context."""
    contexts = b"".join(context(2 * number + 1, abstract=uid) for number, uid in enumerate(wanted)) + more
    user = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    body = b"\0\x01\0\0" + called.encode().ljust(16) + calling.encode().ljust(16) + bytes(32)
    body += (b"" if about is None else item(0x10, about.encode())) + contexts + user
    return struct.pack(">BBI", 1, 0, len(body)) + body


def asked(connection: socket.socket, said: bytes) -> int | None:
    """The kind of PDU that answers a request for an association; None if the other side leaves."""
    connection.sendall(said)
    try:
        kind, _, length = struct.unpack(">BBI", exactly(connection, 6))
        exactly(connection, length)
    except (ConnectionError, TimeoutError):
        return None
    return int(kind)


def exactly(connection: socket.socket, count: int) -> bytes:
    """So many bytes."""
    content = b""
    while len(content) < count:
        part = connection.recv(count - len(content))
        if not part:
            raise ConnectionError("the connection was closed")
        content += part
    return content


def element(number: int, value: bytes) -> bytes:
    """An element (0000,number) of a command set."""
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, number, len(value)) + value


def c_store(
    uid: bytes,
    dataset: bytes,
    *,
    class_uid: bytes = CTImageStorage.encode(),
    command_pieces: int = 1,
    data_pieces: int = 1,
) -> bytes:
    """The PDUs of a C-STORE-RQ on context 1."""
    body = element(0x0002, class_uid) + element(0x0100, b"\x01\0") + element(0x0110, b"\x07\0")
    body += element(0x0700, b"\0\0") + element(0x0800, b"\0\0") + element(0x1000, uid)
    command = element(0x0000, struct.pack("<I", len(body))) + body
    return pdus(command, 1, command_pieces) + pdus(dataset, 0, data_pieces)


def pdus(content: bytes, control: int, pieces: int) -> bytes:
    """P-DATA-TF PDUs of a command (control 1) or a data set (0) on context 1."""
    size = max(1, -(-len(content) // pieces))
    parts = [content[at : at + size] for at in range(0, len(content), size)] or [b""]
    written = b""
    for number, part in enumerate(parts):
        last = 2 if number == len(parts) - 1 else 0
        written += struct.pack(">BBIIBB", 4, 0, len(part) + 6, len(part) + 2, 1, control | last) + part
    return written


def status_of(connection: socket.socket) -> int:
    """The status of a C-STORE-RSP."""
    _, _, length = struct.unpack(">BBI", exactly(connection, 6))
    content = exactly(connection, length)[6:]
    at = content.index(struct.pack("<HHI", 0, 0x0900, 2))
    return int(struct.unpack_from("<H", content, at + 8)[0])
