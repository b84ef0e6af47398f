"""DIMSE command sets as bytes, for the few commands that instances are sent with (PS3.7 6.3, E.1)."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
C_ECHO_RQ, C_ECHO_RSP = 0x0030, 0x8030
RESPONSE = 0x8000
"""Set in the Command Field (0000,0100) of responses."""

NO_DATA_SET = 0x0101
"""Command Data Set Type (0000,0800) of a command that no data set follows."""

_CLASS_UID, _FIELD, _MESSAGE_ID, _REPLY_TO, _DATA_SET, _STATUS, _INSTANCE_UID = (
    *(0x0002, 0x0100, 0x0110, 0x0120, 0x0800, 0x0900, 0x1000),
)
_UID = re.compile(rb"[0-9]+(?:\.[0-9]+)+")
_ELEMENT = struct.Struct("<HHI")


class Status(IntEnum):
    """What a sender is told of an instance (PS3.4 B.2.3, PS3.7 C)."""

    SUCCESS = 0x0000
    INVALID_INSTANCE_UID = 0x0117
    """Invalid SOP Instance: its UID is none."""
    NO_SUCH_CLASS = 0x0122
    """SOP class not supported: its UID is none."""
    UNRECOGNIZED = 0x0211
    """Unrecognized operation."""
    OUT_OF_RESOURCES = 0xA700
    """Refused: out of resources; to be sent again later."""
    NOT_UNDERSTOOD = 0xC000
    """Error: can't understand."""


class CommandError(ValueError):
    """Bytes that are no command set; the association is aborted."""


@dataclass(frozen=True, slots=True)
class Command:
    """A request, as far as it is needed to answer it."""

    field: int
    """Command Field (0000,0100)."""
    message_id: bytes
    """Message ID (0000,0110), two bytes as they came."""
    class_uid: bytes
    """Affected SOP Class UID (0000,0002), without padding."""
    instance_uid: bytes
    """Affected SOP Instance UID (0000,1000), without padding; empty if there is none."""
    has_data_set: bool

    @property
    def instance_uid_is_sound(self) -> bool:
        """Whether it is digits in groups, 64 characters at most; leading zeros, which some write, pass."""
        return _is_uid(self.instance_uid)

    @property
    def class_uid_is_sound(self) -> bool:
        """The same of its SOP class."""
        return _is_uid(self.class_uid)


def parse_command(content: bytes) -> Command:
    """The command of a command set, which is always Implicit VR Little Endian.

    Raises:
        CommandError: If it is none.
    """
    elements: dict[int, bytes] = {}
    at, end = 0, len(content)
    while at < end:
        if at + 8 > end:
            raise CommandError(f"a command set of {end} bytes ends within an element")
        group, element, length = _ELEMENT.unpack_from(content, at)
        at += 8
        if group != 0 or length > end - at:
            raise CommandError(f"found an element ({group:04x},{element:04x}) of {length} bytes in a command")
        elements[element] = content[at : at + length]
        at += length
    field, data_set = (_number(elements, one) for one in (_FIELD, _DATA_SET))
    message_id = elements.get(_MESSAGE_ID, b"")
    if field is None or len(message_id) != 2:
        raise CommandError("found a command set without Command Field or Message ID")
    return Command(
        field=field,
        message_id=message_id,
        class_uid=elements.get(_CLASS_UID, b"").rstrip(b"\0 "),
        instance_uid=elements.get(_INSTANCE_UID, b"").rstrip(b"\0 "),
        has_data_set=data_set not in (None, NO_DATA_SET),
    )


def response(command: Command, status: int) -> bytes:
    r"""The command set that answers a request.

    >>> echo = Command(C_ECHO_RQ, b"\x07\x00", b"1.2.840.10008.1.1", b"", False)
    >>> response(echo, Status.SUCCESS).endswith(b"\x00\x00\x00\x09\x02\x00\x00\x00\x00\x00")  # Status
    True
    """
    body = b"".join(
        (
            _element(_CLASS_UID, command.class_uid),
            _element(_FIELD, struct.pack("<H", command.field | RESPONSE)),
            _element(_REPLY_TO, command.message_id),
            _element(_DATA_SET, struct.pack("<H", NO_DATA_SET)),
            _element(_STATUS, struct.pack("<H", status)),
            _element(_INSTANCE_UID, command.instance_uid) if command.instance_uid else b"",
        )
    )
    return _element(0x0000, struct.pack("<I", len(body))) + body


def part10_head(*, class_uid: bytes, instance_uid: bytes, transfer_syntax: bytes, source_ae: bytes) -> bytes:
    """Preamble and File Meta Information (PS3.10 7.1) of an instance as it comes over the network."""
    body = b"".join(
        (
            b"\x02\x00\x01\x00OB\0\0\x02\0\0\0\x00\x01",
            _meta(0x0002, b"UI", class_uid),
            _meta(0x0003, b"UI", instance_uid),
            _meta(0x0010, b"UI", transfer_syntax),
            _meta(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _meta(0x0013, b"SH", IMPLEMENTATION_VERSION),
            _meta(0x0016, b"AE", source_ae),
        )
    )
    return bytes(128) + b"DICM" + _meta(0x0000, b"UL", struct.pack("<I", len(body))) + body


IMPLEMENTATION_CLASS_UID = b"2.25.189568015747511136033183375537277876882"
"""(0002,0012): ours, a random UUID (PS3.5 B.2)."""
IMPLEMENTATION_VERSION = b"MEDMLLM"


def _is_uid(value: bytes) -> bool:
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def _number(elements: Mapping[int, bytes], element: int) -> int | None:
    content = elements.get(element)
    return int.from_bytes(content, "little") if content is not None and len(content) == 2 else None


def _element(element: int, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0"
    return _ELEMENT.pack(0, element, len(value)) + value


def _meta(element: int, vr: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
