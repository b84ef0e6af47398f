"""Readings that a person asks for and waits for: of a study that is here, or of a file sent along.

They stand beside the node's own work: the study's state stays as it is, nothing is delivered, and the report
lies with the job. A job is a folder with what was asked and how far it is, so one that was cut short by the
end of the program is begun again at its next start.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from medmllm_plugin import pipeline
from medmllm_plugin.dicom_bridge.completion import images_of
from medmllm_plugin.dicom_bridge.layout import lay_out
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
from medmllm_plugin.dicom_bridge.opened_models import Models
from medmllm_plugin.dicom_bridge.picturing import KIND
from medmllm_plugin.dicom_bridge.store import Store
from medmllm_plugin.dicom_bridge.wishes import Wish, read_wish
from medmllm_plugin.dicom_bridge.worker import objects_of
from medmllm_plugin.errors import CancelledError, MedMLLMError, SettingsError, StudyError
from medmllm_plugin.outputs import printable, whole_folder

log = logging.getLogger(__name__)

MOST_WAITING = 100
"""Jobs that wait; more are refused."""
MOST_KEPT = 200
"""Jobs that are kept once they ended; older ones go."""

FILES = (".nii.gz", ".nii", ".nrrd", ".mha", ".zip", ".dcm")
"""What may be sent along, by the end of its name: NIfTI, NRRD, MetaImage, a zip of DICOM, a DICOM file."""

_RECORD, _RESULT = "job.json", "result"


class JobState(StrEnum):
    """How far a job is."""

    WAITING = "waiting"
    READING = "reading"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(kw_only=True, slots=True)
class Job:
    """A reading on request."""

    id: str
    wish: Wish
    created: float
    """Seconds since 1970."""
    state: JobState = JobState.WAITING
    stage: str = ""
    """As `opening.Progress` has it."""
    done: int = 0
    total: int = 0
    error: str = ""
    """Why it failed, in a line."""
    finished: float = 0.0
    outcome: str = ""
    """As the report's."""
    objects: tuple[str, ...] = ()
    """File names of its DICOM objects."""
    pictures: int = 0
    cancel: threading.Event = field(default_factory=threading.Event, repr=False)


