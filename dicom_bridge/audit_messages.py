"""Audit messages as hospitals collect them: XML of DICOM PS3.15 A.5 in syslog of RFC 5424, by UDP or TLS.

What IHE's ATNA profile asks for, with one difference: a study is named by its key in the place of its UID,
and no patient is named. Who may, finds the study by its key in the node's database.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from medmllm_plugin.dicom_bridge.audit import STARTED, STOPPED, Hop, stamp
from medmllm_plugin.dicom_bridge.node_settings import Tls
from medmllm_plugin.dicom_bridge.reloading import EVENT
from medmllm_plugin.dicom_bridge.states import Sent, State
from medmllm_plugin.errors import OutputError

_NOTICE = 10 * 8 + 5
"""PRI: facility 10 (security), severity 5 (notice), as DICOM PS3.15 A.6 wants it."""
_TIMEOUT_S = 10.0

# PS3.16 CID 400 and 401: code, meaning
_ACTIVITY = ("110100", "Application Activity")
_ACCESSED = ("110103", "DICOM Instances Accessed")
_TRANSFERRED = ("110104", "DICOM Instances Transferred")
_ALERT, _CONFIGURED = ("110113", "Security Alert"), ("110131", "Software Configuration")
_START, _STOP = ("110120", "Application Start"), ("110121", "Application Stop")
_APPLICATION, _SOURCE, _DESTINATION = (
    ("110150", "Application"),
    ("110153", "Source Role ID"),
    ("110152", "Destination Role ID"),
)

Code = tuple[str, str]


class Syslog:
    """A collector of audit messages."""

    def __init__(self, url: str, *, node: str, ae_title: str, cursor: Path, tls: Tls | None = None) -> None:
        """Take where to; nothing is sent yet.

        Args:
            url: `udp://HOST:PORT` or `tls://HOST:PORT`.
            node: Our name.
            ae_title: Our title.
            cursor: A file that says what was sent last.
            tls: How we show who we are, and whom we trust; None for the authorities of the system.
        """
        parts = urlsplit(url)
        self._address = (str(parts.hostname), int(parts.port or 0))
        self._shown = f"{parts.hostname}:{parts.port}"
        self._stream = parts.scheme == "tls"
        self._node, self._ae_title, self._cursor, self._tls = node, ae_title, cursor, tls
        self._socket: socket.socket | None = None

    def last(self) -> tuple[int, float]:
        """See `audit.Sink.last`."""
        try:
            number, at = self._cursor.read_text("ascii").split()
            return int(number), float(at)
        except (OSError, ValueError):
            return 0, 0.0

    def take(self, hops: Sequence[Hop]) -> None:
        """See `audit.Sink.take`; by UDP nobody knows whether they came there."""
        try:
            for hop in hops:
                message = message_of(hop, node=self._node, ae_title=self._ae_title)
                if message is not None:
                    self._send(framed(message, at=hop.time, host=self._node))
            numbered = [one for one in hops if one.number is not None]
            if numbered:
                part = self._cursor.with_suffix(".part")
                part.write_text(f"{numbered[-1].number} {numbered[-1].time}", "ascii")
                part.replace(self._cursor)
        except OSError as error:
            self._drop()
            reason = error.strerror or type(error).__name__
            raise OutputError(
                f"{self._shown}: takes no audit messages ({reason}); see node.syslog"
            ) from error

    def _send(self, content: bytes) -> None:
        if not self._stream:
            family = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family[0], socket.SOCK_DGRAM) as datagrams:
                datagrams.sendto(content, family[4])
            return
        if self._socket is None:
            self._socket = self._connected()
        self._socket.sendall(b"%d %s" % (len(content), content))  # RFC 5425 4.3

    def _connected(self) -> socket.socket:
        authorities = None if self._tls is None else self._tls.authorities
        context = ssl.create_default_context(cafile=None if authorities is None else str(authorities))
        if self._tls is not None:
            context.load_cert_chain(self._tls.certificate, self._tls.key)
        plain = socket.create_connection(self._address, timeout=_TIMEOUT_S)
        return context.wrap_socket(plain, server_hostname=self._address[0])

    def close(self) -> None:
        """End the connection."""
        self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None


def framed(message: bytes, *, at: float, host: str) -> bytes:
    r"""A message of RFC 5424.

    >>> framed(b"<AuditMessage/>", at=0, host="node1")
    b'<85>1 1970-01-01T00:00:00.000+00:00 node1 medmllm - DICOM+RFC3881 - \xef\xbb\xbf<AuditMessage/>'
    """
    name = "".join(one for one in host if "!" <= one <= "~")[:255] or "-"
    head = f"<{_NOTICE}>1 {stamp(at)} {name} medmllm - DICOM+RFC3881 - \ufeff"
    return head.encode() + message


def message_of(hop: Hop, *, node: str, ae_title: str) -> bytes | None:
    """The audit message of a hop; None if it is one that collectors don't ask for.

    Args:
        hop: What happened.
        node: Our name.
        ae_title: Our title.
    """
    us = (f"{ae_title}@{node}", f"AETITLES={ae_title}")
    if hop.event in (STARTED, STOPPED):
        message = _begun(hop, _ACTIVITY, "E", kind=_START if hop.event == STARTED else _STOP)
        _participant(message, *us, role=_APPLICATION)
    elif hop.event == EVENT:
        message = _begun(hop, _ALERT, "E", outcome="0" if hop.details.get("taken") else "4", kind=_CONFIGURED)
        _participant(message, *us, role=_APPLICATION)
    elif hop.event == "received":
        message = _begun(hop, _TRANSFERRED, "C")
        _participant(message, *us, role=_DESTINATION)
    elif hop.event == "moved" and hop.details.get("to") == State.READING:
        message = _begun(hop, _ACCESSED, "R")
        _participant(message, *us, role=_APPLICATION)
    elif hop.event == "delivery" and hop.details.get("state") in _OUTCOMES:
        message = _begun(hop, _TRANSFERRED, "C", outcome=_OUTCOMES[Sent(hop.details["state"])])
        _participant(message, *us, role=_SOURCE)
        _participant(message, str(hop.details.get("to", "")), "", role=_DESTINATION, requestor=False)
    else:
        return None
    ET.SubElement(message, "AuditSourceIdentification", AuditSourceID=node)
    if hop.study:
        _study(message, hop.study)
    return bytes(ET.tostring(message, encoding="utf-8"))


_OUTCOMES = {Sent.SENT: "0", Sent.COMMITTED: "0", Sent.REFUSED: "8"}
"""EventOutcomeIndicator: success, or a serious failure."""


def _begun(hop: Hop, event: Code, action: str, *, outcome: str = "0", kind: Code | None = None) -> ET.Element:
    message = ET.Element("AuditMessage")
    identification = ET.SubElement(
        message,
        "EventIdentification",
        EventActionCode=action,
        EventDateTime=stamp(hop.time),
        EventOutcomeIndicator=outcome,
    )
    _code(identification, "EventID", event)
    if kind is not None:
        _code(identification, "EventTypeCode", kind)
    return message


def _participant(
    message: ET.Element, user: str, alternative: str, *, role: Code, requestor: bool = True
) -> None:
    said = {"UserID": user, "AlternativeUserID": alternative, "UserIsRequestor": str(requestor).lower()}
    participant = ET.SubElement(
        message, "ActiveParticipant", {name: value for name, value in said.items() if value}
    )
    _code(participant, "RoleIDCode", role)


def _study(message: ET.Element, key: str) -> None:
    found = ET.SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=key,
        ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole="3",
    )
    _code(found, "ParticipantObjectIDTypeCode", ("study-key", "Pseudonymous study key"), system="99MEDMLLM")


def _code(parent: ET.Element, name: str, code: Code, *, system: str = "DCM") -> None:
    # the attribute is called csd-code in PS3.15 A.5.1, which no Python keyword can be
    ET.SubElement(parent, name, {"csd-code": code[0], "codeSystemName": system, "originalText": code[1]})
