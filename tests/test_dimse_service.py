"""What is more than storage, and all TLS: the same instances, the same statuses, and storage commitment."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from medmllm_plugin.dicom_bridge import commitment
from medmllm_plugin.dicom_bridge.associating import accepts, associated, server_context, wanted
from medmllm_plugin.dicom_bridge.commitment import Commitments
from medmllm_plugin.dicom_bridge.delivery import Certainty
from medmllm_plugin.dicom_bridge.delivery.dimse import DimseDestination
from medmllm_plugin.dicom_bridge.dimse_service import DimseService, TlsPort
from medmllm_plugin.dicom_bridge.listener import Listener, Port
from medmllm_plugin.dicom_bridge.negotiation import Admission
from medmllm_plugin.dicom_bridge.node_settings import Peer, Tls
from medmllm_plugin.dicom_bridge.segments import Record, read_record
from medmllm_plugin.dicom_bridge.spool import Spool
from medmllm_plugin.errors import DeliveryError, SettingsError
from medmllm_plugin.phantoms import write_study
from tests.orthanc import free_port

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl, which makes certificates, is missing")

ASKER = free_port()


@dataclass
class Node:
    """A listener with the service behind it."""

    folder: Path
    port: int = 0
    tls_port: int | None = None
    records: list[Record] = field(default_factory=list)
    admit: bool = True

    def holds(self, uids: object) -> dict[str, str]:
        return {one.facts.sop_instance_uid: one.facts.sop_class_uid for one in self.records}

    def peer(self, **values: object) -> Peer:
        usual = {"ae_title": "MEDMLLM", "host": "127.0.0.1", "port": self.port, "commitment": True}
        return Peer(**{**usual, **values})  # type: ignore[arg-type]


@pytest.fixture
def certificates(tmp_path: Path) -> Tls:
    """A certificate for loopback that vouches for itself."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [str(OPENSSL), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return Tls(certificate=certificate, key=key, authorities=certificate)


@pytest.fixture
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A node; with TLS if the test has certificates."""
    known = frozenset({"X", "SOMEBODY", "ASKER"})
    spool = Spool(tmp_path / "spool", segment_bytes=1 << 20)
    admission = Admission(ae_title="MEDMLLM", calling_aes=known)
    running = Node(folder=tmp_path / "spool")
    tls = None
    if "certificates" in request.fixturenames:
        tls = TlsPort(context=server_context(request.getfixturevalue("certificates")), port=0)
    service = DimseService(
        admission,
        spool,
        received=running.records.append,
        admit=lambda: running.admit,
        holds=running.holds,
        peers=[Peer(ae_title="ASKER", host="127.0.0.1", port=ASKER)],
        tls=tls,
    )
    listener = Listener(
        Port(port=0), admission, spool, received=running.records.append, hand_over=service.hand_over
    )
    running.port, running.tls_port = listener.port, service.tls_port
    yield running
    listener.close(grace_s=0.5)
    service.close(grace_s=0.5)
    spool.close()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One CT image."""
    folder = tmp_path_factory.mktemp("image")
    write_study(folder, kind="ct-chest", seed=7, slices=16, matrix=64)
    return sorted(folder.rglob("*.dcm"))[0]


def test_whoever_asks_on_the_same_association_is_told_what_is_kept(node: Node, image: Path) -> None:
    destination = DimseDestination(node.peer(), calling_ae="SOMEBODY", commitment=True)

    delivered = destination.deliver([image])

    assert delivered.certainty is Certainty.COMMITTED
    (record,) = node.records
    assert pydicom.dcmread(image).SOPInstanceUID == record.facts.sop_instance_uid
    assert read_record(node.folder, record)[-1000:] == image.read_bytes()[-1000:]


def test_a_peer_is_told_on_an_association_of_its_own(node: Node, image: Path) -> None:
    commitments, heard = Commitments(), threading.Event()

    def on_event(event: evt.Event) -> tuple[int, None]:
        heard.set()
        return commitments.on_event(event)

    ae = AE(ae_title="ASKER")
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
    server = ae.start_server(
        ("127.0.0.1", ASKER), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_event)]
    )
    try:
        destination = DimseDestination(
            node.peer(), calling_ae="ASKER", commitment=True, commitments=commitments
        )
        delivered = destination.deliver([image])
    finally:
        server.shutdown()

    assert delivered.certainty is Certainty.COMMITTED
    assert heard.is_set()


