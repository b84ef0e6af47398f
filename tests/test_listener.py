"""Instances come from real senders and are there, byte for byte; strangers break nothing."""

from __future__ import annotations

import io
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)
from pynetdicom import AE
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityWorklistInformationFind,
    Verification,
)

from medmllm_plugin.dicom_bridge.listener import Listener, Port
from medmllm_plugin.dicom_bridge.negotiation import Admission
from medmllm_plugin.dicom_bridge.receiving import Limits
from medmllm_plugin.dicom_bridge.segments import Record, read_record
from medmllm_plugin.dicom_bridge.spool import Spool
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.phantoms import write_study
from tests import by_hand
from tests.by_hand import ACCEPTED, REJECTED, c_store, status_of

SENDER = shutil.which("storescu")


@dataclass
class Node:
    """A listener and what it received."""

    listener: Listener
    folder: Path
    records: list[Record] = field(default_factory=list)

    def content(self) -> dict[str, bytes]:
        """The data sets received, without their file meta information, by SOP Instance UID."""
        return {one.facts.sop_instance_uid: dataset_of(read_record(self.folder, one)) for one in self.records}


def dataset_of(content: bytes) -> bytes:
    return content[144 + struct.unpack_from("<I", content, 140)[0] :]


Start = Callable[..., Node]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts listeners, and closes them."""
    running: list[tuple[Listener, Spool]] = []

    def begin(*, admission: Admission | None = None, limits: Limits | None = None, **values: object) -> Node:
        folder = tmp_path / f"spool{len(running)}"
        spool = Spool(folder, segment_bytes=1 << 20)
        records: list[Record] = []
        port = {key: values.pop(key) for key in ("associations", "request_s") if key in values}
        listener = Listener(
            Port(port=0, limits=limits or Limits(idle_s=5), **port),  # type: ignore[arg-type]
            admission or Admission(ae_title="MEDMLLM"),
            spool,
            received=records.append,
            **values,  # type: ignore[arg-type]
        )
        running.append((listener, spool))
        return Node(listener=listener, folder=folder, records=records)

    yield begin
    for listener, spool in running:
        listener.close(grace_s=0.5)
        spool.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom of 16 slices."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, kind="ct-chest", seed=7, slices=16, matrix=64)
    return folder


def files_of(study: Path) -> list[Path]:
    return sorted(path for path in study.rglob("*") if path.suffix == ".dcm")


def sent(study: Path) -> dict[str, bytes]:
    """The data sets of a study's files."""
    found = {}
    for path in files_of(study):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        found[str(header.SOPInstanceUID)] = dataset_of(path.read_bytes())
    return found


