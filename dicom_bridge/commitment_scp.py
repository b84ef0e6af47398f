"""Storage commitment from the side of who is asked: whether we keep what we were sent (PS3.4 J).

The question is taken at once; the answer goes out on an association of its own to a peer that we know, and on
the one on which was asked to anybody else.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.association import Association

from medmllm_plugin.dicom_bridge.associating import associated, wanted
from medmllm_plugin.dicom_bridge.commitment import (
    ALL_KEPT,
    REQUEST,
    SOME_FAILED,
    SOP_CLASS,
    SOP_INSTANCE,
    referenced,
)
from medmllm_plugin.dicom_bridge.delivery.values import Reference
from medmllm_plugin.dicom_bridge.negotiation import titled
from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.errors import DeliveryError, MedMLLMError

log = logging.getLogger(__name__)

Holds = Callable[[Sequence[str]], Mapping[str, str]]
"""Of SOP Instance UIDs those that are durable here, with their SOP Class UIDs."""

NO_SUCH_OBJECT, CLASS_INSTANCE_CONFLICT = 0x0112, 0x0119
"""Failure Reasons (PS3.3 C.14.1.1)."""

_INVALID_ARGUMENT, _NO_SUCH_ACTION, _RESOURCE_LIMITATION = 0x0115, 0x0123, 0x0213
_MOST_QUESTIONS = 1000
_INDEXED_S = 5.0
"""How long an instance that was received may take to be known."""
_TRIES_S = (0.0, 1.0, 10.0, 60.0)
"""How long to wait before each try to bring an answer; who hears nothing asks again (PS3.4 J.3.2.4)."""


class CommitmentAnswers:
    """Takes questions from any association and answers them in a thread of its own."""

    def __init__(self, holds: Holds, peers: Iterable[Peer], *, calling_ae: str) -> None:
        """Begin.

        Args:
            holds: What is durable here.
            peers: Whom we know.
            calling_ae: Our title.
        """
        self._holds, self._calling_ae = holds, calling_ae
        self.know(peers)
        self._waiting: queue.Queue[tuple[Association, Dataset] | None] = queue.Queue(_MOST_QUESTIONS)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="medmllm-commitment", daemon=True)
        self._thread.start()

    def know(self, peers: Iterable[Peer]) -> None:
        """Take whom we know from now on."""
        self._peers = {one.ae_title.strip(): one for one in peers}

    def on_action(self, event: evt.Event) -> tuple[int, None]:
        """Take an N-ACTION of pynetdicom."""
        if event.action_type != REQUEST:
            return _NO_SUCH_ACTION, None
        question = event.action_information
        if not question.get("TransactionUID") or not question.get("ReferencedSOPSequence"):
            return _INVALID_ARGUMENT, None
        try:
            self._waiting.put_nowait((event.assoc, question))
        except queue.Full:
            return _RESOURCE_LIMITATION, None
        return 0x0000, None

    def close(self) -> None:
        """Answer no more."""
        self._closing.set()
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (one := self._waiting.get()) is not None and not self._closing.is_set():
            try:
                self._answer(*one)
            except Exception:
                log.exception("a question for storage commitment was not answered; it will be asked again")

    def _answer(self, association: Association, question: Dataset) -> None:
        event_type, answer = self.judged(question)
        calling = titled(association.requestor.ae_title)
        peer = self._peers.get(calling)
        for pause in _TRIES_S:
            if self._closing.wait(pause):
                return
            try:
                if peer is None:
                    _report(association, event_type, answer)
                else:
                    self._report_to(peer, event_type, answer)
                return
            except (MedMLLMError, RuntimeError, OSError, ValueError) as error:
                said = error if isinstance(error, MedMLLMError) else type(error).__name__
                log.warning("%s can't be told what we keep: %s", calling, said)
                if peer is None:
                    return

    def judged(self, question: Dataset) -> tuple[int, Dataset]:
        """Event type and information that answer a question (PS3.4 J.3.3.1)."""
        asked = [_reference(one) for one in question.ReferencedSOPSequence]
        held = self._held([uid for _, uid in asked])
        kept, failed = [], []
        for class_uid, uid in asked:
            if held.get(uid) == class_uid:
                kept.append(referenced((class_uid, uid)))
            else:
                reason = CLASS_INSTANCE_CONFLICT if uid in held else NO_SUCH_OBJECT
                failed.append(referenced((class_uid, uid), reason=reason))
        answer = Dataset()
        answer.TransactionUID = question.TransactionUID
        if kept:
            answer.ReferencedSOPSequence = kept
        if failed:
            answer.FailedSOPSequence = failed
        return SOME_FAILED if failed else ALL_KEPT, answer

    def _held(self, uids: Sequence[str]) -> Mapping[str, str]:
        """What is durable of these; what came just now may take a moment to be known."""
        until = time.monotonic() + _INDEXED_S
        while True:
            held = self._holds(uids)
            if all(uid in held for uid in uids) or time.monotonic() > until or self._closing.wait(0.2):
                return held

    def _report_to(self, peer: Peer, event_type: int, answer: Dataset) -> None:
        contexts = [wanted(SOP_CLASS, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]
        with associated(
            peer, contexts, calling_ae=self._calling_ae, failure=DeliveryError, as_scp=[SOP_CLASS]
        ) as association:
            _report(association, event_type, answer)


def _report(association: Association, event_type: int, answer: Dataset) -> None:
    status, _ = association.send_n_event_report(answer, event_type, SOP_CLASS, SOP_INSTANCE)
    if status.get("Status") != 0x0000:
        raise ValueError("the answer was not taken")


def _reference(one: Dataset) -> Reference:
    return str(one.get("ReferencedSOPClassUID") or ""), str(one.get("ReferencedSOPInstanceUID") or "")
