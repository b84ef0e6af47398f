"""The head of a PS3.10 file as bytes, for files that come whole over the web."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from medmllm_plugin.dicom_bridge.commands import part10_head
from medmllm_plugin.transforms.quiet import quiet

MOST_HEAD = 1 << 20
"""Bytes from the beginning within which a file must say its study."""

_PREAMBLE = 132
_SHORT, _LONG = struct.Struct("<HH2sH"), struct.Struct("<HH2s2xI")
_LONG_VRS = (b"OB", b"OW", b"UN", b"UT", b"OF", b"OD", b"OL", b"SQ", b"UC", b"UR", b"OV", b"SV", b"UV")
_CLASS, _INSTANCE, _SYNTAX = 0x0002, 0x0003, 0x0010
_STUDY = BaseTag(0x0020000D)
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")


class Part10Error(ValueError):
    """Bytes that are no such file, or don't say what they must."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What a file says of itself."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_uid: str
    data_set: int
    """Where its data set begins, bytes."""

    def rewritten(self, source_ae: str) -> bytes:
        """A head of ours that says the same: a stranger's may lack what ours always have."""
        return part10_head(
            class_uid=self.sop_class_uid.encode(),
            instance_uid=self.sop_instance_uid.encode(),
            transfer_syntax=self.transfer_syntax_uid.encode(),
            source_ae=source_ae.encode("ascii", "replace")[:16],
        )


def is_uid(text: str) -> bool:
    """Whether a text is digits in groups, 64 characters at most; leading zeros, which some write, pass.

    >>> is_uid("1.2.840.10008.1.1"), is_uid("../../1.2")
    (True, False)
    """
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def read_head(content: bytes) -> Head:
    """The head of a file.

    Args:
        content: Its first bytes, `MOST_HEAD` of them or all.

    Raises:
        Part10Error: If it is no DICOM file, or lacks one of these UIDs.
    """
    if content[128:_PREAMBLE] != b"DICM":
        raise Part10Error("found no DICOM file (PS3.10), expected DICM behind 128 bytes")
    values: dict[int, str] = {}
    at = _PREAMBLE
    while content[at : at + 2] == b"\x02\x00":
        if len(content) < at + 12:
            raise Part10Error("found file meta information cut short")
        _, element, vr, length = _SHORT.unpack_from(content, at)
        at += _SHORT.size
        if vr in _LONG_VRS:
            *_, length = _LONG.unpack_from(content, at - _SHORT.size)
            at += _LONG.size - _SHORT.size
        values[element] = content[at : at + length].rstrip(b"\0 ").decode("ascii", "replace")
        at += length
    for name, element in (("class", _CLASS), ("instance", _INSTANCE), ("transfer syntax", _SYNTAX)):
        if not is_uid(values.get(element, "")):
            raise Part10Error(f"found no sound {name} UID in the file meta information, expected one")
    return Head(
        sop_class_uid=values[_CLASS],
        sop_instance_uid=values[_INSTANCE],
        transfer_syntax_uid=values[_SYNTAX],
        study_uid=_study(content),
        data_set=at,
    )


def _study(content: bytes) -> str:
    try:
        with quiet():
            header = read_partial(
                io.BytesIO(content), stop_when=lambda tag, *_: tag > _STUDY, specific_tags=[_STUDY]
            )
            uid = str(header.get("StudyInstanceUID") or "")
    except Exception as error:  # a stranger's bytes: whatever pydicom says of them
        raise Part10Error(f"found a data set that can't be read ({type(error).__name__})") from error
    if not is_uid(uid):
        raise Part10Error("found no sound Study Instance UID (0020,000D), expected one")
    return uid
