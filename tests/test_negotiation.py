"""What is asked for when an association begins: read, or refused, whatever bytes it is made of."""

from __future__ import annotations

import random

import pytest
from pydicom.uid import CTImageStorage

from medmllm_plugin.dicom_bridge.negotiation import agree, is_plain, not_dicom, read_request, titled
from tests.by_hand import context, request

KINDS = (0x00, 0x01, 0x10, 0x20, 0x30, 0x40, 0x50, 0x51, 0x52, 0xFF)
"""Bytes that begin items, and such as end them."""


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_request_is_answered_or_refused(seed: int) -> None:
    chance = random.Random(seed)
    whole = request(wanted=[CTImageStorage, "1.2.840.10008.1.1"])
    answered = 0
    for _ in range(1_500):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            byte = chance.choice(KINDS) if chance.random() < 0.4 else chance.randrange(256)
            damaged[chance.randrange(6, len(damaged))] = byte
        try:
            asked = read_request(bytes(damaged))
        except ValueError:
            continue
        titled(asked.calling_ae_title)
        is_plain(asked)
        if not_dicom(asked) is None:
            answered += bool(agree(asked).answer)
    assert answered > 200


@pytest.mark.parametrize(
    "more",
    [context(3, abstract=None), context(3, abstract=CTImageStorage, transfer=None)],
    ids=["no abstract syntax", "no transfer syntax"],
)
def test_a_context_that_says_only_half_is_refused(more: bytes) -> None:
    with pytest.raises(ValueError, match="presentation context"):
        read_request(request(more=more))


@pytest.mark.parametrize(
    ("about", "refused"), [("1.2.840.10008.3.1.1.1", None), ("1.2.3", (1, 1, 2)), (None, (1, 1, 2))]
)
def test_only_requests_about_dicom_are_taken(about: str | None, refused: tuple[int, int, int] | None) -> None:
    assert not_dicom(read_request(request(about=about))) == refused
