"""A PACS that answers what no PACS should: it is said so, and nothing counts as taken that isn't."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from medmllm_plugin.dicom_bridge.associating import Patience
from medmllm_plugin.dicom_bridge.delivery import Certainty, Delivered
from medmllm_plugin.dicom_bridge.delivery.dimse import DimseDestination
from medmllm_plugin.dicom_bridge.delivery.objects import objects_of
from medmllm_plugin.dicom_bridge.delivery.stow import StowDestination
from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.retrieve.dimse import DimseArchive
from medmllm_plugin.dicom_bridge.retrieve.web import WebArchive
from medmllm_plugin.errors import DeliveryError, RetrieveError
from medmllm_plugin.phantoms import write_study
from tests.by_hand import acceptance, answering, context, item, pdus, response

C_FIND_RSP, PENDING = 0x8020, 0xFF00
ABORT = struct.pack(">BBIBBBB", 7, 0, 4, 0, 0, 9, 99)
STORED, FAILED, INSTANCE, REASON = "00081199", "00081198", "00081155", "00081197"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    write_study(folder, kind="ct-chest", seed=3, slices=16, matrix=64)
    return sorted(folder.rglob("*.dcm"))[:2]


def delivered(images: list[Path], *answers: bytes) -> Delivered:
    """Images are sent to a PACS that gives these answers."""
    with answering(*answers) as port:
        peer = Peer(ae_title="PACS", host="127.0.0.1", port=port)
        patience = Patience(connect=5, associate=5, answer=5)
        return DimseDestination(peer, calling_ae="ROUTER", patience=patience).deliver(images)


def test_sound_answers_are_taken(images: list[Path]) -> None:
    assert delivered(images, acceptance(), response(to=1), response(to=2)).certainty is Certainty.SENT


@pytest.mark.parametrize(
    ("answer", "said", "retry"),
    [
        (acceptance(user=b""), "found PDUs of no known length", False),
        (acceptance(user=item(0x50, item(0x51, b"\0\0\0\x01"))), "found PDUs of 1 bytes", False),
        (acceptance(contexts=item(0x21, b"\x01\0\0\0")), "context with no transfer syntax", False),
        (acceptance(contexts=b""), "takes none of what it was asked for", False),
        (acceptance(contexts=context(99, abstract=None)), "takes none of what it was asked for", False),
        (acceptance(contexts=item(0x21, b"\x01\0\0\0" + item(0x40, b"1.2.3"))), "doesn't take", False),
        (struct.pack(">BBI", 2, 0, 0xFFFFFFFF), "broke off, or gave no sound answer", True),
        (struct.pack(">BBI", 99, 0, 4) + b"odd!", "broke off, or gave no sound answer", True),
        (ABORT, "broke off, or gave no sound answer", True),
        (response(), "broke off, or gave no sound answer", True),
    ],
)
def test_an_acceptance_that_is_none_is_said_to_be_none(
    images: list[Path], answer: bytes, said: str, retry: bool
) -> None:
    with pytest.raises(DeliveryError, match=said) as caught:
        delivered(images, answer)
    assert caught.value.retry is retry


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([response(to=77)], "answered something else"),
        ([response(command=0x8030)], "answered something else"),
        ([response(command=0x0001)], "answered something else"),
        ([response() + response(), b""], "answered something else"),
        ([response(status=None)], "broke off"),
        ([response(command=0x7777)], "broke off"),
        ([pdus(bytes(20), 1, 1)], "broke off"),
        ([acceptance()], "broke off"),
        ([ABORT], "broke off"),
        ([response(), ABORT], "broke off"),
    ],
)
def test_only_the_answer_to_an_image_says_that_it_was_taken(
    images: list[Path], answers: list[bytes], said: str
) -> None:
    with pytest.raises(DeliveryError, match=said) as caught:
        delivered(images, acceptance(), *answers)
    assert caught.value.retry


@pytest.mark.parametrize(
    ("value", "instances"),
    [(b"300 ", 300), (b"1e999 ", None), (b"many", None), (b"1\\2 ", None), (b"-4", None), (b"\xb2 ", None)],
)
def test_a_count_that_is_none_is_not_said(value: bytes, instances: int | None) -> None:
    found = struct.pack("<HH2sH", 0x0020, 0x000D, b"UI", 6) + b"1.2.3\0"
    found += struct.pack("<HH2sH", 0x0020, 0x1208, b"IS", len(value)) + value
    answers = response(command=C_FIND_RSP, status=PENDING, dataset=found) + response(command=C_FIND_RSP)

    with answering(acceptance(), answers) as port:
        archive = DimseArchive(Peer(ae_title="PACS", host="127.0.0.1", port=port), calling_ae="ROUTER")
        (study,) = archive.find({"PatientID": "4711"})

    assert (study.study_uid, study.instances) == ("1.2.3", instances)


@contextmanager
def web_service(*, status: int, stored: bytes, found: bytes) -> Iterator[str]:
    """The address of a DICOMweb service that gives these two answers, whatever it is told and asked."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

        def do_POST(self) -> None:
            while chunk := int(self.rfile.readline(), 16):
                self.rfile.read(chunk + 2)
            self.answer(status, stored)

        def do_GET(self) -> None:
            self.answer(200, found)

        def answer(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def in_json(attributes: dict[str, list[Any]]) -> bytes:
    return json.dumps({tag: {"Value": values} for tag, values in attributes.items()}).encode()


def listed(uid: str, reason: Any = None) -> Any:
    """An item that names an instance and, if it was not stored, why."""
    item = {INSTANCE: {"vr": "UI", "Value": [uid]}}
    return item if reason is None else {**item, REASON: {"vr": "US", "Value": [reason]}}


def stored(images: list[Path], status: int, says: bytes, finds: bytes = b"[]") -> Delivered:
    """Images are sent to a service that gives these answers."""
    with (
        web_service(status=status, stored=says, found=finds) as url,
        closing(StowDestination(url)) as destination,
    ):
        return destination.deliver(images)


def test_what_a_service_lists_or_finds_is_taken(images: list[Path]) -> None:
    first, second = (one.sop_instance_uid for one in objects_of(images, ours=True))
    both = in_json({STORED: [listed(first), listed(second)]})
    one_already = in_json({STORED: [listed(first)], FAILED: [listed(second, 0x0111)]})
    found = json.dumps([{"00080018": {"Value": [uid]}} for uid in (first, second)]).encode()

    assert stored(images, 200, both).certainty is Certainty.SENT
    assert stored(images, 409, one_already).certainty is Certainty.SENT
    assert stored(images, 200, b"", found).certainty is Certainty.FOUND


@pytest.mark.parametrize(
    "says",
    [
        b"<html>Please sign in</html>",
        b"",
        b"{}",
        b"[]",
        b"7",
        b"[" * 100_000,
        in_json({STORED: [listed("1.2.3")]}),
        in_json({STORED: ["odd", None, {INSTANCE: ["1.2"]}, {INSTANCE: {"Value": {"a": 1}}}]}),
        json.dumps({STORED: ["no attribute"]}).encode(),
    ],
    ids=lambda says: repr(says[:20]),
)
def test_success_alone_does_not_say_that_an_image_was_taken(images: list[Path], says: bytes) -> None:
    with pytest.raises(DeliveryError, match="neither lists nor finds 2 of 2 objects") as caught:
        stored(images, 200, says, says)
    assert caught.value.retry


@pytest.mark.parametrize(
    ("reason", "said"),
    [("272", "0x0110"), ("odd", "0x0110"), (None, "0x0110"), (float("inf"), "0x0110"), (0xA900, "0xa900")],
)
def test_what_a_service_says_to_have_failed_has_failed(images: list[Path], reason: Any, said: str) -> None:
    first, second = (one.sop_instance_uid for one in objects_of(images, ours=True))
    failed = {**listed(second), REASON: {"Value": [reason]}}
    with pytest.raises(DeliveryError, match=rf"refused CT Image Storage \(IM0002.dcm\) \({said}\)"):
        stored(images, 200, in_json({STORED: [listed(first)], FAILED: [failed]}))


@pytest.mark.parametrize(
    "answer",
    [b"<html>Please sign in</html>", b"{}", b"[7]", b"null", b"[" * 100_000],
    ids=lambda answer: repr(answer[:20]),
)
def test_an_answer_that_is_no_list_of_studies_is_refused(answer: bytes) -> None:
    with (
        web_service(status=200, stored=b"", found=answer) as url,
        closing(WebArchive(url)) as archive,
        pytest.raises(RetrieveError, match="gave no DICOM JSON"),
    ):
        archive.studies(patient_id="4711")
