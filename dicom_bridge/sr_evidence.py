"""The images that a findings SR names, and their sizes as its Image Library has them."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import UID

from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_statement_reader import below
from medmllm_plugin.findings import Box


class EvidenceImages:
    """The Image Library (TID 1600) of an SR, to draw a box on one of its images.

    Args:
        document: A dataset whose root is an Imaging Measurement Report.
    """

    def __init__(self, document: Dataset) -> None:
        self._images: dict[str, tuple[str, int | None, int | None]] = {}
        for library in below(document, concepts.IMAGE_LIBRARY):
            for group in below(library, concepts.IMAGE_LIBRARY_GROUP):
                shared = _size(group)
                for item in group.ContentSequence:
                    if item.ValueType == "IMAGE":
                        reference = item.ReferencedSOPSequence[0]
                        own = _size(item) if "ContentSequence" in item else (None, None)
                        uid, kind = reference.ReferencedSOPInstanceUID, reference.ReferencedSOPClassUID
                        self._images[str(uid)] = (str(kind), own[0] or shared[0], own[1] or shared[1])

    def boxed(self, box: Box) -> Dataset:
        """A reference to the image that a box is drawn on: an item of Referenced SOP Sequence (0008,1199).

        Raises:
            ValueError: If the document doesn't name that image or its size, the box leaves it, or no one
                frame of several is named.
        """
        uid = getattr(box.image, "sop_instance_uid", None)
        if uid not in self._images:
            raise ValueError(
                f"a box is on {uid or box.image}, none of the {len(self._images)} images of the document"
            )
        sop_class, rows, columns = self._images[str(uid)]
        if rows is None or columns is None:
            raise ValueError(f"the document doesn't say how large {uid} is, so no box can be checked on it")
        if box.column_max > columns or box.row_max > rows:
            raise ValueError(
                f"a box reaches to column {box.column_max}, row {box.row_max}, outside its image of "
                f"{columns} columns and {rows} rows ({uid})"
            )
        frame = getattr(box.image, "frame", None)
        kind = UID(sop_class).name
        if frame is None and ("Enhanced" in kind or "Multi-frame" in kind):
            raise ValueError(f"a box on {uid}, a {kind}, names no frame; a box lies on one")
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class, str(uid)
        if frame is not None:
            reference.ReferencedFrameNumber = frame
        return reference


def _size(item: Dataset) -> tuple[int | None, int | None]:
    """(rows, columns) as an image or a group of them says."""
    found = [next(iter(below(item, name)), None) for name in (concepts.ROWS, concepts.COLUMNS)]
    rows, columns = (None if one is None else int(one.MeasuredValueSequence[0].NumericValue) for one in found)
    return rows, columns
