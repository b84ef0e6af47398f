"""What the quick port leaves to pynetdicom: storage commitment, unusual associations, and all TLS.

`Listener` hands over connections whose association is about more than storage; a TLS port hands over all of
its own. Instances that come this way are kept in the same spool and answered by the same statuses.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from pydicom.uid import UID
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.presentation import build_context
from pynetdicom.transport import ThreadedAssociationServer

from medmllm_plugin.dicom_bridge import commitment
from medmllm_plugin.dicom_bridge.commands import (
    C_STORE_RQ,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION,
    Command,
    Status,
    part10_head,
)
from medmllm_plugin.dicom_bridge.commitment import Commitments
from medmllm_plugin.dicom_bridge.commitment_scp import CommitmentAnswers, Holds
from medmllm_plugin.dicom_bridge.mends import limit, mend
from medmllm_plugin.dicom_bridge.negotiation import (
    MAXIMUM_LENGTH,
    VERIFICATION,
    Admission,
    not_dicom,
    titled,
)
from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.receiving import Limits
from medmllm_plugin.dicom_bridge.segments import Facts, Record
from medmllm_plugin.dicom_bridge.spool import Spool
from medmllm_plugin.dicom_bridge.steps_scp import AVAILABILITY, STEP, StepsProvider
from medmllm_plugin.errors import OutputError, SettingsError

mend()
log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
"""How long a TLS handshake may take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsPort:
    """Where to listen for TLS."""

    context: ssl.SSLContext
    """See `associating.server_context`."""
    host: str = "127.0.0.1"
    port: int = 2762
    """0 for any that is free; 2762 is DICOM's own for TLS."""