def storescu(node: Node, *options: str, files: list[Path]) -> subprocess.CompletedProcess[str]:
    where = ("127.0.0.1", str(node.listener.port))
    return subprocess.run(
        [str(SENDER), "-aet", "CT1", "-aec", "MEDMLLM", *options, *where, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=60,
    )


needs_dcmtk = pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")


@needs_dcmtk
def test_a_study_comes_byte_for_byte(start: Start, study: Path) -> None:
    node = start()

    done = storescu(node, "-R", "-xe", files=files_of(study))

    assert done.returncode == 0, done.stderr
    assert node.content() == sent(study)
    assert {one.facts.calling_ae for one in node.records} == {"CT1"}
    assert {one.facts.transfer_syntax_uid for one in node.records} == {ExplicitVRLittleEndian}


@needs_dcmtk
@pytest.mark.parametrize("pdu", ["4096", "131072"])
def test_several_senders_at_once_disturb_each_other_in_nothing(start: Start, study: Path, pdu: str) -> None:
    node = start()
    done: list[int] = []

    def send() -> None:
        done.append(storescu(node, "-R", "-xe", "-pdu", pdu, files=files_of(study)).returncode)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert done == [0] * 4
    assert len(node.records) == 4 * len(files_of(study))
    assert node.content() == sent(study)


@needs_dcmtk
def test_a_compressed_study_comes_as_it_is(start: Start, tmp_path: Path) -> None:
    write_study(tmp_path / "study", kind="ct-chest", seed=3, slices=16, matrix=64, compression="jpeg-ls")
    node = start()

    done = storescu(node, "-R", "-xt", files=files_of(tmp_path / "study"))

    assert done.returncode == 0, done.stderr
    assert node.content() == sent(tmp_path / "study")
    assert {one.facts.transfer_syntax_uid for one in node.records} == {JPEGLSLossless}


def test_what_was_received_is_a_file_that_pydicom_reads(start: Start, study: Path) -> None:
    node, dataset = start(), pydicom.dcmread(files_of(study)[0])

    status = store(node, dataset)

    assert status == 0x0000
    read = pydicom.dcmread(io.BytesIO(read_record(node.folder, node.records[0])))
    assert read.file_meta.MediaStorageSOPClassUID == CTImageStorage
    assert read.file_meta.SourceApplicationEntityTitle == "PYNETDICOM"
    np.testing.assert_array_equal(read.pixel_array, dataset.pixel_array)


def store(node: Node, dataset: pydicom.Dataset) -> int:
    """Send by pynetdicom; the status."""
    ae = AE(ae_title="PYNETDICOM")
    ae.add_requested_context(CTImageStorage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    association = ae.associate("127.0.0.1", node.listener.port)
    assert association.is_established
    try:
        return int(association.send_c_store(dataset).Status)
    finally:
        association.release()


def test_an_echo_is_answered(start: Start) -> None:
    node, ae = start(), AE()
    ae.add_requested_context(Verification)

    association = ae.associate("127.0.0.1", node.listener.port)

    assert association.is_established
    assert association.send_c_echo().Status == 0x0000
    association.release()
    assert association.is_released


@pytest.mark.parametrize(
    ("admission", "names", "answer"),
    [
        (Admission(ae_title="MEDMLLM"), {"called": "OTHER"}, 2),
        (Admission(ae_title="MEDMLLM", check_called_ae=True), {}, 2),
        (Admission(ae_title="MEDMLLM", check_called_ae=True), {"called": "OTHER"}, 3),
        (Admission(ae_title="MEDMLLM", calling_aes=frozenset({"CT1"})), {"calling": "CT1"}, 2),
        (Admission(ae_title="MEDMLLM", calling_aes=frozenset({"CT1"})), {"calling": "CT2"}, 3),
        (Admission(ae_title="MEDMLLM", networks=("127.0.0.0/8",)), {}, 2),
        (Admission(ae_title="MEDMLLM", networks=("10.0.0.0/8",)), {}, None),
    ],
)
def test_only_those_who_may_are_let_in(
    start: Start, admission: Admission, names: dict[str, str], answer: int | None
) -> None:
    node = start(admission=admission)

    connection, kind = asked(node, **names)

    connection.close()
    assert kind == answer


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (by_hand.request(about=None), REJECTED),
        (by_hand.request(about="1.2.3"), REJECTED),
        (by_hand.request(more=by_hand.context(3, abstract=None)), None),
        (by_hand.request(more=by_hand.context(3, abstract=CTImageStorage, transfer=None)), None),
    ],
    ids=["about nothing", "about something else", "no abstract syntax", "no transfer syntax"],
)
def test_a_request_that_is_none_gets_no_association_and_is_no_defect(
    start: Start, said: bytes, answer: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    node = start()

    with by_hand.connected(node.listener.port) as connection:
        assert by_hand.asked(connection, said) == answer

    assert not [one for one in caplog.records if one.levelname == "ERROR"]


def test_more_associations_than_allowed_are_refused_for_now(start: Start) -> None:
    node = start(associations=1)

    with associated(node):
        second, refused = asked(node)
        second.close()
    until = time.monotonic() + 5
    while node.listener.associations and time.monotonic() < until:
        time.sleep(0.01)
    third, taken = asked(node)
    third.close()

    assert (refused, taken) == (REJECTED, ACCEPTED)


def test_out_of_resources_is_said_and_the_association_goes_on(start: Start, study: Path) -> None:
    room = [False]
    node = start(admit=lambda: room[0])
    dataset = pydicom.dcmread(files_of(study)[0])

    refused = store(node, dataset)
    room[0] = True

    assert refused == 0xA700
    assert node.records == []
    assert store(node, dataset) == 0x0000


def test_too_large_an_instance_is_refused(start: Start, study: Path) -> None:
    node = start(limits=Limits(idle_s=5, instance_bytes=2000))

    assert store(node, pydicom.dcmread(files_of(study)[0])) == 0xA700
    assert node.records == []


@pytest.mark.parametrize("uid", [b"../../x", b"1.2.3/4", b"abc", b"1" * 65, b"1.2\0.3"])
@pytest.mark.parametrize(("of_class", "expected"), [(False, 0x0117), (True, 0x0122)])
def test_a_uid_that_is_none_is_refused(start: Start, uid: bytes, of_class: bool, expected: int) -> None:
    node = start()
    said = c_store(b"1.2", b"dataset", class_uid=uid) if of_class else c_store(uid, b"dataset")

    with associated(node) as connection:
        connection.sendall(said)
        status = status_of(connection)

    assert status == expected
    assert node.records == []
    assert all(path.suffix == ".segment" for path in node.folder.iterdir())


def test_a_sender_that_breaks_off_leaves_nothing_of_that_instance(start: Start) -> None:
    node = start()

    with associated(node) as connection:
        connection.sendall(c_store(b"1.2.3", b"x" * 1000)[:-10])
    with associated(node) as connection:
        connection.sendall(c_store(b"1.2.4", b"y" * 1000))
        status = status_of(connection)

    assert status == 0x0000
    assert [one.facts.sop_instance_uid for one in node.records] == ["1.2.4"]


def test_a_command_in_pieces_is_understood(start: Start) -> None:
    node = start()
    whole = c_store(b"1.2.3", b"x" * 1000, command_pieces=7, data_pieces=5)

    with associated(node) as connection:
        for at in range(0, len(whole), 11):
            connection.sendall(whole[at : at + 11])
        status = status_of(connection)

    assert status == 0x0000
    assert dataset_of(read_record(node.folder, node.records[0])) == b"x" * 1000


def test_a_slow_sender_is_cut_off(start: Start) -> None:
    node = start(limits=Limits(idle_s=0.3, pdu_s=0.5))

    with associated(node) as connection:
        whole = c_store(b"1.2.3", b"x" * 1000)
        with suppress(OSError):
            for at in range(len(whole)):
                connection.sendall(whole[at : at + 1])
                time.sleep(0.01)

    assert node.records == []


def test_who_says_nothing_is_cut_off(start: Start) -> None:
    node = start(request_s=0.2)

    with socket.create_connection(("127.0.0.1", node.listener.port)) as connection:
        connection.settimeout(5)
        answer = connection.recv(1)

    assert answer == b""


def test_what_is_more_than_storage_is_handed_over_untouched(start: Start) -> None:
    taken: list[bytes] = []

    def take(connection: socket.socket, address: tuple[str, int]) -> None:
        taken.append(connection.recv(6))
        connection.close()

    node = start(hand_over=take)

    connection, _ = asked(node, wanted=ModalityWorklistInformationFind)

    connection.close()
    assert [one[0] for one in taken] == [1]


def test_a_port_in_use_says_so(start: Start, tmp_path: Path) -> None:
    node = start()

    with pytest.raises(SettingsError, match="can't be listened on"):
        Listener(
            Port(port=node.listener.port),
            Admission(ae_title="X"),
            Spool(tmp_path / "other"),
            received=lambda record: None,
        )


def test_it_closes_while_somebody_sends(start: Start) -> None:
    node = start()
    with associated(node) as connection:
        connection.sendall(c_store(b"1.2.3", b"x" * 1000)[:-10])

        began = time.monotonic()
        node.listener.close(grace_s=0.2)

        assert time.monotonic() - began < 5
        assert connection.recv(10) in (b"", b"\x07\0\0\0\0\x04\0\0\x02\0")


@pytest.mark.parametrize("seed", range(40))
def test_noise_breaks_nothing(start: Start, seed: int) -> None:
    noise, node = random.Random(seed), start()

    for _ in range(5):
        whole = bytearray(c_store(b"1.2.3", noise.randbytes(noise.randrange(3000))))
        for _ in range(noise.randrange(1, 6)):
            whole[noise.randrange(len(whole))] = noise.randrange(256)
        cut = noise.randrange(len(whole) + 1)
        if noise.random() < 0.3:
            with socket.create_connection(("127.0.0.1", node.listener.port)) as connection, suppress(OSError):
                connection.sendall(bytes(whole[:cut]))
        else:
            with associated(node) as connection, suppress(OSError):
                connection.sendall(bytes(whole[:cut]))

    with associated(node) as connection:
        connection.sendall(c_store(b"1.2.99", b"still here"))
        assert status_of(connection) == 0x0000
    assert node.records[-1].facts.sop_instance_uid == "1.2.99"


def associated(node: Node) -> socket.socket:
    """A connection whose association for CT was agreed on as context 1."""
    connection, kind = asked(node)
    assert kind == ACCEPTED
    return connection


def asked(
    node: Node, *, address: str = "127.0.0.1", wanted: str = CTImageStorage, **names: str
) -> tuple[socket.socket, int | None]:
    """A connection on which an association was asked for, and the kind of PDU that answered."""
    connection = by_hand.connected(node.listener.port, address=address)
    return connection, by_hand.asked(connection, by_hand.request(wanted=[wanted], **names))
