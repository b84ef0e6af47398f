"""The images that an SR may cite: checked headers of one study, and references to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset

from medmllm_plugin.dicom_bridge.sr_header import whole
from medmllm_plugin.errors import StudyError
from medmllm_plugin.findings import Box
from medmllm_plugin.source import ImageRef

_NAMED = 24
"""Most images whose numbers are written out."""
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


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
        self._by_uid: dict[str, Dataset] = {}
        self.series: dict[str, list[Dataset]] = {}
        """Headers by Series Instance UID, the first series first, without doubles."""
        for header in sorted(headers, key=lambda one: one.get("SeriesInstanceUID") != first_series):
            self._add(header)
        self.header = next(iter(self._by_uid.values()))
        """The first header: patient and study of the SR are copied from it."""
        self.study_instance_uid = str(self.header.StudyInstanceUID)
        """Study Instance UID (0020,000D)."""
        for keyword, name in (("StudyInstanceUID", "studies"), ("PatientID", "patients")):
            count = len({str(one.get(keyword) or "") for one in self._by_uid.values()})
            if count > 1:
                raise StudyError(
                    found=f"images of {count} {name}",
                    expected="one patient and one study",
                    where=f"study {self.study_instance_uid}",
                    remedy="write an SR for each study by itself",
                )

    def __len__(self) -> int:
        return len(self._by_uid)

    def _add(self, header: Dataset) -> None:
        for keyword in _NEEDED:
            if not header.get(keyword):
                raise StudyError(
                    found=f"an image header without {keyword}",
                    expected="SOP Class, SOP Instance, study and series UID in each",
                    where=f"series {header.get('SeriesInstanceUID', 'unknown')}",
                    remedy="repair the image or leave it out",
                )
        uid = str(header.SOPInstanceUID)
        if uid not in self._by_uid:
            self._by_uid[uid] = header
            self.series.setdefault(str(header.SeriesInstanceUID), []).append(header)

    def reference(self, image: ImageRef) -> Dataset:
        """A reference to an image or to one frame: an item of Referenced SOP Sequence (0008,1199).

        Raises:
            ValueError: If the image is not among the headers, or has no such frame.
        """
        header, frame = self._found(image)
        reference = whole(header)
        if frame is not None:
            reference.ReferencedFrameNumber = frame
        return reference

    def boxed(self, box: Box) -> Dataset:
        """A reference to the image that a box is drawn on.

        Raises:
            ValueError: If that image is not among the headers, the box leaves it, or no one frame is named.
        """
        header, frame = self._found(box.image)
        rows, columns = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
        if box.column_max > columns or box.row_max > rows:
            raise ValueError(
                f"a box reaches to column {box.column_max}, row {box.row_max}, outside its image of "
                f"{columns} columns and {rows} rows ({header.SOPInstanceUID})"
            )
        if frame is None and _frames(header) > 1:
            raise ValueError(
                f"a box on {header.SOPInstanceUID} names none of its {_frames(header)} frames; "
                "a box lies on one"
            )
        return self.reference(box.image)

    def found(self, image: ImageRef) -> Dataset:
        """The header of an image.

        Raises:
            ValueError: If the image is not among the headers, or has no such frame.
        """
        return self._found(image)[0]

    def frame_of_reference(self, image: ImageRef) -> str:
        """The Frame of Reference UID (0020,0052) of an image.

        Raises:
            ValueError: If the image is not among the headers.
            StudyError: If it has none, so millimetres on it can't be tied to other images.
        """
        header = self.found(image)
        uid = str(header.get("FrameOfReferenceUID") or "")
        if not uid:
            raise StudyError(
                found="an image without Frame of Reference UID (0020,0052)",
                expected="one, for a point in the patient",
                where=f"image {header.SOPInstanceUID}",
                remedy="write boxes on images, not points: the profile default",
            )
        return uid

    def cited(self, images: Iterable[ImageRef]) -> dict[str, list[Dataset]]:
        """The headers of these images by Series Instance UID, in the order of the study, without doubles.

        Raises:
            ValueError: If an image is not among the headers.
        """
        wanted = {str(self.found(image).SOPInstanceUID) for image in images}
        found = {
            uid: [one for one in headers if str(one.SOPInstanceUID) in wanted]
            for uid, headers in self.series.items()
        }
        return {uid: headers for uid, headers in found.items() if headers}

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
        header, frame = self._found(image)
        word = f"image {header.get('InstanceNumber') or 'without number'}"
        if len(self.series) > 1:
            word = f"series {header.get('SeriesNumber') or 'without number'} {word}"
        return word if frame is None else f"{word} frame {frame}"

    def _found(self, image: ImageRef) -> tuple[Dataset, int | None]:
        """The header, and the frame that a reference must name: None where the object has no frames."""
        uid = getattr(image, "sop_instance_uid", None)
        header = self._by_uid.get(uid) if uid is not None else None
        if header is None:
            raise ValueError(
                f"a finding cites {uid or image}, which is not among the {len(self)} images of the study"
            )
        frame: int | None = getattr(image, "frame", None)
        if frame is not None and not 1 <= frame <= _frames(header):
            raise ValueError(f"a finding cites frame {frame} of {uid}, which has {_frames(header)}")
        return header, frame if header.get("NumberOfFrames") else None


def _frames(header: Dataset) -> int:
    return int(header.get("NumberOfFrames") or 1)
