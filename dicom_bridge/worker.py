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
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from medmllm_plugin import pipeline, registry
from medmllm_plugin.config import Settings
from medmllm_plugin.dicom_bridge.checkpoint import Remembering
from medmllm_plugin.dicom_bridge.completion import images_of
from medmllm_plugin.dicom_bridge.failures import Failures
from medmllm_plugin.dicom_bridge.fetching import Prior
from medmllm_plugin.dicom_bridge.jobs import Jobs, Object, ReportRow, backoff
from medmllm_plugin.dicom_bridge.layout import lay_out
from medmllm_plugin.dicom_bridge.node_settings import BurnedIn, NodeSettings
from medmllm_plugin.dicom_bridge.picturing import KIND, Shown
from medmllm_plugin.dicom_bridge.screening import screened
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
from medmllm_plugin.models.gathering import gathered
from medmllm_plugin.outputs import printable, whole_folder
from medmllm_plugin.report import Report
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
        model = Remembering(self._model_of(study), replies, asks=False)
        prior = self._prior_of(study) if study.plan.get("prior") else None
        try:
            lay_out(images, settings.folder / "spool", work)
            reading = self._reading(study, model, work, prior, cancel=self._stopping.is_set)
            text = (folder / "report.json").read_text("utf-8")
        finally:
            _remove(work, prior)
        return Shown(
            study_uid=study.study_uid,
            folder=folder,
            report=Report.from_json(json.loads(text)),
            slices=reading.slices,
            priors=reading.priors,
            replies=replies,
        )

    def _read(self, study: StudyRow) -> None:
        images = images_of(self._store.instances(study.study_uid))
        digest = digest_of(images)
        settings = self._settings
        model = Remembering(self._model_of(study), self._replies(study, digest))
        folder = images_folder(settings, study.key)
        lay_out(images, settings.folder / "spool", folder)
        prior = self._prior_of(study) if study.plan.get("prior") else None
        try:
            reading = self._reading(
                study, model, folder, prior, cancel=lambda: self._stopping.is_set() or self._outdated.is_set()
            )
        except ReplyError:
            model.forget()
            raise
        except LostDeviceError:
            self._models.drop(study.plan.get("model") or settings.model)
            raise
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
        self, study: StudyRow, model: Remembering, folder: Path, prior: Prior | None, *, cancel: Cancel
    ) -> pipeline.Reading:
        """Read the images in a folder as the plan of their study says."""
        plan = study.plan
        task = str(plan.get("task") or "report")
        return pipeline.read(
            [folder],
            model=model,
            second=self._second_of(plan, model),
            task="compare" if prior is not None and task == "report" else task,
            strategy=str(plan.get("strategy") or "single"),
            evidence=bool(plan.get("evidence")),
            language=str(plan.get("language") or "en"),
            prior=None if prior is None else prior.folder,
            prior_report=None if prior is None else prior.report,
            cancel=cancel,
        )

    def _second_of(self, plan: Mapping[str, Any], model: Remembering) -> Model | None:
        """The second model that the plan names, whose replies are kept beside those of the first."""
        name = plan.get("second")
        return None if not name else model.beside(self._models.opened(str(name)))

    def _model_of(self, study: StudyRow) -> Model:
        return self._models.opened(study.plan.get("model") or self._settings.model)

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


class Models:
    """Models, each opened once."""

    def __init__(self, settings: Settings, *, burned_in: BurnedIn = BurnedIn.REFUSE) -> None:
        """Take what is needed.

        Args:
            settings: In which models have names of the user's.
            burned_in: What is done about words in pictures for a model on another machine.
        """
        self._settings, self._burned_in = settings, burned_in
        self._lock = threading.Lock()
        self._opened: dict[str, Model] = {}
        self.failures = Failures()
        """Of all who read with them."""

    def opened_for(
        self, settings: Settings, *, burned_in: BurnedIn, names: Iterable[str]
    ) -> dict[str, Model]:
        """Open what other settings name, beside what is open; `take` has it used.

        A model that fails for now is left out: it is tried again when it is needed.

        Raises:
            SettingsError: If a model can't be opened as the settings say.
        """
        found: dict[str, Model] = {}
        for name in names:
            same = settings.models.get(name) == self._settings.models.get(name)
            if same and burned_in is self._burned_in and name in self._opened:
                found[name] = self._opened[name]
                continue
            try:
                model = registry.open_model(name, settings=settings)
            except ModelError as error:
                log.warning("%s", error)
                continue
            found[name] = screened(gathered(model), burned_in)
        return found

    def take(self, settings: Settings, *, burned_in: BurnedIn, opened: dict[str, Model]) -> None:
        """Go by other settings, with the models of `opened_for`; let go of all others."""
        with self._lock:
            self._settings, self._burned_in, self._opened = settings, burned_in, opened

    def opened(self, name: str) -> Model:
        """The model of a name, as `registry.open_model` takes it."""
        with self._lock:
            if name not in self._opened:
                model = registry.open_model(name, settings=self._settings)
                self._opened[name] = screened(gathered(model), self._burned_in)
            return self._opened[name]

    def drop(self, name: str) -> None:
        """Have a model opened anew when it is needed next, such as after its GPU failed."""
        with self._lock:
            self._opened.pop(name, None)

    def measured(self) -> dict[str, dict[str, dict[str, float]]]:
        """Of each model that is open what it reached on phantoms, by kind and measure."""
        opened = dict(self._opened)
        return {
            name: {kind: dict(values) for kind, values in one.capabilities.measured.items()}
            for name, one in opened.items()
        }

    def is_open(self, name: str) -> bool:
        """Whether the model of a name was opened."""
        return name in self._opened


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
