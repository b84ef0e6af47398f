"""Takes reports, and studies that are passed on, to one destination, for as long as it takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydicom import dcmread

from medmllm_plugin.dicom_bridge.delivery import Certainty, Delivered, Destination, Reference
from medmllm_plugin.dicom_bridge.forwarding import Forwarded
from medmllm_plugin.dicom_bridge.jobs import Delivery, Jobs, backoff
from medmllm_plugin.dicom_bridge.made_reports import AS_IT_CAME
from medmllm_plugin.dicom_bridge.states import Sent
from medmllm_plugin.errors import DeliveryError, MedMLLMError
from medmllm_plugin.outputs import printable

log = logging.getLogger(__name__)

LONGEST_REST_S = 15.0
"""A destination that failed is left alone for so long at most; what waits for it longer is tried in turn."""

Announce = Callable[[str, Mapping[str, Sequence[Reference]]], None]
"""Takes a study and its objects by Series Instance UID; a DeliveryError says that nobody was told."""

_NAMES = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")
_STATES = {
    Certainty.COMMITTED: Sent.COMMITTED,
    Certainty.FOUND: Sent.COMMITTED,
    Certainty.SENT: Sent.SENT,
    Certainty.WAITING: Sent.ASKED,
}
"""What a destination's answer means for a report."""


class Sender:
    """Takes one node's reports to one destination."""

    def __init__(
        self,
        name: str,
        destination: Destination,
        jobs: Jobs,
        folder: Path,
        *,
        forwarded: Forwarded,
        announce: Announce | None = None,
        retry_max_s: float = 300.0,
    ) -> None:
        """Take what is needed.

        Args:
            name: Of the destination, as the settings have it.
            destination: Where to.
            jobs: Of this node.
            folder: Of this node.
            forwarded: The instances of studies that are passed on as they came.
            announce: Tells somebody what is at hand there, once it is.
            retry_max_s: Longest wait between two tries of a report.
        """
        self._name, self._destination, self._jobs, self._folder = name, destination, jobs, folder
        self._forwarded, self._announce = forwarded, announce
        self.retry_max_s = retry_max_s
        self._failures = 0

    def send_next(self) -> float:
        """Send what is next, or ask whether what was sent is kept.

        Returns:
            Seconds until there may be something to do again.
        """
        delivery = self._jobs.next_delivery(self._name)
        if delivery is None:
            return 1.0
        try:
            done = self._announced(delivery, self._done(delivery))
        except Exception as error:
            return self._failed(delivery, error)
        if self._failures:
            self._failures = 0
            self._jobs.hurry(self._name)
        state = _STATES[done.certainty]
        wait = backoff(delivery.attempts + 1, most_s=self.retry_max_s) if state is Sent.ASKED else 0.0
        self._jobs.sent(delivery, state, _line("; ".join(done.notes) or done.certainty.value), wait_s=wait)
        return 0.0

    def _done(self, delivery: Delivery) -> Delivered:
        report = delivery.report
        if report.version == AS_IT_CAME:
            if delivery.state is Sent.ASKED:
                return self._destination.confirm(self._forwarded.references(report.study_uid))
            with self._forwarded.files(report.study_uid) as paths:
                return self._destination.deliver(paths, ours=False)
        if delivery.state is Sent.ASKED:
            return self._destination.confirm(
                [(one.sop_class_uid, one.sop_instance_uid) for one in report.objects]
            )
        return self._destination.deliver([self._folder / report.folder / one.file for one in report.objects])

    def _announced(self, delivery: Delivery, done: Delivered) -> Delivered:
        """Say what is at hand, once that is sure; who can't be told for now has it all tried again."""
        if self._announce is None or done.certainty is Certainty.WAITING:
            return done
        report = delivery.report
        if report.version == AS_IT_CAME:
            series = self._forwarded.series(report.study_uid)
        else:
            series = _series([self._folder / report.folder / one.file for one in report.objects])
        try:
            self._announce(report.study_uid, series)
        except DeliveryError as error:
            if error.retry:
                raise
            return replace(done, notes=(*done.notes, str(error)))
        return done

    def _failed(self, delivery: Delivery, error: Exception) -> float:
        again = error.retry if isinstance(error, DeliveryError) else True
        reason = _line(
            str(error) if isinstance(error, MedMLLMError) else f"a defect of ours: {type(error).__name__}"
        )
        log.warning("%s: %s was not delivered: %s", self._name, _what(delivery), reason)
        if not again:
            self._jobs.sent(delivery, Sent.REFUSED, reason)
            return 0.0
        self._failures += 1
        wait = backoff(delivery.attempts + 1, most_s=self.retry_max_s)
        self._jobs.sent(delivery, Sent.WAITING, reason, wait_s=wait)
        return min(backoff(self._failures, first_s=0.5), LONGEST_REST_S)


def _series(paths: Sequence[Path]) -> dict[str, list[Reference]]:
    """Objects in files by Series Instance UID."""
    found: dict[str, list[Reference]] = {}
    for path in paths:
        one = dcmread(path, specific_tags=list(_NAMES), stop_before_pixels=True)
        class_uid, uid, series = (str(one.get(name)) for name in _NAMES)
        found.setdefault(series, []).append((class_uid, uid))
    return found


def _what(delivery: Delivery) -> str:
    return "a study" if delivery.report.version == AS_IT_CAME else "a report"


def _line(text: str) -> str:
    return " ".join(printable(text).split())
