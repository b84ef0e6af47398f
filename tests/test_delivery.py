"""Reports go to a real PACS by DIMSE and DICOMweb, or into a folder; nothing wrong goes out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from medmllm_plugin.dicom_bridge.commitment import Commitments
from medmllm_plugin.dicom_bridge.delivery import Certainty
from medmllm_plugin.dicom_bridge.delivery.dimse import DimseDestination
from medmllm_plugin.dicom_bridge.delivery.folder import FolderDestination
from medmllm_plugin.dicom_bridge.delivery.objects import objects_of
from medmllm_plugin.dicom_bridge.delivery.stow import StowDestination
from medmllm_plugin.dicom_bridge.dimse_service import DimseService
from medmllm_plugin.dicom_bridge.listener import Listener, Port
from medmllm_plugin.dicom_bridge.negotiation import Admission
from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.spool import Spool
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr
from medmllm_plugin.errors import DeliveryError
from medmllm_plugin.phantoms import write_study
from tests.orthanc import Orthanc, free_port, needs_dicomweb, needs_orthanc, orthanc
from tests.sr_reports import a_nodule, a_report, a_series, an_image


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Structured Report of ours, in a file."""
    headers = a_series()
    dataset = findings_sr(a_report(a_nodule(an_image(headers[2]))), headers)
    path = tmp_path_factory.mktemp("report") / "findings.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Compressed images of a phantom."""
    folder = tmp_path_factory.mktemp("images")
    write_study(folder, kind="ct-chest", seed=3, slices=16, matrix=64, compression="jpeg-ls")
    return sorted(folder.rglob("*.dcm"))


