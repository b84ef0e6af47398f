"""Speaks the DICOM upper layer by hand, as a sender or a PACS that no library would be."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

ACCEPTED, REJECTED, ABORTED = 2, 3, 7
"""Kinds of PDU that answer an A-ASSOCIATE-RQ."""
_LAST_OF_DATA = 2
"""Message control header of the last part of a data set (PS3.8 E.2)."""


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


def acceptance(*, contexts: bytes | None = None, user: bytes | None = None) -> bytes:
    """An A-ASSOCIATE-AC; of context 1 in Explicit VR and PDUs of 16 KiB, unless told otherwise."""
    if contexts is None:
        contexts = item(0x21, b"\x01\0\0\0" + item(0x40, ExplicitVRLittleEndian.encode()))
    if user is None:
        user = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    body = b"\0\x01\0\0" + b"PACS".ljust(16) + b"HAND".ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + user
    return struct.pack(">BBI", ACCEPTED, 0, len(body)) + body


def response(
    *, to: int = 1, command: int = 0x8001, status: int | None = 0, dataset: bytes | None = None
) -> bytes:
    """The PDUs of a response, a C-STORE-RSP unless told otherwise, to the message of that ID."""
    body = element(0x0002, CTImageStorage.encode()) + element(0x0100, struct.pack("<H", command))
    body += element(0x0120, struct.pack("<H", to))
    body += element(0x0800, b"\x01\x01" if dataset is None else b"\0\0")
    body += b"" if status is None else element(0x0900, struct.pack("<H", status))
    said = pdus(element(0x0000, struct.pack("<I", len(body))) + body, 1, 1)
    return said if dataset is None else said + pdus(dataset, 0, 1)


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """A port that says one of these to who asks for an association and to each data set, and is released."""

    def speak(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        left = list(answers)
        with connection, suppress(OSError):
            while True:
                kind, _, length = struct.unpack(">BBI", exactly(connection, 6))
                content = exactly(connection, length)
                if left and (kind == 1 or (kind == 4 and content[5] == _LAST_OF_DATA)):
                    connection.sendall(left.pop(0))
                if kind == 5:
                    connection.sendall(struct.pack(">BBII", 6, 0, 4, 0))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        speaker = Thread(target=speak, args=(listening,), daemon=True)
        speaker.start()
        yield listening.getsockname()[1]
        speaker.join(10)
        assert not speaker.is_alive(), "a connection was left open"