def test_what_is_agreed_on_one_association_is_not_the_next_ones(node: Node) -> None:
    def agreed(syntax: str, *, as_scp: bool) -> tuple[str, bool, bool]:
        asked = [wanted(StorageCommitmentPushModel, [syntax])]
        roles = [StorageCommitmentPushModel] if as_scp else []
        with associated(
            node.peer(), asked, calling_ae="SOMEBODY", failure=DeliveryError, as_scp=roles
        ) as association:
            (one,) = association.accepted_contexts
            return str(one.transfer_syntax[0]), bool(one.as_scu), bool(one.as_scp)

    first = agreed(ExplicitVRLittleEndian, as_scp=True)
    second = agreed(ImplicitVRLittleEndian, as_scp=False)
    third = agreed(ExplicitVRLittleEndian, as_scp=True)

    assert first == third == (ExplicitVRLittleEndian, True, True)
    assert second == (ImplicitVRLittleEndian, True, False)


@pytest.mark.parametrize(
    ("class_uid", "uid", "reason"),
    [(CTImageStorage, "1.2.3", "0x0112"), ("1.2.840.10008.1.1", None, "0x0119")],
)
def test_what_is_not_kept_is_said_with_its_reason(
    node: Node, image: Path, class_uid: str, uid: str | None, reason: str
) -> None:
    destination = DimseDestination(node.peer(), calling_ae="SOMEBODY", commitment=True)
    destination.deliver([image])

    with pytest.raises(DeliveryError, match=reason):
        destination.confirm([(class_uid, uid or node.records[0].facts.sop_instance_uid)])


@pytest.mark.parametrize(("action", "content"), [(2, True), (1, False)])
def test_a_question_that_is_none_is_refused(node: Node, action: int, content: bool) -> None:
    question = Commitments().ask("X", [(CTImageStorage, "1.2.3")]) if content else Dataset()
    if not content:
        question.TransactionUID = "1.2.3"
    contexts = [wanted(commitment.SOP_CLASS, [ExplicitVRLittleEndian])]

    with associated(node.peer(), contexts, calling_ae="X", failure=DeliveryError) as association:
        status, _ = association.send_n_action(question, action, commitment.SOP_CLASS, commitment.SOP_INSTANCE)

    assert status.Status in (0x0123, 0x0115)


def test_out_of_resources_is_said_here_too(node: Node, image: Path) -> None:
    node.admit = False

    with pytest.raises(DeliveryError, match="0xa700") as caught:
        DimseDestination(node.peer(), calling_ae="X", commitment=True).deliver([image])

    assert caught.value.retry
    assert node.records == []


@needs_openssl
def test_instances_come_by_tls(certificates: Tls, node: Node, image: Path) -> None:
    peer = node.peer(port=node.tls_port, tls=certificates)

    delivered = DimseDestination(peer, calling_ae="X", commitment=True).deliver([image])

    assert delivered.certainty is Certainty.COMMITTED
    assert read_record(node.folder, node.records[0])[-1000:] == image.read_bytes()[-1000:]


@needs_openssl
def test_an_echo_is_answered_by_tls(certificates: Tls, node: Node) -> None:
    peer = node.peer(port=node.tls_port, tls=certificates)
    contexts = [wanted(Verification, [ExplicitVRLittleEndian])]

    with associated(peer, contexts, calling_ae="X", failure=DeliveryError) as association:
        assert accepts(association, Verification)
        assert association.send_c_echo().Status == 0x0000


@needs_openssl
def test_without_a_certificate_or_without_tls_nobody_gets_in(
    certificates: Tls, node: Node, image: Path
) -> None:
    plain = node.peer(port=node.tls_port)

    with pytest.raises(DeliveryError) as caught:
        DimseDestination(plain, calling_ae="X").deliver([image])

    assert caught.value.retry
    assert node.records == []


@needs_openssl
def test_a_title_that_is_not_known_is_refused_by_tls_too(certificates: Tls, node: Node, image: Path) -> None:
    peer = node.peer(port=node.tls_port, tls=certificates)

    with pytest.raises(DeliveryError, match="doesn't know our AE title") as caught:
        DimseDestination(peer, calling_ae="STRANGER").deliver([image])

    assert not caught.value.retry
    assert node.records == []


def test_certificates_that_are_none_say_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="found no certificate"):
        server_context(Tls(certificate=tmp_path / "a", key=tmp_path / "b"))
