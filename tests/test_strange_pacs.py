"""A PACS that answers what no PACS should: it is said so, and nothing counts as taken that isn't."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from medmllm_plugin.dicom_bridge.associating import Patience
from medmllm_plugin.dicom_bridge.delivery import Certainty, Delivered
from medmllm_plugin.dicom_bridge.delivery.dimse import DimseDestination
from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.retrieve.dimse import DimseArchive
from medmllm_plugin.errors import DeliveryError
from medmllm_plugin.phantoms import write_study
from tests.by_hand import acceptance, answering, context, item, pdus, response

C_FIND_RSP, PENDING = 0x8020, 0xFF00
ABORT = struct.pack(">BBIBBBB", 7, 0, 4, 0, 0, 9, 99)


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
