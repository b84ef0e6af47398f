"""Reads studies one after the other: images, model, report, DICOM objects; and what to do if that fails.

A study that can't be read is left to a person with its reason; a model or a disk that fails is tried again
later. Whatever happens to one study, the next one is read.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from medmllm_plugin import pipeline
from medmllm_plugin.dicom_bridge.checkpoint import Remembering
from medmllm_plugin.dicom_bridge.completion import images_of
from medmllm_plugin.dicom_bridge.fetching import Prior
from medmllm_plugin.dicom_bridge.jobs import Jobs, Object, ReportRow, backoff
from medmllm_plugin.dicom_bridge.layout import lay_out
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
from medmllm_plugin.dicom_bridge.opened_models import Models
from medmllm_plugin.dicom_bridge.picturing import KIND, Shown
from medmllm_plugin.dicom_bridge.store import Store, StudyRow, digest_of
from medmllm_plugin.dicom_bridge.watching import images_folder
from medmllm_plugin.errors import (
    CancelledError,
    LostDeviceError,
    MedMLLMError,
    ModelError,
    OutputError,
    ReplyError,
    RetrieveError,
    TooLittleMemoryError,
    UnavailableError,
)
from medmllm_plugin.models import Cancel, Model
from medmllm_plugin.outputs import printable, whole_folder
from medmllm_plugin.report import Report
from medmllm_plugin.two_eyes import without_second
from medmllm_plugin.writing import write_report

log = logging.getLogger(__name__)

MOST_BEGUN = 24
"""How often a study is begun before it is parked, whatever ended it: the program's own end, or a model that
fails with every study."""

_KEYS = {
    "findings.dcm": "findings_sr",
    "report.dcm": "report_sr",
    "key_images.dcm": "key_images",
    "points.dcm": "points_sr",
}
"""What each file is, as `pipeline.write` calls it."""


class Reader:
    """Reads studies of one node, in one thread."""

    def __init__(
        self,
        jobs: Jobs,
        store: Store,
        settings: NodeSettings,
        models: Models,
        *,
        prior: Callable[[StudyRow], Prior | None] | None = None,
        reported: Callable[[], None] = lambda: None,
        shown: Callable[[Shown], None] = lambda shown: None,
    ) -> None:
        """Take what is needed.

        Args:
            jobs: Of this node.
            store: Of the studies.
            settings: Of this node.
            models: Which are opened once for all readers.
            prior: Fetches earlier studies, where a rule wants them.
            reported: Called when a report is to be delivered.
            shown: Given what each report was read from, once it is to be delivered.
        """
        self._jobs, self._store, self._settings, self._models = jobs, store, settings, models
        self._prior, self._reported, self._shown = prior, reported, shown
        self._stopping = threading.Event()
        self._outdated = threading.Event()
        self.reading = ""
        """The study that is being read now, by its UID; else empty."""

    def take(self, settings: NodeSettings) -> None:
        """Go by other settings from the next study on."""
        self._settings = settings

    def stop(self) -> None:
        """Give back what is being read, and read no more."""
        self._stopping.set()

    def changed(self, studies: Sequence[str]) -> None:
        """More came of these studies: what is being read of them is of no use any more."""
        if self.reading and self.reading in studies:
            self._outdated.set()

    def read_next(self) -> bool:
        """Read the next study; False if none waits."""
        if self._stopping.is_set():
            return False
        study = self._jobs.next_study(most_attempts=MOST_BEGUN)
        if study is None:
            return False
        self._outdated.clear()
        self.reading = study.study_uid
        try:
            self._read(study)
        except CancelledError:
            self._jobs.give_back(study, "the node that read it was stopped", counts=False)
        except Exception as error:
            self._failed(study, error)
        finally:
            self.reading = ""
        return True

    def again(self, study: StudyRow, report: ReportRow) -> Shown:
        """A study that was read, read again by kept replies alone, for the pictures of its report.

        Raises:
            MedMLLMError: If it can't be, such as when its images are there no more.
        """
        images = images_of(self._store.instances(study.study_uid))
        settings = self._settings
        folder, replies = settings.folder / report.folder, self._replies(study, report.digest)
        work = images_folder(settings, f"{study.key}-again")
        made = Report.from_json(json.loads((folder / "report.json").read_text("utf-8")))
        model = Remembering(self._model_of(study), replies, asks=False)
        second = None if made.second is None else model.beside(self._models.opened(study.plan["second"]))
        prior = self._prior_of(study) if study.plan.get("prior") else None
        try:
            lay_out(images, settings.folder / "spool", work)
            reading = self._reading(study, model, work, prior, second=second, cancel=self._stopping.is_set)
        finally:
            _remove(work, prior)
        return Shown(
            study_uid=study.study_uid,
            folder=folder,
            report=made,
            slices=reading.slices,
            priors=reading.priors,
            replies=replies,
        )

    def _read(self, study: StudyRow) -> None:
        images = images_of(self._store.instances(study.study_uid))
        digest = digest_of(images)
        settings = self._settings
        opened = self._model_of(study)
        second, missed = self._second_of(study)
        model = Remembering(opened, self._replies(study, digest))
        folder = images_folder(settings, study.key)
        lay_out(images, settings.folder / "spool", folder)
        prior = self._prior_of(study) if study.plan.get("prior") else None
        try:
            reading = self._reading(
                study,
                model,
                folder,
                prior,
                second=None if second is None else model.beside(second),
                cancel=lambda: self._stopping.is_set() or self._outdated.is_set(),
            )
        except ReplyError:
            model.forget()
            raise
        except LostDeviceError:
            self._models.drop(self._name_of(study), opened)
            raise
        if missed is not None:
            reading = replace(reading, report=without_second(reading.report, missed))
        elif second is not None and reading.missed is not None:
            self._missed(study, reading.missed, second)
        self._models.failures.answered(study.study_uid)
        report = self._written(study, digest, reading)
        if self._jobs.reported(study, report):
            begin_deliveries(self._jobs, self._store, settings, study.study_uid)
            self._reported()
            self._shown(
                Shown(
                    study_uid=study.study_uid,
                    folder=settings.folder / report.folder,
                    report=reading.report,
                    slices=reading.slices,
                    priors=reading.priors,
                    replies=self._replies(study, digest),
                    rubbish=tuple(map(_aside, _folders(folder, prior))),
                )
            )
        else:
            shutil.rmtree(settings.folder / report.folder, ignore_errors=True)
            model.forget()
            _remove(folder, prior)

    def _reading(
        self,
        study: StudyRow,
        model: Model,
        folder: Path,
        prior: Prior | None,
        *,
        second: Model | None,
        cancel: Cancel,
    ) -> pipeline.Reading:
        """Read the images in a folder as the plan of their study says."""
        plan = study.plan
        task = str(plan.get("task") or "report")
        return pipeline.read(
            [folder],
            model=model,
            second=second,
            task="compare" if prior is not None and task == "report" else task,
            strategy=str(plan.get("strategy") or "single"),
            evidence=bool(plan.get("evidence")),
            language=str(plan.get("language") or "en"),
            prior=None if prior is None else prior.folder,
            prior_report=None if prior is None else prior.report,
            cancel=cancel,
        )

    def _second_of(self, study: StudyRow) -> tuple[Model | None, ModelError | None]:
        """The second model that the plan names; where it can't be opened after all tries, why in its place.

        Raises:
            ModelError: If it can't be opened now, and may be later.
        """
        name = study.plan.get("second")
        try:
            return (self._models.opened(str(name)) if name else None), None
        except ModelError as error:
            self._without_second(study, error)
            return None, error

    def _missed(self, study: StudyRow, why: ModelError, second: Model) -> None:
        """Have a second model that was lost opened again, and the study read again while there are tries.

        Raises:
            ModelError: If it is to be read again.
        """
        if isinstance(why, LostDeviceError):
            self._models.drop(str(study.plan["second"]), second)
        self._without_second(study, why, again=isinstance(why, LostDeviceError | UnavailableError))

    def _without_second(self, study: StudyRow, why: ModelError, *, again: bool = True) -> None:
        """Record that a report goes out without its second model; not while another try may go well.

        Each counts, unlike the first model's: nobody waits for ever for a second opinion.

        Raises:
            ModelError: If there are tries left.
        """
        reason = _line(why)
        if again and study.attempts < min(self._settings.attempts, MOST_BEGUN):
            raise ModelError(f"the second model failed: {reason}") from why
        self._store.note(study.study_uid, "read-without-second", {"reason": reason})
        log.warning("study %s is read without the second model: %s", study.key, reason)

    def _model_of(self, study: StudyRow) -> Model:
        return self._models.opened(self._name_of(study))

    def _name_of(self, study: StudyRow) -> str:
        return str(study.plan.get("model") or self._settings.model)

    def _replies(self, study: StudyRow, digest: str) -> Path:
        """Where the replies on a study are kept until all is made of them."""
        return self._settings.folder / "work" / "replies" / f"{study.key}-{digest[:16]}"

    def _prior_of(self, study: StudyRow) -> Prior | None:
        """The study before, or None, also where the PACS doesn't give it after as many tries as may be."""
        try:
            return None if self._prior is None else self._prior(study)
        except RetrieveError as error:
            if error.retry and study.attempts < self._settings.attempts:
                raise
            reason = _line(error)
            self._store.note(study.study_uid, "read-without-prior", {"reason": reason})
            log.warning("study %s is read without the one before: %s", study.key, reason)
            return None

    def _written(self, study: StudyRow, digest: str, reading: pipeline.Reading) -> ReportRow:
        """Write a reading into a folder that nobody knows of yet."""
        version, settings = study.version + 1, self._settings
        place = Path("reports") / study.key / f"{version}-{secrets.token_hex(4)}"
        with whole_folder(settings.folder / place, kind=KIND) as part:
            write_report(
                reading.report,
                reading.slices,
                part,
                headers=reading.headers,
                priors=reading.priors,
                sr=settings.sr,
                predecessors=self._before(study),
            )
            objects = objects_of(part)
        return ReportRow(
            study_uid=study.study_uid,
            version=version,
            digest=digest,
            folder=str(place),
            objects=objects,
        )

    def _before(self, study: StudyRow) -> Mapping[str, list[Dataset]]:
        """The objects of the report that the next one amends."""
        report = self._jobs.report(study.study_uid, study.version) if study.version else None
        found: dict[str, list[Dataset]] = {}
        for one in () if report is None else report.objects:
            path = self._settings.folder / report.folder / one.file  # type: ignore[union-attr]
            found.setdefault(one.key, []).append(dcmread(path, stop_before_pixels=True))
        return found

    def _failed(self, study: StudyRow, error: Exception) -> None:
        failure = self._models.failures.add(study.study_uid)
        reason, limit, counts = self._judged(error, answered_others=failure.answered_others)
        log.warning("study %s was not read: %s", study.key, reason)
        if counts and study.attempts >= limit:
            self._models.failures.forget(study.study_uid)
            self._jobs.park(study, reason)
        else:
            tries = max(study.attempts, failure.count)
            wait = backoff(tries, first_s=2.0, most_s=self._settings.retry_max_s)
            self._jobs.give_back(study, reason, wait_s=wait, counts=counts)

    def _judged(self, error: Exception, *, answered_others: bool) -> tuple[str, int, bool]:
        """Why a study wasn't read, how often that may be, and whether it counts."""
        if not isinstance(error, MedMLLMError):
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"a defect of ours: {type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
            return reason, self._settings.attempts, True
        reason = _line(error)
        if isinstance(error, OutputError):
            return reason, 0, False
        if isinstance(error, RetrieveError):
            return reason, MOST_BEGUN, True
        if isinstance(error, UnavailableError | LostDeviceError):
            return reason, self._settings.attempts, answered_others
        if isinstance(error, ModelError):
            its_own = answered_others or isinstance(error, ReplyError | TooLittleMemoryError)
            return reason, self._settings.attempts if its_own else MOST_BEGUN, True
        return reason, 0, True


