"""The pictures of each report and its page, made once the report is on its way: only people wait for them.

Until they are made the replies that the report was read from are kept. So where a node ends before that, they
are made after its next start, by the same reading, without the model; and only if it shows the same pictures.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medmllm_plugin.dicom_bridge import listing
from medmllm_plugin.dicom_bridge.checkpoint import forget
from medmllm_plugin.dicom_bridge.jobs import Jobs, ReportRow
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Store, StudyRow
from medmllm_plugin.errors import CancelledError, MedMLLMError, OutputError, RetrieveError
from medmllm_plugin.outputs import more_files
from medmllm_plugin.report import Report
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.writing import PAGE, is_of, write_pictures

log = logging.getLogger(__name__)

KIND = "report"
"""Of output folders, as `medmllm read` writes them."""

PATIENCE_S = 2.0
"""How long pictures wait at most for their report to be delivered."""
MOST_WAITING = 4
"""Reports whose pictures wait; whoever brings more makes them at once."""
_LOOK_S = 0.02
_REST_S = 5.0
_ON_ITS_WAY = (State.REPORTED, State.DELIVERING)
_NOT_READ = (State.ARRIVING, State.COMPLETE, State.READING)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shown:
    """A report that is written, and the pictures that it was read from."""

    study_uid: str
    folder: Path
    """Where it is."""
    report: Report
    slices: SliceSet
    priors: tuple[SliceSet, ...]
    replies: Path
    """Where the replies are kept that it was read from."""
    rubbish: tuple[Path, ...] = ()
    """Folders that can be deleted."""
    since: float = field(default_factory=time.monotonic)
    """When it was written, by a clock that never jumps."""


class Pictures:
    """Makes the pictures of a node's reports, in a thread of its own."""

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        settings: NodeSettings,
        again: Callable[[StudyRow, ReportRow], Shown],
        *,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what is needed.

        Args:
            store: Of the studies.
            jobs: Of this node.
            settings: Of this node.
            again: Reads a study again, by kept replies alone.
            wake: Called when there is something to make.
        """
        self._store, self._jobs, self._settings, self._again = store, jobs, settings, again
        self._wake = wake
        self._waiting: deque[Shown] = deque()
        self._lock = threading.Lock()
        self._left: list[tuple[StudyRow, ReportRow, Path]] = []

    def put(self, shown: Shown) -> None:
        """Have the pictures of a report made soon."""
        with self._lock:
            room = len(self._waiting) < MOST_WAITING
            if room:
                self._waiting.append(shown)
        if room:
            self._wake()
        else:
            self._make(shown)

    def take_up(self) -> None:
        """Find the reports of this node whose pictures were not made when it ended."""
        self._left = list(self._unmade())

    def make_next(self) -> float:
        """Make the pictures of one report.

        Returns:
            Seconds until there may be something to make.
        """
        with self._lock:
            shown = self._waiting[0] if self._waiting else None
        if shown is None:
            return self._make_left()
        if time.monotonic() - shown.since < PATIENCE_S:
            study = self._store.study(shown.study_uid)
            if study is not None and study.state in _ON_ITS_WAY:
                return _LOOK_S
        with self._lock:
            self._waiting.popleft()
        if self._make(shown):
            return 0.0
        with self._lock:
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append(shown)
        return _REST_S

    def finish(self) -> None:
        """Make what waits."""
        while self._waiting:
            self._make(self._waiting.popleft())

    def _make(self, shown: Shown) -> bool:
        """Whether there is nothing left to do for the pictures of a report."""
        for one in shown.rubbish:
            shutil.rmtree(one, ignore_errors=True)
        try:
            with more_files(shown.folder, kind=KIND) as part:
                write_pictures(shown.report, shown.slices, part, priors=shown.priors)
        except OutputError as error:
            if shown.folder.is_dir():
                log.error("the pictures of a report are not made yet: %s", error)
                return False  # the replies are kept, so that it can be done after the next start, too
        forget(shown.replies)
        return True

    def _make_left(self) -> float:
        if not self._left:
            return _REST_S
        study, report, replies = self._left.pop()
        try:
            shown = self._again(study, report)
            if not is_of(shown.slices, shown.folder):
                raise OutputError("read again it shows other pictures than its report was made from")
        except (MedMLLMError, OSError) as error:
            if isinstance(error, CancelledError) or (isinstance(error, RetrieveError) and error.retry):
                self._left.insert(0, (study, report, replies))
                return _REST_S
            log.error("the pictures of study %s can't be made any more: %s", study.key, error)
            forget(replies)
            return 0.0
        self._make(shown)
        return 0.0

    def _unmade(self) -> Iterator[tuple[StudyRow, ReportRow, Path]]:
        for replies in sorted((self._settings.folder / "work" / "replies").glob("*-*")):
            key, _, digest = replies.name.partition("-")
            study = listing.keyed(self._store, key)
            if study is None or study.owner != self._settings.node or study.state in _NOT_READ:
                continue
            report = self._jobs.report(study.study_uid, study.version + (study.state is State.REPORTED))
            if report is None or not report.digest.startswith(digest):
                continue
            if (self._settings.folder / report.folder / PAGE).exists():
                forget(replies)
            else:
                yield study, report, replies
