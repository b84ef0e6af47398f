"""An answer reaches who asked, however late pynetdicom's own thread learns that it is to pause."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from medmllm_plugin.dicom_bridge.associating import associated, wanted
from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.errors import DeliveryError


@pytest.fixture
def peer() -> Iterator[Peer]:
    """Somebody who answers echoes."""
    ae = AE(ae_title="PEER")
    ae.add_supported_context(Verification)
    server = ae.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    yield Peer(ae_title="PEER", host="127.0.0.1", port=server.server_address[1])
    server.shutdown()


def never_pausing(association: Association, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have its own thread go on looking for messages, and answers come before they are waited for."""
    send = association.dimse.send_msg

    def send_and_tarry(*arguments: Any) -> None:
        send(*arguments)
        time.sleep(0.3)

    paused = property(lambda self: True, lambda self, value: None)
    monkeypatch.setattr(Association, "_is_paused", paused, raising=False)
    monkeypatch.setattr(association._reactor_checkpoint, "clear", lambda: None)
    monkeypatch.setattr(association.dimse, "send_msg", send_and_tarry)


def test_an_answer_is_kept_for_who_asked(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = [wanted(Verification, [ExplicitVRLittleEndian])]

    with associated(peer, contexts, calling_ae="US", failure=DeliveryError) as association:
        association.dimse_timeout = 2.0
        never_pausing(association, monkeypatch)
        answers = [association.send_c_echo().get("Status") for _ in range(3)]

    assert answers == [0x0000] * 3