def begin_deliveries(jobs: Jobs, store: Store, settings: NodeSettings, study_uid: str) -> None:
    """Send the report that was just made of a study to where its rule says."""
    study = store.study(study_uid)
    if study is not None:
        outputs = study.plan.get("outputs")
        jobs.begin_deliveries(study, list(settings.outputs) if outputs is None else outputs)
        jobs.close_deliveries(study_uid)


def _folders(folder: Path, prior: Prior | None) -> tuple[Path, ...]:
    """Where the images lie that a study was read from."""
    return (folder,) if prior is None else (folder, prior.folder)


def _aside(folder: Path) -> Path:
    """Have a folder out of the way, to be deleted when there is time."""
    place = folder.with_name(f"done-{secrets.token_hex(8)}")
    try:
        folder.rename(place)
    except OSError:
        return folder
    return place


def _remove(folder: Path, prior: Prior | None) -> None:
    for done in _folders(folder, prior):
        shutil.rmtree(done, ignore_errors=True)


def _line(error: Exception) -> str:
    return " ".join(printable(str(error)).split())[:1000]


def objects_of(folder: Path) -> tuple[Object, ...]:
    """The DICOM objects that `writing.write_report` wrote."""
    found = []
    for path in sorted(folder.rglob("*.dcm")):
        header = dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID"], stop_before_pixels=True)
        found.append(
            Object(
                key=_KEYS.get(path.name, "key_pictures"),
                file=path.relative_to(folder).as_posix(),
                sop_class_uid=str(header.SOPClassUID),
                sop_instance_uid=str(header.SOPInstanceUID),
            )
        )
    return tuple(found)
