"""A folder that reports are put into, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from medmllm_plugin.dicom_bridge.delivery.objects import DicomObject, objects_of
from medmllm_plugin.dicom_bridge.delivery.values import Certainty, Delivered, Reference
from medmllm_plugin.errors import DeliveryError


class FolderDestination:
    """Puts the objects of each study into a folder of its own.

    Names are hashes of UIDs, so a study sent again finds its place, the same object replaces itself, and an
    amended report lies beside the one before.
    """

    def __init__(self, folder: Path) -> None:
        """Take the folder; it is made when something comes."""
        self._folder = folder

    def deliver(self, paths: Sequence[Path], *, ours: bool = True) -> Delivered:
        """See `Destination.deliver`."""
        objects = objects_of(paths, ours=ours)
        try:
            for one in objects:
                self._put(one)
        except OSError as error:
            raise DeliveryError(
                f"{self._folder}: can't be written to ({error.strerror}); make room, or let us write",
                retry=True,
            ) from error
        return Delivered(objects=tuple(one.reference for one in objects), certainty=Certainty.COMMITTED)

    def confirm(self, objects: Sequence[Reference]) -> Delivered:
        """See `Destination.confirm`; what was delivered was synced."""
        return Delivered(objects=tuple(objects), certainty=Certainty.COMMITTED)

    def close(self) -> None:
        """See `Destination.close`."""

    def _put(self, one: DicomObject) -> None:
        folder = self._folder / _short(one.study_uid)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{_short(one.sop_instance_uid)}.dcm"
        part = target.with_suffix(".part")
        try:
            with one.path.open("rb") as source, part.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
                copy.flush()
                os.fsync(copy.fileno())
            part.replace(target)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        for changed in (folder, self._folder):
            _sync(changed)


def _short(uid: str) -> str:
    """A name for a UID, which never becomes part of a path itself.

    >>> _short("1.2.3")
    'c47f5b18b8a430e6'
    """
    return hashlib.sha256(uid.encode()).hexdigest()[:16]


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
