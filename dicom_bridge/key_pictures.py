"""The pictures of the findings as plain images, for a PACS without SR: Secondary Captures with a banner.

Boxes, words and side letters are burned in, for such viewers draw nothing themselves. One instance holds one
picture: multi-frame captures are younger than many a PACS.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DatasetSequence
from pydicom.uid import SecondaryCaptureImageStorage

from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge.sr_document import machine_made
from medmllm_plugin.dicom_bridge.sr_header import Series
from medmllm_plugin.dicom_bridge.sr_images import StudyImages
from medmllm_plugin.dicom_bridge.sr_items import clean, code_dataset
from medmllm_plugin.dicom_bridge.sr_preconditions import checked_images
from medmllm_plugin.dicom_bridge.sr_words import comment, tracking_identifier
from medmllm_plugin.findings import Status
from medmllm_plugin.pictures import BOX_COLOR, draw_box
from medmllm_plugin.report import DISCLAIMER, Report
from medmllm_plugin.resampled import Bounds
from medmllm_plugin.slice import Slice
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.transforms.window import PRESETS

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

BANNER = "AI, unverified, research use only"
"""Burned into every picture."""

PICTURE_SERIES = Series(
    name="pictures",
    number=9005,
    description="AI key pictures (unverified)",
    sop_class_uid=SecondaryCaptureImageStorage,
    modality="OT",
)

_SOURCE = Code("121322", "DCM", "Source image for image processing operation")
_HEAD_AND_FOOT = str.maketrans("SI", "HF")
"""From letters of LPS to those of Patient Orientation (0020,0020)."""
_LINE = 20
"""Height of a line of text, px."""
_LONGEST_COMMENT = 10_000
"""Characters of Image Comments (0020,4000); VR LT holds 10240."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _KeyPicture:
    """What is drawn on one picture."""

    one: Slice
    """The picture, or its part of a montage."""
    labels: list[str] = field(default_factory=list)
    """One line for each finding, in English and ASCII, whatever the sentences' script."""
    sentences: list[str] = field(default_factory=list)
    boxes: list[Bounds] = field(default_factory=list)
    """In pixels of the picture."""


def key_pictures(
    report: Report,
    headers: Sequence[Dataset],
    slices: SliceSet,
    *,
    predecessors: Sequence[Dataset] = (),
    written: datetime | None = None,
) -> list[Dataset]:
    """The pictures on which findings lie, as Secondary Capture images (PS3.3 A.8.1), one series in all.

    Each is the picture that the model was shown; where three windows were its colours they stand side by
    side in grey. A finding without a box stands on the first of its pictures.

    Args:
        report: The reading of one study.
        headers: Headers of that study's images.
        slices: The pictures that the report was read from.
        predecessors: Earlier objects of this kind that late images outdated, so the UIDs are others.
        written: Content Date and Time; now by default.

    Returns:
        Datasets ready for `save_as(path, enforce_file_format=True)`, in the order of the pictures; none
        where no finding that may be there was seen on a picture.

    Raises:
        StudyError: If the headers are of several studies or patients, or lack UIDs.
        ValueError: As `findings_sr` says, and if a box is on a picture that was not shown.
    """
    images = checked_images(report, headers)
    written = written or datetime.now()
    made = []
    for number, said in enumerate(_chosen(report, slices), 1):
        capture = machine_made(
            report, images, series=PICTURE_SERIES, written=written, number=number, predecessors=predecessors
        )
        _describe(capture, said, images)
        _set_pixels(capture, _drawn(said))
        made.append(capture)
    return made


def _chosen(report: Report, slices: SliceSet) -> list[_KeyPicture]:
    """What is drawn, in the order of the pictures; of a montage the slices with boxes, each by itself."""
    chosen: dict[tuple[int, int], _KeyPicture] = {}
    for number, finding in enumerate(report.findings, 1):
        shown = slices.cited(finding.images, finding.pictures)
        if finding.status is Status.ABSENT or not (shown or finding.box):
            continue
        box = finding.box
        if box is not None and box.image not in slices.picture(box.picture).images:
            raise ValueError(f"a box is on picture {box.picture}, which is of another image than the box")
        picture = box.picture if box is not None else shown[0]
        whole = slices.picture(picture)
        one, bounds = (whole, None) if box is None else whole.showing(box)
        insets = [inset.shown for inset in whole.insets]
        which = insets.index(one) if one in insets else -1
        said = chosen.setdefault((picture, which), _KeyPicture(one=one))
        where = "" if box is not None else ", no box"
        said.labels.append(f"{tracking_identifier(number, finding)}: {finding.status.value}{where}")
        said.sentences.append(comment(finding))
        if bounds is not None:
            said.boxes.append(bounds)
    return [said for _, said in sorted(chosen.items(), key=lambda item: item[0])]


