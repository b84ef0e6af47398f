"""Storage commitment from the side of who asks for it: what was asked, and what was answered (PS3.4 J).

An answer may come on the association on which was asked, or minutes later on one of its own. What comes for
a question that is forgotten, after a restart, does no harm: the question is asked again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import evt
from pynetdicom.sop_class import StorageCommitmentPushModel

from medmllm_plugin.dicom_bridge.delivery.values import Reference

SOP_CLASS = str(StorageCommitmentPushModel)
SOP_INSTANCE = "1.2.840.10008.1.20.1.1"
"""The well-known SOP Instance of that class (PS3.4 J.3.1.3)."""
REQUEST = 1
"""Action type: Request Storage Commitment (PS3.4 J.3.2.1)."""
ALL_KEPT, SOME_FAILED = 1, 2
"""Event types (PS3.4 J.3.3.1)."""

_REMEMBERED = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What became of a question."""

    failed: tuple[tuple[str, int], ...]
    """SOP Instance UIDs that are not kept, and the Failure Reason (0008,1197)."""


class Commitments:
    """Questions to all peers and their answers, from any thread."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self._turn = threading.Condition()
        self._asked: OrderedDict[str, tuple[str, frozenset[Reference]]] = OrderedDict()
        self._answers: OrderedDict[str, Answer] = OrderedDict()

    def ask(self, whom: str, objects: Sequence[Reference]) -> Dataset:
        """The action information of a question, whose answer is waited for from now on (PS3.4 J.3.2.1).

        Args:
            whom: A name of who is asked.
            objects: Which it shall keep.
        """
        question = Dataset()
        question.TransactionUID = generate_uid(None)  # random, so nobody else can answer it
        question.ReferencedSOPSequence = [referenced(one) for one in objects]
        with self._turn:
            self._asked[question.TransactionUID] = whom, frozenset(objects)
            while len(self._asked) > _REMEMBERED:
                self._answers.pop(self._asked.popitem(last=False)[0], None)
        return question

    def came(self, event_information: Dataset) -> bool:
        """Take an answer (PS3.4 J.3.3.1); False if nobody waits for it.

        What was asked for and isn't said to be kept counts as failed.
        """
        transaction = str(event_information.get("TransactionUID") or "")
        kept = {
            (str(one.get("ReferencedSOPClassUID")), str(one.get("ReferencedSOPInstanceUID")))
            for one in event_information.get("ReferencedSOPSequence") or ()
        }
        reasons = {
            str(one.get("ReferencedSOPInstanceUID")): int(one.get("FailureReason") or 0x0110)
            for one in event_information.get("FailedSOPSequence") or ()
        }
        with self._turn:
            if transaction not in self._asked:
                return False
            _, objects = self._asked[transaction]
            failed = tuple(sorted((uid, reasons.get(uid, 0x0110)) for _, uid in objects - kept))
            self._answers[transaction] = Answer(failed=failed)
            self._turn.notify_all()
        return True

    def wait(self, transaction: str, seconds: float) -> Answer | None:
        """The answer to a question; None if it doesn't come in time, which it still may later."""
        until = time.monotonic() + seconds
        with self._turn:
            while transaction not in self._answers:
                left = until - time.monotonic()
                if left <= 0:
                    return None
                self._turn.wait(left)
            return self._taken(transaction)

    def late(self, whom: str, objects: Sequence[Reference]) -> Answer | None:
        """An answer that came after nobody waited any more; it is told once."""
        wanted = frozenset(objects)
        with self._turn:
            for transaction, (asked, about) in self._asked.items():
                if asked == whom and about == wanted and transaction in self._answers:
                    return self._taken(transaction)
        return None

    def on_event(self, event: evt.Event) -> tuple[int, None]:
        """Answer an N-EVENT-REPORT of pynetdicom; one that nobody waits for is taken all the same."""
        self.came(event.event_information)
        return 0x0000, None

    def _taken(self, transaction: str) -> Answer:
        del self._asked[transaction]
        return self._answers.pop(transaction)


def referenced(one: Reference, *, reason: int | None = None) -> Dataset:
    """An item of a sequence of references; with why it failed in Failed SOP Sequence (0008,1198)."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one
    if reason is not None:
        item.FailureReason = reason
    return item
