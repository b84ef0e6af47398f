"""The headers of a study's images: facts of each at once, the whole of one when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import overload

from pydicom.dataset import Dataset


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceFacts:
    """What DICOM objects of ours say of an image that they refer to."""

    sop_class_uid: str
    """SOP Class UID (0008,0016)."""
    sop_instance_uid: str
    """SOP Instance UID (0008,0018)."""
    study_instance_uid: str
    """Study Instance UID (0020,000D)."""
    series_instance_uid: str
    """Series Instance UID (0020,000E)."""
    patient_id: str
    """Patient ID (0010,0020); like all below empty, or 0, where the header doesn't say it."""
    modality: str
    """Modality (0008,0060)."""
    frame_of_reference_uid: str
    """Frame of Reference UID (0020,0052)."""
    rows: int
    """Rows (0028,0010)."""
    columns: int
    """Columns (0028,0011)."""
    frames: int
    """Number of Frames (0028,0008)."""
    instance_number: str
    """Instance Number (0020,0013)."""
    series_number: str
    """Series Number (0020,0011)."""


class Headers(Sequence[Dataset]):
    """Headers without pixel data, each read when it is first asked for, and facts that need no reading.

    >>> headers = Headers(2, read=lambda k: Dataset(), facts=lambda: ())
    >>> len(headers), len(headers[:1]), headers[0] is headers[0]
    (2, 1, True)
    """

    def __init__(
        self,
        count: int,
        *,
        read: Callable[[int], Dataset],
        facts: Callable[[], Sequence[InstanceFacts]],
    ) -> None:
        """Take what makes them.

        Args:
            count: How many.
            read: Gives the header of that number, from 0.
            facts: Gives those of all, in the same order.
        """
        self._count, self._read, self._facts = count, read, facts
        self._made: dict[int, Dataset] = {}
        self._known: Sequence[InstanceFacts] | None = None

    @property
    def facts(self) -> Sequence[InstanceFacts]:
        """Of each header."""
        if self._known is None:
            self._known = self._facts()
        return self._known

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Dataset: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Dataset]: ...
    def __getitem__(self, index: int | slice) -> Dataset | Sequence[Dataset]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(self._count))]
        k = index + self._count if index < 0 else index
        if not 0 <= k < self._count:
            raise IndexError(f"header {index} of {self._count}")
        if k not in self._made:
            self._made[k] = self._read(k)
        return self._made[k]


def joined(parts: Iterable[Sequence[Dataset]]) -> Sequence[Dataset]:
    """The headers of several series as one sequence, none read yet where all parts are `Headers`."""
    found = list(parts)
    if len(found) == 1:
        return found[0]
    known = [one for one in found if isinstance(one, Headers)]
    if len(known) < len(found):
        return [header for one in found for header in one]
    places = [(one, k) for one in known for k in range(len(one))]
    return Headers(
        len(places),
        read=lambda k: places[k][0][places[k][1]],
        facts=lambda: [facts for one in known for facts in one.facts],
    )
