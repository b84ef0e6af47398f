"""The images that an SR may cite: checked headers of one study, and references to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset

from medmllm_plugin.dicom_bridge.sr_references import whole
from medmllm_plugin.errors import StudyError
from medmllm_plugin.findings import Box
from medmllm_plugin.headers import Headers, InstanceFacts
from medmllm_plugin.source import ImageRef
from medmllm_plugin.transforms.instance_facts import facts_of

_NAMED = 24
"""Most images whose numbers are written out."""
_NEEDED = {
    "sop_class_uid": "SOPClassUID",
    "sop_instance_uid": "SOPInstanceUID",
    "study_instance_uid": "StudyInstanceUID",
    "series_instance_uid": "SeriesInstanceUID",
}


class StudyImages:
    """The headers of one study's images, by SOP Instance UID; no pixels are needed or touched.

    Args:
        headers: Of one patient's one study, in any number of series; pixel data may be absent.
        first_series: The Series Instance UID to list first: readers such as 3D Slicer look only there.

    Raises:
        StudyError: If there are no headers, one lacks a UID, or they are of several studies or patients.
    """

    def __init__(self, headers: Sequence[Dataset], *, first_series: str | None = None) -> None:
        if not headers:
            raise StudyError(
                found="no image headers",
                expected="the headers of the study that was read",
                where="SR",
                remedy="an SR is written for DICOM input only; for other files use report.json",
            )
        self._headers = headers
        self._by_uid: dict[str, tuple[InstanceFacts, int]] = {}
        self.series: dict[str, list[InstanceFacts]] = {}
        """The images by Series Instance UID, the first series first, without doubles."""
        known = headers.facts if isinstance(headers, Headers) else [facts_of(one) for one in headers]
        for k in sorted(range(len(known)), key=lambda k: known[k].series_instance_uid != first_series):
            self._add(known[k], k)
        first, k = next(iter(self._by_uid.values()))
        self.header = headers[k]
        """The first header: patient and study of the SR are copied from it."""
        self.study_instance_uid = first.study_instance_uid
        """Study Instance UID (0020,000D)."""
        for keyword, name in (("study_instance_uid", "studies"), ("patient_id", "patients")):
            count = len({getattr(one, keyword) for one, _ in self._by_uid.values()})
            if count > 1:
                raise StudyError(
                    found=f"images of {count} {name}",
                    expected="one patient and one study",
                    where=f"study {self.study_instance_uid}",
                    remedy="write an SR for each study by itself",
                )

    def __len__(self) -> int:
        return len(self._by_uid)

    def _add(self, facts: InstanceFacts, k: int) -> None:
        for name, keyword in _NEEDED.items():
            if not getattr(facts, name):
                raise StudyError(
                    found=f"an image header without {keyword}",
                    expected="SOP Class, SOP Instance, study and series UID in each",
                    where=f"series {facts.series_instance_uid or 'unknown'}",
                    remedy="repair the image or leave it out",
                )
        uid = facts.sop_instance_uid
        if uid not in self._by_uid:
            self._by_uid[uid] = facts, k
            self.series.setdefault(facts.series_instance_uid, []).append(facts)

    def reference(self, image: ImageRef) -> Dataset:
        """A reference to an image or to one frame: an item of Referenced SOP Sequence (0008,1199).

        Raises:
            ValueError: If the image is not among the headers, or has no such frame.
        """
        facts, _, frame = self._found(image)
        reference = whole(facts.sop_class_uid, facts.sop_instance_uid)
        if frame is not None:
            reference.ReferencedFrameNumber = frame
        return reference

    def boxed(self, box: Box) -> Dataset:
        """A reference to the image that a box is drawn on.

        Raises:
            ValueError: If that image is not among the headers, the box leaves it, or no one frame is named.
        """
        facts, _, frame = self._found(box.image)
        if box.column_max > facts.columns or box.row_max > facts.rows:
            raise ValueError(
                f"a box reaches to column {box.column_max}, row {box.row_max}, outside its image of "
                f"{facts.columns} columns and {facts.rows} rows ({facts.sop_instance_uid})"
            )
        if frame is None and facts.frames > 1:
            raise ValueError(
                f"a box on {facts.sop_instance_uid} names none of its {facts.frames} frames; "
                "a box lies on one"
            )
        return self.reference(box.image)

    def found(self, image: ImageRef) -> Dataset:
        """The header of an image.

        Raises:
            ValueError: If the image is not among the headers, or has no such frame.
        """
        return self._headers[self._found(image)[1]]

    def frame_of_reference(self, image: ImageRef) -> str:
        """The Frame of Reference UID (0020,0052) of an image.

        Raises:
            ValueError: If the image is not among the headers.
            StudyError: If it has none, so millimetres on it can't be tied to other images.
        """
        facts, _, _ = self._found(image)
        if not facts.frame_of_reference_uid:
            raise StudyError(
                found="an image without Frame of Reference UID (0020,0052)",
                expected="one, for a point in the patient",
                where=f"image {facts.sop_instance_uid}",
                remedy="write boxes on images, not points: the profile default",
            )
        return facts.frame_of_reference_uid

    def cited(self, images: Iterable[ImageRef]) -> dict[str, list[InstanceFacts]]:
        """These images by Series Instance UID, in the order of the study, without doubles.

        Raises:
            ValueError: If an image is not among the headers.
        """
        wanted = {self._found(image)[0].sop_instance_uid for image in images}
        found = {
            uid: [one for one in all_ if one.sop_instance_uid in wanted] for uid, all_ in self.series.items()
        }
        return {uid: chosen for uid, chosen in found.items() if chosen}

    def words(self, images: Iterable[ImageRef]) -> str:
        """The images in words to look up: Instance Number (0020,0013), and the frame where there is one.

        More than a few, as a reformat is made of, are counted, and only the first named.

        Raises:
            ValueError: If an image is not among the headers.
        """
        words = [self._word(image) for image in images]
        if len(words) > _NAMED:
            words = [*words[:_NAMED], f"{len(words) - _NAMED} more images"]
        return ", ".join(words)

    def _word(self, image: ImageRef) -> str:
        facts, _, frame = self._found(image)
        word = f"image {facts.instance_number or 'without number'}"
        if len(self.series) > 1:
            word = f"series {facts.series_number or 'without number'} {word}"
        return word if frame is None else f"{word} frame {frame}"

    def _found(self, image: ImageRef) -> tuple[InstanceFacts, int, int | None]:
        """What is known of it, its header's number, and the frame to be named: None where it has none."""
        uid = getattr(image, "sop_instance_uid", None)
        known = self._by_uid.get(uid) if uid is not None else None
        if known is None:
            raise ValueError(
                f"a finding cites {uid or image}, which is not among the {len(self)} images of the study"
            )
        facts, k = known
        frame: int | None = getattr(image, "frame", None)
        if frame is not None and not 1 <= frame <= max(1, facts.frames):
            raise ValueError(f"a finding cites frame {frame} of {uid}, which has {max(1, facts.frames)}")
        return facts, k, frame if facts.frames else None