COMMITMENTS = Commitments()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An Orthanc, and a node of ours that hears its answers to storage commitment."""
    folder = tmp_path_factory.mktemp("pacs")
    admission, spool = Admission(ae_title="ROUTER"), Spool(folder / "spool", segment_bytes=1 << 20)
    service = DimseService(
        admission, spool, received=lambda record: None, holds=lambda uids: {}, commitments=COMMITMENTS
    )
    listener = Listener(
        Port(port=0), admission, spool, received=lambda record: None, hand_over=service.hand_over
    )
    ours = Peer(ae_title="ROUTER", host="127.0.0.1", port=listener.port)
    try:
        with orthanc(folder, modalities={"router": ours}) as running:
            yield running
    finally:
        listener.close(grace_s=0.5)
        service.close(grace_s=0.5)
        spool.close()


def to(pacs: Orthanc, **values: object) -> DimseDestination:
    return DimseDestination(pacs.peer, calling_ae="ROUTER", commitments=COMMITMENTS, **values)  # type: ignore[arg-type]


def dataset_of(content: bytes) -> bytes:
    return content[144 + int.from_bytes(content[140:144], "little") :]


@needs_orthanc
def test_a_pacs_takes_a_report_as_it_is_and_commits_to_it(pacs: Orthanc, report: Path) -> None:
    pacs.clear()

    delivered = to(pacs, commitment=True).deliver([report])

    (uid,) = (uid for _, uid in delivered.objects)
    assert delivered.certainty is Certainty.COMMITTED
    assert dataset_of(pacs.instances()[uid]) == dataset_of(report.read_bytes())


@needs_orthanc
def test_the_same_again_is_there_once(pacs: Orthanc, report: Path) -> None:
    pacs.clear()

    for _ in range(2):
        delivered = to(pacs).deliver([report])

    assert delivered.certainty is Certainty.SENT
    assert len(pacs.instances()) == 1


@needs_orthanc
def test_compressed_images_stay_as_they_are(pacs: Orthanc, images: list[Path]) -> None:
    pacs.clear()

    to(pacs).deliver(images)

    sent = {pydicom.dcmread(path).SOPInstanceUID: dataset_of(path.read_bytes()) for path in images}
    assert {uid: dataset_of(content) for uid, content in pacs.instances().items()} == sent


@needs_orthanc
def test_what_a_pacs_lost_is_not_confirmed(pacs: Orthanc, report: Path) -> None:
    destination = to(pacs, commitment=True)
    delivered = destination.deliver([report])
    assert destination.confirm(delivered.objects).certainty is Certainty.COMMITTED

    pacs.clear()

    with pytest.raises(DeliveryError, match="doesn't commit to 1 of 1") as caught:
        destination.confirm(delivered.objects)
    assert caught.value.retry


@needs_orthanc
def test_an_answer_that_comes_late_is_found_by_asking_again(pacs: Orthanc, report: Path) -> None:
    destination = to(pacs, commitment=True, commit_s=0.0)
    waiting = destination.deliver([report])

    confirmed = to(pacs, commitment=True).confirm(waiting.objects)

    assert waiting.certainty is Certainty.WAITING
    assert confirmed.certainty is Certainty.COMMITTED


@needs_orthanc
def test_a_wrong_title_needs_a_person_and_a_dead_pacs_needs_time(pacs: Orthanc, report: Path) -> None:
    stranger = Peer(ae_title="NOBODY", host="127.0.0.1", port=pacs.peer.port)
    nowhere = Peer(ae_title="PACS", host="127.0.0.1", port=free_port())

    with pytest.raises(DeliveryError, match="doesn't know its AE title") as wrong:
        DimseDestination(stranger, calling_ae="ROUTER").deliver([report])
    with pytest.raises(DeliveryError, match="can't be reached") as dead:
        DimseDestination(nowhere, calling_ae="ROUTER").deliver([report])

    assert (wrong.value.retry, dead.value.retry) == (False, True)


@needs_dicomweb
def test_a_web_service_takes_reports_and_images_and_finds_them(
    pacs: Orthanc, report: Path, images: list[Path]
) -> None:
    pacs.clear()
    destination = StowDestination(str(pacs.peer.web))

    delivered = destination.deliver([report, *images])
    destination.close()

    assert delivered.certainty is Certainty.FOUND
    held = pacs.instances()
    assert {uid for _, uid in delivered.objects} == held.keys()
    assert dataset_of(held[delivered.objects[0][1]]) == dataset_of(report.read_bytes())


@needs_dicomweb
def test_an_address_without_a_service_needs_a_person(pacs: Orthanc, report: Path) -> None:
    destination = StowDestination(f"{pacs.url}/nowhere")

    with pytest.raises(DeliveryError, match="answered 404") as caught:
        destination.deliver([report])

    destination.close()
    assert not caught.value.retry


@pytest.mark.parametrize(
    ("status", "retry"), [(0xA700, True), (0x0110, True), (0xA900, False), (0xC123, False), (0x0124, False)]
)
def test_a_refusal_says_whether_another_try_can_help(report: Path, status: int, retry: bool) -> None:
    with serving(status) as peer, pytest.raises(DeliveryError, match=f"{status:#06x}") as caught:
        DimseDestination(peer, calling_ae="ROUTER").deliver([report])

    assert caught.value.retry is retry


@pytest.mark.parametrize("status", [0x0000, 0x0111, 0xB000, 0xB006, 0xB007])
def test_what_was_taken_with_a_warning_is_noted(report: Path, status: int) -> None:
    with serving(status) as peer:
        delivered = DimseDestination(peer, calling_ae="ROUTER").deliver([report])

    assert delivered.certainty is Certainty.SENT
    assert len(delivered.notes) == (status != 0)


def test_a_peer_that_takes_only_implicit_vr_gets_it(report: Path) -> None:
    with serving(0x0000, syntax=ImplicitVRLittleEndian) as peer:
        delivered = DimseDestination(peer, calling_ae="ROUTER").deliver([report])

    assert delivered.certainty is Certainty.SENT


def test_a_peer_that_offers_no_commitment_is_taken_at_its_word(report: Path) -> None:
    with serving(0x0000) as peer:
        delivered = DimseDestination(peer, calling_ae="ROUTER", commitment=True).deliver([report])

    assert delivered.certainty is Certainty.SENT
    assert delivered.notes == ("it doesn't offer storage commitment",)


class serving:  # noqa: N801
    """A peer that takes SRs and answers with one status."""

    def __init__(self, status: int, *, syntax: str = ExplicitVRLittleEndian) -> None:
        ae = AE(ae_title="PEER")
        for uid in (ComprehensiveSRStorage, "1.2.840.10008.5.1.4.1.1.88.34"):
            ae.add_supported_context(uid, syntax)
        self._server = ae.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda event: status)]
        )

    def __enter__(self) -> Peer:
        return Peer(ae_title="PEER", host="127.0.0.1", port=self._server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()


def test_a_folder_has_each_object_once_under_names_of_ours(tmp_path: Path, report: Path) -> None:
    destination = FolderDestination(tmp_path / "out")

    for _ in range(2):
        delivered = destination.deliver([report])

    (written,) = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert delivered.certainty is Certainty.COMMITTED
    assert written.read_bytes() == report.read_bytes()
    assert delivered.objects[0][1] not in str(written)


def test_a_report_with_an_error_never_leaves(tmp_path: Path, report: Path) -> None:
    dataset = pydicom.dcmread(report)
    del dataset.ContentSequence[-1:]
    dataset.CompletionFlag = "MAYBE"
    wrong = tmp_path / "wrong.dcm"
    dataset.save_as(wrong)

    with pytest.raises(DeliveryError, match="is not sent, found") as caught:
        FolderDestination(tmp_path / "out").deliver([wrong])

    assert not caught.value.retry
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"no DICOM", bytes(128) + b"DICM"])
def test_what_is_no_object_never_leaves(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(content)

    with pytest.raises(DeliveryError, match=r"^x\.dcm: can't be sent"):
        objects_of([path])