class Desk:
    """Takes wishes, and reads one after the other in a thread of its own."""

    def __init__(self, settings: NodeSettings, store: Store, models: Models) -> None:
        """Take up what was left; nothing is read before it is started.

        Raises:
            SettingsError: If its folder can't be written to.
        """
        self._settings, self._store, self._models = settings, store, models
        self._folder = settings.folder / "jobs" / settings.node
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"node.folder: {self._folder} can't be written to ({error.strerror}); name another"
            ) from error
        self._take_up()
        self._thread = threading.Thread(target=self._work, name="medmllm-desk", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def take(self, settings: NodeSettings) -> None:
        """Go by other settings from the next job on."""
        self._settings = settings

    def close(self) -> None:
        """Stop what is being read, which is begun again at the next start."""
        self._closing.set()
        self._waiting.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def new_folder(self) -> Path:
        """A folder for a job to be, in which a file may be put; `submit` takes it, or `drop` deletes it."""
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir()
        return folder

    def drop(self, folder: Path) -> None:
        """Delete the folder of a job that comes to nothing."""
        shutil.rmtree(folder, ignore_errors=True)

    def has_room(self) -> bool:
        """Whether another job may wait."""
        with self._lock:
            return sum(one.state not in ENDED for one in self._jobs.values()) < MOST_WAITING

    def submit(self, wish: Wish, folder: Path | None = None) -> Job:
        """Have something read.

        Args:
            wish: What, checked.
            folder: Of `new_folder`, with its file.
        """
        place = folder or self.new_folder()
        job = Job(id=place.name, wish=wish, created=time.time())
        self._keep(job)
        if wish.study_uid:
            self._store.note(wish.study_uid, "asked", {"job": job.id, "task": wish.task or ""})
        with self._lock:
            self._jobs[job.id] = job
        self._waiting.put(job)
        return job

    def job(self, name: str) -> Job | None:
        """The job of an id; None if there is none."""
        with self._lock:
            return self._jobs.get(name)

    def jobs(self) -> list[Job]:
        """All, the newest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda one: one.created, reverse=True)

    def result(self, job: Job) -> Path:
        """The folder of its report, as `pipeline.write` writes it; there once the job is done."""
        return self._folder / job.id / _RESULT

    def cancel(self, job: Job) -> None:
        """Stop a job as soon as may be; nothing if it ended."""
        job.cancel.set()
        with self._lock:
            waits = job.state is JobState.WAITING
            if waits:
                job.state, job.finished = JobState.CANCELLED, time.time()
        if waits:
            self._keep(job)

    def forget(self, job: Job) -> None:
        """Delete a job that ended, and its report."""
        with self._lock:
            if job.state not in ENDED:
                return
            self._jobs.pop(job.id, None)
        self.drop(self._folder / job.id)

    def _take_up(self) -> None:
        for path in sorted(self._folder.glob(f"*/{_RECORD}")):
            try:
                job = _read(path)
            except (OSError, ValueError, TypeError, KeyError) as error:
                log.error("the job %s can't be taken up: %s", path.parent.name, type(error).__name__)
                continue
            self._jobs[job.id] = job
        for job in sorted(self._jobs.values(), key=lambda one: one.created):
            if job.state not in ENDED:
                job.state = JobState.WAITING
                self._waiting.put(job)
        for folder in self._folder.iterdir():
            if not (folder / _RECORD).exists():
                self.drop(folder)  # a file that never came whole

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None and not self._closing.is_set():
            with self._lock:
                if job.state is not JobState.WAITING:
                    continue
                job.state = JobState.READING
            try:
                self._answer(job)
            except Exception:
                log.exception("a defect of ours; the next job is read")
            self._forget_old()

    def _answer(self, job: Job) -> None:
        folder = self._folder / job.id
        try:
            self._read(job, folder)
            state, error = JobState.DONE, ""
        except CancelledError:
            if self._closing.is_set() and not job.cancel.is_set():
                return  # its record still says that it is to be read
            state, error = JobState.CANCELLED, ""
        except MedMLLMError as reason:
            state, error = JobState.FAILED, " ".join(printable(str(reason)).split())[:1000]
            error = error.replace(str(folder), "the job's files")
        except Exception as reason:
            log.exception("the job %s met a defect of ours", job.id)
            state, error = JobState.FAILED, f"a defect of ours ({type(reason).__name__}); see the node's log"
        for name in ("images", "prior", job.wish.file):
            if name:
                _remove(folder / name)
        with self._lock:
            job.error, job.finished, job.state = error, time.time(), state
        self._keep(job)

    def _read(self, job: Job, folder: Path) -> None:
        wish = job.wish

        def stopped() -> bool:
            return job.cancel.is_set() or self._closing.is_set()

        def tell(stage: str, done: int, total: int) -> None:
            job.stage, job.done, job.total = stage, done, total
            if stopped():
                raise CancelledError("the job was cancelled")

        tell("reading", 0, 0)
        paths = [self._images(wish.study_uid, folder / "images")] if wish.study_uid else [folder / wish.file]
        prior = self._images(wish.prior_uid, folder / "prior") if wish.prior_uid else None
        reading = read_wish(
            wish,
            paths,
            prior=prior,
            models=self._models,
            usual=self._settings.model,
            progress=tell,
            cancel=stopped,
        )
        tell("report", 0, 0)
        with whole_folder(folder / _RESULT, kind=KIND) as part:
            pipeline.write(reading, part, sr=self._settings.sr)
            job.objects = tuple(one.file for one in objects_of(part))
        job.outcome, job.pictures = reading.report.outcome.value, len(reading.slices)

    def _images(self, study_uid: str, folder: Path) -> Path:
        images = images_of(self._store.instances(study_uid))
        if not images:
            raise StudyError(
                found="no image of the study",
                expected="images",
                where="the node",
                remedy="send them to the node first",
            )
        lay_out(images, self._settings.folder / "spool", folder)
        return folder

    def _keep(self, job: Job) -> None:
        """Write the job's record, so that it is there at the next start."""
        path = self._folder / job.id / _RECORD
        part = path.with_suffix(".part")
        content = {name: value for name, value in vars_of(job).items() if name not in ("stage", "total")}
        try:
            with part.open("w", encoding="utf-8") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
        except OSError as error:
            log.error("the job %s can't be kept: %s", job.id, error.strerror)

    def _forget_old(self) -> None:
        ended = [one for one in self.jobs() if one.state in ENDED]
        too_old = time.time() - self._settings.keep_days * 86400
        for number, job in enumerate(ended):
            if number >= MOST_KEPT or job.finished < too_old:
                self.forget(job)


def vars_of(job: Job) -> dict[str, Any]:
    """What a job is, as JSON has it."""
    return {
        **{name: getattr(job, name) for name in Job.__dataclass_fields__ if name not in ("wish", "cancel")},
        "wish": asdict(job.wish),
    }


def file_end(name: str) -> str | None:
    """The end of a file's name that says what it is; None for what can't be read.

    >>> file_end("Scan of A. B.NII.GZ"), file_end("letter.pdf")
    ('.nii.gz', None)
    """
    return next((end for end in FILES if name.lower().endswith(end)), None)


def _read(path: Path) -> Job:
    said: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
    wish = dict(said["wish"])
    wish["history"] = tuple((one, other) for one, other in wish["history"])
    wish["focus"] = tuple(wish.get("focus", ()))
    if wish.get("place") is not None:
        wish["place"] = tuple(map(tuple, wish["place"]))
    known = {name: value for name, value in said.items() if name in Job.__dataclass_fields__}
    return Job(
        **{
            **known,
            "wish": Wish(**wish),
            "state": JobState(said["state"]),
            "objects": tuple(said["objects"]),
        }
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
