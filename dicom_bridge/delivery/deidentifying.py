"""A destination that gets reports without anything that says who the patient is."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydicom import dcmread

from medmllm_plugin.dicom_bridge.deidentifying import deidentified, other_uid
from medmllm_plugin.dicom_bridge.delivery.values import Delivered, Destination, Reference
from medmllm_plugin.errors import DeliveryError

REPORTS = "1.2.840.10008.5.1.4.1.1.88."
"""What UIDs of objects without pixels begin with; pixels may say who the patient is."""


class Deidentifying:
    """Another destination, in front of which names are taken away; pictures don't go there at all."""

    def __init__(self, inner: Destination, *, salt: bytes) -> None:
        """Take where to, and the site's secret."""
        self._inner, self._salt = inner, salt

    def deliver(self, paths: Sequence[Path], *, ours: bool = True) -> Delivered:
        """See `Destination.deliver`.

        Raises:
            ValueError: If they aren't ours: nobody knows where others put names.
        """
        if not ours:
            raise ValueError("only reports of ours can be freed of names")
        with self._copies(paths) as copies:
            done = self._inner.deliver(copies)
        left = len(paths) - len(copies)
        if not left:
            return done
        pictures = "1 object with pixels is" if left == 1 else f"{left} objects with pixels are"
        return replace(done, notes=(*done.notes, f"{pictures} not sent where names are taken away"))

    def confirm(self, objects: Sequence[Reference]) -> Delivered:
        """See `Destination.confirm`."""
        return self._inner.confirm(
            [(kind, other_uid(uid, salt=self._salt)) for kind, uid in objects if kind.startswith(REPORTS)]
        )

    def close(self) -> None:
        """See `Destination.close`."""
        self._inner.close()

    @contextmanager
    def _copies(self, paths: Sequence[Path]) -> Iterator[list[Path]]:
        with tempfile.TemporaryDirectory(prefix="medmllm-") as folder:
            made: list[Path] = []
            for number, path in enumerate(paths):
                try:
                    kind = dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True).SOPClassUID
                    if not str(kind).startswith(REPORTS):
                        continue
                    copy = Path(folder) / f"{number}-{path.name}"
                    deidentified(dcmread(path), salt=self._salt).save_as(copy, enforce_file_format=True)
                except OSError as error:
                    raise DeliveryError(
                        f"{path.name}: can't be read or copied ({error.strerror}); try again", retry=True
                    ) from error
                made.append(copy)
            yield made