def _describe(capture: Dataset, said: _KeyPicture, images: StudyImages) -> None:
    """Everything but the pixels: General Image, SC Equipment and SC Image modules (PS3.3 C.7.6.1, C.8.6)."""
    one = said.one
    capture.Laterality = ""
    capture.ConversionType = "WSD"
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.BurnedInAnnotation = "YES"
    capture.DerivationDescription = "Picture shown to a model, with its findings drawn in"
    capture.ImageComments = "\n".join([DISCLAIMER, *map(clean, said.sentences)])[:_LONGEST_COMMENT]
    sides = [one.edges[edge].translate(_HEAD_AND_FOOT) for edge in ("right", "bottom") if one.edges]
    capture.PatientOrientation = sides or ""
    sources = [images.reference(image) for image in one.images]
    for source in sources:
        source.PurposeOfReferenceCodeSequence = DatasetSequence([code_dataset(_SOURCE)])
    capture.SourceImageSequence = DatasetSequence(sources)
    header = images.found(one.images[0])
    if header.get("LossyImageCompression") == "01":
        capture.LossyImageCompression = "01"
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in header:
                setattr(capture, keyword, header[keyword].value)


def _set_pixels(capture: Dataset, pixels: NDArray[np.uint8]) -> None:
    """The Image Pixel module (PS3.3 C.7.6.3) of a colour image, shape (rows, columns, 3)."""
    capture.Rows, capture.Columns = pixels.shape[:2]
    capture.SamplesPerPixel, capture.PhotometricInterpretation, capture.PlanarConfiguration = 3, "RGB", 0
    capture.BitsAllocated, capture.BitsStored, capture.HighBit, capture.PixelRepresentation = 8, 8, 7, 0
    data = pixels.tobytes()
    capture.PixelData = data + b"\0" * (len(data) % 2)


def _drawn(said: _KeyPicture) -> NDArray[np.uint8]:
    """The picture with boxes, side letters, the banner above it and the findings below it."""
    from PIL import Image, ImageDraw, ImageFont

    one = said.one
    boxed = [pixels for pixels, _ in _windows(one)]
    for left, top, right, bottom in said.boxes:
        boxed = [
            draw_box(pixels, column_min=left, row_min=top, column_max=right, row_max=bottom)
            for pixels in boxed
        ]
    tiles = np.concatenate(boxed, axis=1)
    rows, columns = tiles.shape[:2]
    width = columns // len(boxed)
    font = ImageFont.load_default(14)
    above, below = (list(_wrapped(texts, columns, font)) for texts in ([BANNER], said.labels))
    top = _LINE * len(above)
    canvas = Image.new("RGB", (columns, top + rows + _LINE * len(below)))
    canvas.paste(Image.fromarray(tiles), (0, top))
    draw = ImageDraw.Draw(canvas)
    for first, texts in ((0, above), (top + rows, below)):
        for line, text in enumerate(texts):
            draw.text((4, first + _LINE * line + 2), text, fill=BOX_COLOR, font=font)
    middle = {"left": (4, rows / 2, "lm"), "right": (width - 4, rows / 2, "rm")}
    middle |= {"top": (width / 2, 4, "mt"), "bottom": (width / 2, rows - 4, "mb")}
    for tile, (_, words) in enumerate(_windows(one)):
        draw.text((tile * width + 4, top + 4), words, fill="white", font=font, anchor="lt")
        for edge, letter in one.edges.items():
            column, row, anchor = middle[edge]
            draw.text((tile * width + column, top + row), letter, fill="white", font=font, anchor=anchor)
    return np.asarray(canvas)


def _windows(one: Slice) -> list[tuple[NDArray[np.uint8], str]]:
    """The picture and no words; or each of three windows that were its colours in grey, and its numbers."""
    preset = next((p for p in PRESETS.values() if p.words == one.window and len(p.windows) == 3), None)
    if preset is None:
        return [(one.pixels, "")]
    return [
        (one.pixels[..., [channel] * 3], f"{center:g}/{width:g}")
        for channel, (center, width) in enumerate(preset.windows)
    ]


def _wrapped(texts: Sequence[str], columns: int, font: FreeTypeFont | ImageFont) -> Iterator[str]:
    """Lines that fit into so many pixel columns."""
    for text in texts:
        line = ""
        for word in text.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > columns - 8:
                yield line
                line = word
            else:
                line = longer
        yield line
