"""A sender that costs next to nothing: instances lie in memory as PDUs before the clock starts.

Run as a module it is one process: `python -m benchmarks.sender PORT PATH...`. It associates, says `ready`,
waits for a line, sends one instance after the other, each when the one before was answered, as C-STORE does,
and says how many were answered with Success.
"""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

CONTEXT = 1
LONGEST = 131_072
"""Bytes of a PDU sent to a receiver that takes any."""


def associate(port: int) -> tuple[socket.socket, int]:
    """A connection on which CT images can be sent, and the longest PDU that is taken."""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "SENDER", "ANY"
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16_384
    implementation.implementation_class_uid = "2.25.1"
    request.user_information = [length, implementation]
    context = build_context(CTImageStorage, ExplicitVRLittleEndian)
    context.context_id = CONTEXT
    request.presentation_context_definition_list = [context]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(pdu.encode())
    answer = A_ASSOCIATE_AC()
    answer.decode(received(connection))
    most = answer.to_primitive().maximum_length_received or LONGEST
    return connection, min(int(most), LONGEST)


def messages(paths: list[Path], most: int) -> list[list[bytes]]:
    """The PDUs of each file's C-STORE request."""
    return [_message(path, number, most) for number, path in enumerate(paths, 1)]


def send(connection: socket.socket, requests: list[list[bytes]]) -> int:
    """Send them, each when the one before was answered; how many were answered with Success."""
    taken = 0
    for pdus in requests:
        for pdu in pdus:
            connection.sendall(pdu)
        answer = received(connection)
        status = answer[answer.index(b"\x00\x00\x00\x09\x02\x00\x00\x00") + 8 :][:2]
        taken += status == b"\0\0"
    connection.sendall(b"\x05\0\0\0\0\x04\0\0\0\0")
    received(connection)
    return taken


def received(connection: socket.socket) -> bytes:
    """One PDU."""
    content = b""
    while len(content) < 6 or len(content) < 6 + int.from_bytes(content[2:6], "big"):
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("the receiver closed the connection")
        content += part
    return content


def _message(path: Path, number: int, most: int) -> list[bytes]:
    content = path.read_bytes()
    begins = 144 + int.from_bytes(content[140:144], "little")
    instance = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID).encode()
    body = b"".join(
        (
            _element(0x0002, str(CTImageStorage).encode()),
            _element(0x0100, struct.pack("<H", 1)),
            _element(0x0110, struct.pack("<H", number)),
            _element(0x0700, struct.pack("<H", 0)),
            _element(0x0800, struct.pack("<H", 1)),
            _element(0x1000, instance),
        )
    )
    command = _element(0x0000, struct.pack("<I", len(body))) + body
    data, step = memoryview(content)[begins:], most - 6
    pdus = [_pdu(command, 3)]
    pdus += [
        _pdu(bytes(data[at : at + step]), 2 * (at + step >= len(data))) for at in range(0, len(data), step)
    ]
    return [pdus[0] + pdus[1], *pdus[2:]]


def _element(element: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, element, len(value)) + value


def _pdu(value: bytes, control: int) -> bytes:
    return struct.pack(">BBIIBB", 4, 0, len(value) + 6, len(value) + 2, CONTEXT, control) + value


def main() -> None:
    """Be one sender."""
    connection, most = associate(int(sys.argv[1]))
    requests = messages(list(map(Path, sys.argv[2:])), most)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(f"{send(connection, requests)}\n")


if __name__ == "__main__":
    main()
