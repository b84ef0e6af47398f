"""How an association is agreed on where only instances are sent and echoes asked for (PS3.8 7.1).

pynetdicom reads and writes what is said; who may connect and what is taken is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts
from pynetdicom.acse import APPLICATION_CONTEXT_NAME
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context, negotiate_as_acceptor

from medmllm_plugin.dicom_bridge.commands import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

VERIFICATION = "1.2.840.10008.1.1"

MAXIMUM_LENGTH = 131_072
"""Bytes of a P-DATA PDU that we take: the quickest of those tried."""

_STORAGE = frozenset(str(one.abstract_syntax) for one in AllStoragePresentationContexts)
_TAKEN = [build_context(uid, ALL_TRANSFER_SYNTAXES) for uid in sorted({*_STORAGE, VERIFICATION})]

# PS3.8 9.3.4: (result, source, reason)
_PERMANENT, _TRANSIENT = 1, 2
APPLICATION_CONTEXT_NOT_SUPPORTED = (_PERMANENT, 1, 2)
CALLING_AE_NOT_RECOGNIZED = (_PERMANENT, 1, 3)
CALLED_AE_NOT_RECOGNIZED = (_PERMANENT, 1, 7)
NO_REASON_GIVEN = (_PERMANENT, 1, 1)
LOCAL_LIMIT_EXCEEDED = (_TRANSIENT, 3, 2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """Who may connect."""

    ae_title: str
    """Ours."""
    check_called_ae: bool = False
    """Whether a sender must call us by our own title."""
    calling_aes: frozenset[str] = frozenset()
    """Titles of those who may connect; empty for anybody."""
    networks: tuple[str, ...] = ()
    """Addresses and networks of those who may connect, such as `10.1.0.0/16`; empty for any."""
    _parsed: tuple[Any, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        parsed = tuple(ip_network(one, strict=False) for one in self.networks)
        object.__setattr__(self, "_parsed", parsed)

    def refused(self, *, calling: str, called: str, address: str) -> tuple[int, int, int] | None:
        """Why a sender may not connect, as PS3.8 9.3.4 numbers it; None if it may.

        >>> Admission(ae_title="US", calling_aes=frozenset({"CT1"})).refused(
        ...     calling="CT2", called="US", address="10.0.0.1"
        ... )
        (1, 1, 3)
        """
        if self.calling_aes and calling not in self.calling_aes:
            return CALLING_AE_NOT_RECOGNIZED
        if self.check_called_ae and called != self.ae_title:
            return CALLED_AE_NOT_RECOGNIZED
        return None if self.knows(address) else NO_REASON_GIVEN

    def knows(self, address: str) -> bool:
        """Whether it may connect from there."""
        if not self._parsed:
            return True
        here = ip_address(address.partition("%")[0])
        mapped = getattr(here, "ipv4_mapped", None) or here
        return any(mapped in network for network in self._parsed)


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreed:
    """An association that was agreed on."""

    answer: bytes
    """The A-ASSOCIATE-AC to send."""
    contexts: Mapping[int, bytes]
    """Transfer syntax UIDs by presentation context."""
    calling: str
    called: str
    most: int
    """Bytes of a P-DATA PDU that the other side takes; 0 for any."""


def read_request(content: bytes) -> A_ASSOCIATE:
    """What a sender asks for.

    Args:
        content: The whole A-ASSOCIATE-RQ.

    Raises:
        ValueError: If it is none.
    """
    pdu = A_ASSOCIATE_RQ()
    try:
        pdu.decode(content)
        request = pdu.to_primitive()
    except Exception as error:  # whatever a stranger sends, pynetdicom's decoder may raise
        raise ValueError(f"no A-ASSOCIATE-RQ ({type(error).__name__})") from error
    for one in request.presentation_context_definition_list:
        if one.abstract_syntax is None or not one.transfer_syntax:
            raise ValueError("found a presentation context without an abstract or a transfer syntax")
    return request


def not_dicom(request: A_ASSOCIATE) -> tuple[int, int, int] | None:
    """Why a request whose application context isn't DICOM's is refused (PS3.8 9.3.4); None if it is."""
    is_ours = request.application_context_name == APPLICATION_CONTEXT_NAME
    return None if is_ours else APPLICATION_CONTEXT_NOT_SUPPORTED


def is_plain(request: A_ASSOCIATE) -> bool:
    """Whether only storage and verification are asked for, without roles or identities to be answered."""
    wanted = {str(one.abstract_syntax) for one in request.presentation_context_definition_list}
    special = SCP_SCU_RoleSelectionNegotiation | UserIdentityNegotiation
    return wanted <= {*_STORAGE, VERIFICATION} and not any(
        isinstance(one, special) for one in request.user_information
    )


def agree(request: A_ASSOCIATE) -> Agreed:
    """Take all contexts that we know, each with the first transfer syntax that is asked for and known."""
    results, _ = negotiate_as_acceptor(request.presentation_context_definition_list, _TAKEN)
    contexts = {
        one.context_id: str(one.transfer_syntax[0]).encode()
        for one in results
        if one.result == 0 and one.context_id is not None
    }
    request.presentation_context_definition_results_list = results
    request.presentation_context_definition_list = []
    most = request.maximum_length_received or 0
    request.user_information = [_our_length(), _our_class(), _our_version()]
    request.result, request.result_source = 0, 1
    answer = A_ASSOCIATE_AC()
    answer.from_primitive(request)
    return Agreed(
        answer=answer.encode(),
        contexts=contexts,
        calling=titled(request.calling_ae_title),
        called=titled(request.called_ae_title),
        most=most,
    )


def rejection(reason: tuple[int, int, int]) -> bytes:
    """The A-ASSOCIATE-RJ to send."""
    pdu = A_ASSOCIATE_RJ()
    pdu.result, pdu.source, pdu.reason_diagnostic = reason
    return bytes(pdu.encode())


def titled(title: str | None) -> str:
    r"""An AE title without the blanks around it; what no title may hold becomes a question mark.

    >>> titled(" CT1  "), titled("CT\0\n1")
    ('CT1', 'CT??1')
    """
    return "".join(one if " " <= one <= "~" else "?" for one in (title or "").strip())


def _our_length() -> MaximumLengthNotification:
    item = MaximumLengthNotification()
    item.maximum_length_received = MAXIMUM_LENGTH
    return item


def _our_class() -> ImplementationClassUIDNotification:
    item = ImplementationClassUIDNotification()
    item.implementation_class_uid = IMPLEMENTATION_CLASS_UID.decode()
    return item


def _our_version() -> ImplementationVersionNameNotification:
    item = ImplementationVersionNameNotification()
    item.implementation_version_name = IMPLEMENTATION_VERSION.decode()
    return item
