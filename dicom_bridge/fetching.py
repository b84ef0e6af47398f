"""What a node asks of a PACS about a study: how many instances there are, and the study before it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from medmllm_plugin.dicom_bridge.jobs import Jobs
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
from medmllm_plugin.dicom_bridge.retrieve import Archive, archive, priors_of
from medmllm_plugin.dicom_bridge.store import Store, StudyRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Prior:
    """An earlier study of the same patient."""

    folder: Path
    """Its images."""
    report: Path | None
    """Our own report on it, `report.json`, if it was read here."""


class Fetcher:
    """Asks the peers that the settings name for it."""

    def __init__(self, settings: NodeSettings, store: Store, jobs: Jobs) -> None:
        """Take whom to ask; nothing is asked yet."""
        self._settings, self._store, self._jobs = settings, store, jobs
        self._left: list[Archive] = []  # which may still be asked something
        self._counts = _archive(settings, settings.complete_by)
        self._priors = _archive(settings, settings.prior_from)

    def take(self, settings: NodeSettings) -> None:
        """Ask whom other settings name."""
        self._left += [one for one in (self._counts, self._priors) if one is not None]
        self._settings = settings
        self._counts = _archive(settings, settings.complete_by)
        self._priors = _archive(settings, settings.prior_from)

    def count(self, study_uid: str) -> int | None:
        """How many instances a PACS has of a study; None if it has none, doesn't say, or none is asked.

        Raises:
            RetrieveError: If it can't be asked.
        """
        return None if self._counts is None else self._counts.instance_count(study_uid) or None

    def prior(self, study: StudyRow) -> Prior | None:
        """The latest earlier study, fetched; None if there is none or nobody to ask.

        Raises:
            RetrieveError: If the PACS can't be asked, or doesn't give it.
        """
        if self._priors is None:
            return None
        found = priors_of(self._priors, study.study_uid)
        if not found:
            return None
        (before,) = found
        folder = self._settings.folder / "work" / self._settings.node / f"{study.key}-prior"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._priors.fetch(before.study_uid, folder)
        return Prior(folder=folder, report=self._report_on(before.study_uid))

    def close(self) -> None:
        """Let go of connections."""
        for one in (*self._left, self._counts, self._priors):
            if one is not None:
                one.close()

    def _report_on(self, study_uid: str) -> Path | None:
        row = self._store.study(study_uid)
        report = self._jobs.report(study_uid, row.version) if row is not None and row.version else None
        if report is None:
            return None
        path = self._settings.folder / report.folder / "report.json"
        return path if path.is_file() else None


def _archive(settings: NodeSettings, name: str | None) -> Archive | None:
    if name is None:
        return None
    return archive(name, calling_ae=settings.ae_title, peers=settings.peers)