class DimseService:
    """Serves connections until it is closed."""

    def __init__(
        self,
        admission: Admission,
        spool: Spool,
        *,
        received: Callable[[Record], None],
        holds: Holds,
        admit: Callable[[], bool] = lambda: True,
        ended: Callable[[str, int], None] | None = None,
        commitments: Commitments | None = None,
        steps: StepsProvider | None = None,
        peers: Iterable[Peer] = (),
        limits: Limits | None = None,
        associations: int = 64,
        tls: TlsPort | None = None,
    ) -> None:
        """Begin to serve.

        Args:
            admission: Who may connect.
            spool: Where instances are kept.
            received: Told of each instance once it is durable.
            holds: Which instances are durable here, for those who ask us to commit.
            admit: Whether instances are taken now.
            ended: Told of the calling AE and the number of instances when an association was released.
            commitments: Where answers to our own questions go.
            steps: Takes procedure steps and what is available; None offers neither.
            peers: Whom we know; the answers to their questions go to them on associations of their own.
            limits: What a sender may ask of us.
            associations: Most at a time, of this service.
            tls: A port of our own for TLS.

        Raises:
            SettingsError: If that port can't be listened on.
        """
        self._spool = spool
        self.admission = admission
        """Who may connect from now on."""
        self._received, self._admit, self._ended = received, admit, ended
        self._limits = limits or Limits()
        self._answers = CommitmentAnswers(holds, peers, calling_ae=admission.ae_title)
        self._closing = threading.Event()
        ae = AE(ae_title=admission.ae_title)
        ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID.decode())
        ae.implementation_version_name = IMPLEMENTATION_VERSION.decode()
        ae.maximum_associations, ae.maximum_pdu_size = associations, MAXIMUM_LENGTH
        ae.network_timeout = ae.dimse_timeout = self._limits.idle_s
        limit(ae, instance_bytes=self._limits.instance_bytes)
        self._most = 2 * associations
        self._handshakes = threading.BoundedSemaphore(self._most)
        handlers: list[tuple[Any, Callable[..., Any]]] = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_N_ACTION, self._answers.on_action),
            (evt.EVT_N_EVENT_REPORT, (commitments or Commitments()).on_event),
            (evt.EVT_RELEASED, self._on_released),
        ]
        if steps is not None:
            handlers += [(evt.EVT_N_CREATE, steps.on_create), (evt.EVT_N_SET, steps.on_set)]
        # It serves what it is given and listens to nothing itself: its own socket is closed at once.
        self._server = ThreadedAssociationServer(
            ae, ("127.0.0.1", 0), admission.ae_title, _contexts(steps is not None), None, handlers
        )
        self._server.socket.close()
        self._tls = tls
        self._socket: socket.socket | None = None
        self.tls_port: int | None = None
        """Where TLS is listened for."""
        if tls is not None:
            self._listen(tls)

    def know(self, peers: Iterable[Peer]) -> None:
        """Have answers to questions for storage commitment go to these peers."""
        self._answers.know(peers)

    def hand_over(self, connection: socket.socket, address: tuple[str, int]) -> None:
        """Serve a connection that nothing was read from, or close it if there are far too many."""
        if len(self._server.active_associations) >= self._most:
            connection.close()
            return
        connection.settimeout(self._limits.idle_s)
        self._server.process_request(connection, address)

    def close(self, *, grace_s: float = 5.0) -> None:
        """Take no more, let associations end, and abort those left after `grace_s`."""
        self._closing.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        until = time.monotonic() + grace_s
        for association in self._server.active_associations:
            association.join(max(0.0, until - time.monotonic()))
        for association in self._server.active_associations:
            association.abort()
        self._answers.close()

    def _listen(self, tls: TlsPort) -> None:
        family = socket.AF_INET6 if ":" in tls.host else socket.AF_INET
        try:
            self._socket = socket.create_server((tls.host, tls.port), family=family, backlog=128)
        except OSError as error:
            raise SettingsError(
                f"{tls.host}:{tls.port}: can't be listened on ({error.strerror}); name another tls_port, or "
                "see what listens there"
            ) from error
        self.tls_port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, args=(tls,), name="medmllm-tls", daemon=True).start()

    def _accept(self, tls: TlsPort) -> None:
        assert self._socket is not None
        while not self._closing.is_set():
            try:
                connection, address = self._socket.accept()
            except OSError as error:
                if not self._closing.is_set():
                    log.error("no TLS connection can be taken: %s", error.strerror)
                    self._closing.wait(0.2)
                continue
            if not self._handshakes.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(
                target=self._shake_hands, args=(tls, connection, address[:2]), name="medmllm-tls", daemon=True
            ).start()

    def _shake_hands(self, tls: TlsPort, connection: socket.socket, address: tuple[str, int]) -> None:
        """Agree on keys with a stranger, who keeps nobody else waiting."""
        try:
            if not self.admission.knows(address[0]):
                raise OSError("an address that may not connect")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(HANDSHAKE_S)
            connection = tls.context.wrap_socket(connection, server_side=True)
            self.hand_over(connection, address)
        except OSError as error:
            log.info("a TLS connection never began: %s", error.strerror or error)
            connection.close()
        finally:
            self._handshakes.release()

    def _on_requested(self, event: evt.Event) -> None:
        request = event.assoc.requestor
        reason = not_dicom(request.primitive) or self.admission.refused(
            calling=titled(request.primitive.calling_ae_title),
            called=titled(request.primitive.called_ae_title),
            address=str(request.address),
        )
        if reason is not None or self._closing.is_set():
            event.assoc.acse.send_reject(*(reason or (2, 2, 1)))
            event.assoc.kill()

    def _on_store(self, event: evt.Event) -> int:
        """Keep an instance as it came; what to answer (PS3.4 B.2.3)."""
        request, content = event.request, event.request.DataSet
        class_uid, instance_uid = (
            str(uid or "").encode("ascii", "replace")
            for uid in (request.AffectedSOPClassUID, request.AffectedSOPInstanceUID)
        )
        command = Command(C_STORE_RQ, b"\0\0", class_uid, instance_uid, content is not None)
        if not command.instance_uid_is_sound:
            return Status.INVALID_INSTANCE_UID
        if not command.class_uid_is_sound:
            return Status.NO_SUCH_CLASS
        if content is None:
            return Status.NOT_UNDERSTOOD
        body = content.getvalue()
        if not self._admit() or len(body) > self._limits.instance_bytes:
            return Status.OUT_OF_RESOURCES
        calling = titled(event.assoc.requestor.ae_title)
        facts = Facts(
            sop_class_uid=class_uid.decode(),
            sop_instance_uid=instance_uid.decode(),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            calling_ae=calling,
            called_ae=titled(event.assoc.requestor.primitive.called_ae_title),
            received=time.time(),
        )
        head = part10_head(
            class_uid=class_uid,
            instance_uid=instance_uid,
            transfer_syntax=facts.transfer_syntax_uid.encode(),
            source_ae=calling.encode("ascii", "replace"),
        )
        try:
            self._received(self._spool.put(facts, [head, body]))
        except OutputError as error:
            log.error("an instance was refused: %s", error)
            return Status.OUT_OF_RESOURCES
        event.assoc.medmllm_instances = _instances(event) + 1
        return Status.SUCCESS

    def _on_released(self, event: evt.Event) -> None:
        if self._ended is not None:
            self._ended(titled(event.assoc.requestor.ae_title), _instances(event))


def _instances(event: evt.Event) -> int:
    """How many were acknowledged on an association."""
    return int(getattr(event.assoc, "medmllm_instances", 0))


class _Shared(list[Any]):
    """Contexts that all associations share: nobody changes them.

    pynetdicom copies them for each, with some 8,000 UIDs, which takes 70 ms in which no other thread runs.
    """

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _contexts(steps: bool = True) -> _Shared:
    """All storage, verification, storage commitment from both sides, and procedure steps."""
    uids = sorted({VERIFICATION, *(str(one.abstract_syntax) for one in AllStoragePresentationContexts)})
    contexts = [build_context(uid, ALL_TRANSFER_SYNTAXES) for uid in uids]
    push = build_context(commitment.SOP_CLASS)
    push.scu_role = push.scp_role = True
    said = [build_context(uid) for uid in (STEP, AVAILABILITY)] if steps else []
    return _Shared([*contexts, push, *said])
