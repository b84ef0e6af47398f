"""Studies that are passed on as they came, unread: their instances, laid out for whoever sends them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medmllm_plugin.dicom_bridge.delivery import Reference
from medmllm_plugin.dicom_bridge.layout import lay_out
from medmllm_plugin.dicom_bridge.store import Store


class Forwarded:
    """The instances of studies, for the sender of one destination."""

    def __init__(self, store: Store, folder: Path, *, node: str, destination: str) -> None:
        """Take what is needed.

        Args:
            store: Of the studies.
            folder: Of the node.
            node: Its name.
            destination: Whose sender asks: each lays out for itself.
        """
        self._store, self._spools = store, folder / "spool"
        self._work = folder / "work" / node
        self._destination = destination

    @contextmanager
    def files(self, study_uid: str) -> Iterator[list[Path]]:
        """All that came of a study, its images and whatever else, as files that are gone afterwards.

        Raises:
            OutputError: If an instance isn't there any more, or there is no room.
        """
        folder = self._work / f"{self._store.key(study_uid)}-to-{self._destination}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            yield lay_out(self._store.instances(study_uid), self._spools, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def references(self, study_uid: str) -> list[Reference]:
        """How storage commitment names them."""
        return [(one.sop_class_uid, one.sop_instance_uid) for one in self._store.instances(study_uid)]

    def series(self, study_uid: str) -> dict[str, list[Reference]]:
        """The same by Series Instance UID."""
        found: dict[str, list[Reference]] = {}
        for one in self._store.instances(study_uid):
            found.setdefault(one.series_uid, []).append((one.sop_class_uid, one.sop_instance_uid))
        return found
