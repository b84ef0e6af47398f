"""A reading by the engine, followed in a thread of its own: HTTP, and making values of what came.

Nothing of Slicer, Qt, MRML or the DICOM database is touched there.

What happens is told through a queue that the main thread empties by a timer. The reading ends with one of
`Done`, `Cancelled` or `Failed`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .client import Address, CancelledError, Engine, EngineError, UnreachableError, Wish
from .sr_read import Documents, NoReportError, together

PATIENCE_S = 60.0
"""How long an engine that went away is waited for, seconds."""
_RETRY_S = 1.0

STAGES = {
    "sending": "sending the images",
    "waiting": "waiting for other readings",
    "reading": "reading the study",
    "model": "opening the model",
    "pictures": "making pictures",
    "thinking": "the model reads",
    "report": "writing the report",
    "fetching": "fetching the report",
}
"""What each stage is, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """How far it is."""

    words: str
    percent: int | None
    """Of this stage; None if not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The engine has it."""

    job: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What was read."""

    job: str
    documents: Documents | None
    """Its SRs; None of what isn't DICOM."""
    report: dict[str, Any]
    """`report.json`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """The reader stopped it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """It came to nothing."""

    words: str
    details: str
    job: str = ""
    """If it may still be fetched from the engine later."""


Event = Stage | Submitted | Done | Cancelled | Failed


class Reading:
    """One reading."""

    def __init__(
        self,
        address: Address,
        wish: Wish,
        *,
        study_uid: str = "",
        files: Sequence[str] = (),
        upload: str = "",
        job: str = "",
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Begin.

        Args:
            address: Of the engine.
            wish: What is asked.
            study_uid: Of a DICOM study; the engine has it, or `files` are sent first.
            files: DICOM files of the study (and of a prior one) to send; none if the engine has them.
            upload: A file that isn't DICOM, in place of a study.
            job: Of a reading that was begun before and is only followed.
            patience_s: How long an engine that went away is waited for.
        """
        self.address, self.job, self.upload = address, job, upload
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._wish, self._study_uid, self._files = wish, study_uid, tuple(files)
        self._patience_s, self._left = patience_s, False
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="MedMLLM reading", daemon=True)
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether its last event was told."""
        return self._ended.is_set()

    def cancel(self) -> None:
        """Stop it, on the engine too; `Cancelled` follows. Returns at once."""
        if not self._stop.is_set():
            self._stop.set()
            threading.Thread(target=self._cancel_there, name="MedMLLM cancel", daemon=True).start()

    def leave(self) -> None:
        """Follow no longer; the engine goes on reading."""
        self._left = True
        self._stop.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until it has ended, for scripts and tests; whether it has."""
        self._thread.join(timeout_s)
        return self.has_ended

    def _cancel_there(self) -> None:
        until = time.monotonic() + self._patience_s
        while not self._ended.is_set() and time.monotonic() < until:
            if not self.job:
                time.sleep(0.05)  # it is just being submitted
                continue
            engine = Engine(self.address)
            try:
                engine.cancel(self.job)
                return
            except UnreachableError:
                time.sleep(_RETRY_S)
            except EngineError:
                return
            finally:
                engine.close()

    def _work(self) -> None:
        engine = Engine(self.address)
        try:
            if not self.job:
                self._submit(engine)
            self._follow(engine)
        except CancelledError:
            self._tell(Cancelled())
        except EngineError as error:
            self._tell(Failed(words=str(error), details=error.details, job=self._resumable(error)))
        except NoReportError as error:
            self._tell(Failed(words=str(error), details=str(error), job=self.job))
        except Exception as error:  # a defect of ours must not leave the reader waiting
            words = f"a defect of the extension ({type(error).__name__}); press Resume, or read again"
            self._tell(Failed(words=words, details=repr(error), job=self.job))
        finally:
            engine.close()

    def _resumable(self, error: EngineError) -> str:
        lost = error.status in (404, 409) or isinstance(error, _EndedError)
        return "" if lost else self.job

    def _submit(self, engine: Engine) -> None:
        engine.about()
        self._check()
        if self.upload:
            self._stage("sending")
            self.job = engine.upload(self.upload, self._wish, stopped=self._stop.is_set)
        else:
            if self._files:
                self._stage("sending")
                last = [0.0]

                def told(done: int, total: int) -> None:
                    if done == total or time.monotonic() - last[0] > 0.1:
                        last[0] = time.monotonic()
                        self._stage("sending", done, total)

                engine.send(self._files, progress=told, stopped=self._stop.is_set)
            self._check()
            self.job = engine.submit(self._study_uid, self._wish)
        self.events.put(Submitted(job=self.job))

    def _follow(self, engine: Engine) -> None:
        lost_at: float | None = None
        while True:
            try:
                for told in engine.events(self.job):
                    lost_at = None
                    if self._left:
                        raise CancelledError
                    if self._heard(engine, told):
                        return
                # the engine closed the stream before the end, as it does when it is stopped
                raise UnreachableError(f"the engine at {self.address.host} stopped")
            except UnreachableError as error:
                now = time.monotonic()
                lost_at = now if lost_at is None else lost_at
                left = self._patience_s - (now - lost_at)
                if self._stop.is_set():
                    raise CancelledError from error
                if left <= 0:
                    raise EngineError(
                        f"the engine at {self.address.host} went away while it was reading; when it runs "
                        "again, "
                        "press Resume: it keeps the job",
                        details=error.details,
                    ) from error
                self.events.put(
                    Stage(words=f"the engine is away; trying for {left:.0f} s more", percent=None)
                )
                self._stop.wait(min(_RETRY_S, self._patience_s / 10))

    def _heard(self, engine: Engine, told: dict[str, Any]) -> bool:
        """Whether it was the last that there is to hear."""
        state = told.get("state")
        if state == "done":
            self._stage("fetching")
            names = [str(one) for one in told.get("objects") or ()]
            report = engine.report(self.job)
            contents = [engine.object(self.job, one) for one in _wanted(names)]
            # bytes to values, nothing of Slicer: a long report would stop the main thread for too long
            documents = together(contents) if contents else None
            self._tell(Done(job=self.job, documents=documents, report=report))
        elif state == "cancelled":
            raise CancelledError
        elif state == "failed":
            raise _EndedError(f"the engine couldn't read it: {told.get('error') or 'it says no more'}")
        else:
            stage = str(told.get("stage") or "waiting") if state == "reading" else "waiting"
            self._stage(stage, int(told.get("done") or 0), int(told.get("total") or 0))
            return False
        return True

    def _check(self) -> None:
        if self._stop.is_set():
            raise CancelledError

    def _stage(self, stage: str, done: int = 0, total: int = 0) -> None:
        name, _, which = stage.partition(" ")
        words = f"{STAGES.get(name, name)}{f' ({which})' if which else ''}"
        percent = min(100, round(100 * done / total)) if total else None
        self.events.put(Stage(words=words, percent=percent))

    def _tell(self, last: Event) -> None:
        self.events.put(last)
        self._ended.set()


class _EndedError(EngineError):
    """The job failed, so that there is nothing to resume."""


def _wanted(names: Sequence[str]) -> list[str]:
    """The SRs, that of the findings first; of key images and points there is no use here."""
    known = [one for one in ("findings.dcm", "report.dcm") if one in names]
    return known or [one for one in names if one.endswith(".dcm") and "key" not in one]
