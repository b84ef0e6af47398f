"""Associations that we ask other systems for, through pynetdicom.

Only what will be used is negotiated. What pynetdicom itself would log holds identifiers, so it is silenced:
what goes wrong is said here, by the other side's title and address.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context, build_role

from medmllm_plugin.dicom_bridge.commands import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from medmllm_plugin.dicom_bridge.mends import mend
from medmllm_plugin.dicom_bridge.negotiation import MAXIMUM_LENGTH
from medmllm_plugin.dicom_bridge.node_settings import Peer, Tls
from medmllm_plugin.errors import DeliveryError, RetrieveError, SettingsError

logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
_config.STORE_SEND_CHUNKED_DATASET = True
"""Files go out as they are, and are never held whole."""
mend()

Failure = type[DeliveryError] | type[RetrieveError]

MOST_CONTEXTS = 128
"""Presentation contexts of an association (PS3.8 9.3.2.2)."""

_SMALLEST_PDU = 7
"""Bytes of data a PDU must be able to hold for one byte of a message (PS3.8 D.1)."""
_TITLES = {2: "the application context", 3: "our AE title", 7: "its AE title"}
"""What a peer says that it doesn't know, as PS3.8 9.3.4 numbers the reasons of its user."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long is waited for another system, seconds."""

    connect: float = 10.0
    associate: float = 30.0
    answer: float = 120.0
    """For a response; a C-MOVE says something in between."""


def wanted(abstract_syntax: str, transfer_syntaxes: Iterable[str]) -> PresentationContext:
    """A presentation context to ask for."""
    return build_context(abstract_syntax, [UID(one) for one in transfer_syntaxes])


@contextmanager
def associated(
    peer: Peer,
    contexts: Sequence[PresentationContext],
    *,
    calling_ae: str,
    failure: Failure,
    patience: Patience | None = None,
    as_scp: Iterable[str] = (),
    handlers: Sequence[tuple[Any, Callable[..., Any]]] = (),
) -> Iterator[Association]:
    """An association, released at the end, aborted if that fails.

    Args:
        peer: With whom.
        contexts: What is asked for; at most `MOST_CONTEXTS`.
        calling_ae: Our title.
        failure: The error to raise.
        patience: How long to wait.
        as_scp: SOP classes for which the roles are turned round, so that we may be sent them, as well.
        handlers: Of pynetdicom's events.

    Raises:
        DeliveryError, RetrieveError: Which of them `failure` says, if the other side can't be reached,
            refuses, or takes none of the contexts.
        SettingsError: If certificates can't be read.
    """
    patience = patience or Patience()
    ae = AE(ae_title=calling_ae)
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID.decode())
    ae.implementation_version_name = IMPLEMENTATION_VERSION.decode()
    ae.connection_timeout, ae.acse_timeout = patience.connect, patience.associate
    ae.dimse_timeout, ae.network_timeout = patience.answer, patience.answer
    ae.requested_contexts = list(contexts)
    opened: list[evt.Event] = []
    association = ae.associate(
        peer.host,
        peer.port,
        ae_title=peer.ae_title,
        max_pdu=MAXIMUM_LENGTH,
        ext_neg=[build_role(UID(uid), scu_role=True, scp_role=True) for uid in as_scp],
        evt_handlers=[
            (evt.EVT_CONN_OPEN, _without_delay),
            (evt.EVT_CONN_OPEN, opened.append),
            *handlers,
        ],
        tls_args=None if peer.tls is None else (client_context(peer.tls), peer.host),
    )
    if not association.is_established:
        raise _refused(association, peer, failure, answered=bool(opened))
    try:
        _require_usable(association, peer, failure)
        yield association
    finally:
        if association.is_established:
            with suppress(Exception):
                association.release()
        if association.is_established:
            association.abort()


def accepts(association: Association, abstract_syntax: str) -> bool:
    """Whether a context of this abstract syntax was accepted."""
    return any(one.abstract_syntax == abstract_syntax for one in association.accepted_contexts)


def named(peer: Peer) -> str:
    """How errors call a peer."""
    return f"{peer.ae_title}@{peer.host}:{peer.port}"


def client_context(tls: Tls) -> ssl.SSLContext:
    """How we connect by TLS: our certificate shown, the other side's checked, its name too.

    Raises:
        SettingsError: If a file can't be used.
    """
    return _filled(ssl.create_default_context(cafile=_existing(tls)), tls)


def server_context(tls: Tls) -> ssl.SSLContext:
    """How we are connected to by TLS; with authorities, nobody gets in without a certificate of theirs.

    Raises:
        SettingsError: If a file can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if (authorities := _existing(tls)) is not None:
        context.load_verify_locations(authorities)
        context.verify_mode = ssl.CERT_REQUIRED
    return _filled(context, tls)


def _existing(tls: Tls) -> str | None:
    if tls.authorities is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(tls.authorities)
    except OSError as error:
        raise SettingsError(
            f"{tls.authorities}: found no certificates to trust ({error.strerror}), expected PEM"
        ) from error
    return str(tls.authorities)


def _filled(context: ssl.SSLContext, tls: Tls) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        raise SettingsError(
            f"{tls.certificate}, {tls.key}: found no certificate with its key ({error.strerror}), expected "
            "both as PEM"
        ) from error
    return context


def _without_delay(event: evt.Event) -> None:
    """Small messages go out at once (Nagle's algorithm holds them back)."""
    connection = event.assoc.dul.socket.socket
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _require_usable(association: Association, peer: Peer, failure: Failure) -> None:
    """Refuse an acceptance that lacks what PS3.8 has in it; pynetdicom would fail at the first message."""
    longest = association.acceptor.maximum_length
    if longest is None or 0 < longest < _SMALLEST_PDU:
        found = f"PDUs of {'no known length' if longest is None else f'{longest} bytes'}"
    elif not all(one.transfer_syntax for one in association.accepted_contexts):
        found = "a presentation context with no transfer syntax"
    else:
        return
    raise failure(
        f"{named(peer)}: its acceptance of the association can't be used, found {found}; see its log",
        retry=False,
    )


def _refused(
    association: Association, peer: Peer, failure: Failure, *, answered: bool
) -> DeliveryError | RetrieveError:
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        said = (answer.result, answer.result_source, answer.diagnostic)
        unknown = _TITLES.get(answer.diagnostic, "") if answer.result_source == 1 else ""
        if unknown:
            return failure(
                f"{named(peer)}: refuses the association, it doesn't know {unknown} {said}; see the titles "
                "on both sides",
                retry=False,
            )
        return failure(f"{named(peer)}: refuses the association {said}; try again later", retry=True)
    if answer is not None and answer.result == 0:
        return failure(
            f"{named(peer)}: takes none of what it was asked for; see which SOP classes and transfer "
            "syntaxes it is set to take",
            retry=False,
        )
    if answered:
        return failure(
            f"{named(peer)}: broke off, or gave no sound answer, when asked for an association; see its log",
            retry=True,
        )
    tls = " or its certificate isn't trusted" if peer.tls is not None else ""
    return failure(f"{named(peer)}: can't be reached{tls}; see that it is up", retry=True)
