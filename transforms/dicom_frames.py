"""The frames of a DICOM file: the place of each, and what tells frames at one place apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from pydicom.dataset import Dataset

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.geometry import Matrix, plane_matrix
from medmllm_plugin.transforms.attributes import Attributes, integer, items, numbers, texts
from medmllm_plugin.transforms.dicom_headers import Header, damaged
from medmllm_plugin.transforms.mosaic import Mosaic, is_mosaic, mosaic_of
from medmllm_plugin.transforms.voi import padding_of

TRAITS = (
    "field of view",
    "b-value",
    "echo number",
    "echo time",
    "temporal position",
    "cardiac phase",
    "trigger time",
    "inversion time",
    "acquisition number",
    "image type",
    "complex component",
    "stack",
    "gradient direction",
    "directionality",
    "frame time",
    "acquisition time",
)
"""What may tell frames at one place apart, in the order in which it is tried."""

_TRAIT_KEYWORDS = {
    "b-value": ("DiffusionBValue",),
    "echo number": ("EchoNumbers",),
    "echo time": ("EffectiveEchoTime", "EchoTime"),
    "temporal position": ("TemporalPositionIndex", "TemporalPositionIdentifier"),
    "cardiac phase": ("NominalPercentageOfCardiacPhase",),
    "trigger time": ("NominalCardiacTriggerDelayTime", "TriggerTime"),
    "inversion time": ("InversionTime",),
    "acquisition number": ("FrameAcquisitionNumber", "AcquisitionNumber"),
    "image type": ("FrameType", "ImageType"),
    "complex component": ("ComplexImageComponent",),
    "stack": ("StackID",),
    "gradient direction": ("DiffusionGradientOrientation",),
    "directionality": ("DiffusionDirectionality",),
    "frame time": ("FrameReferenceDateTime",),
    "acquisition time": ("FrameAcquisitionDateTime", "AcquisitionDateTime", "AcquisitionTime"),
}

LARGEST_RESCALE = 1e30
"""Largest Rescale Slope or Intercept: with more, values leave the range of float32."""
_OF_FRAMES = frozenset({"ComplexImageComponent", "DiffusionDirectionality"})
"""Looked for in functional groups only: single images don't have them, and no scan finds them."""

_PRIVATE_B_VALUES = (
    (0x0019, "SIEMENS MR HEADER", 0x0C),
    (0x0043, "GEMS_PARM_01", 0x39),
    (0x2001, "Philips Imaging DD 001", 0x03),
)

Source = Dataset | Attributes
Trait = tuple[float, ...] | tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One frame of one file, the one image of it, or one tile of a mosaic."""

    header: Header
    index: int
    """From 0 within the file."""
    to_patient: Matrix | None
    """Shape (4, 4): (column, row, 0, 1) to LPS mm; None if the header doesn't place it."""
    spacing: tuple[float, float] | None
    """Between rows, then between columns, mm."""
    window: tuple[float, float] | None
    """Window Center and Width (0028,1050), (0028,1051)."""
    rescale: tuple[float, float] | None
    """Rescale Slope (0028,1053) and Intercept (0028,1052)."""
    rescale_type: str
    """Rescale Type (0028,1054), such as HU; empty if missing."""
    thickness: float | None
    """Slice Thickness (0018,0050), mm."""
    sources: Sequence[Source] = field(repr=False)
    """Where its attributes are looked for, the first that has one goes: its functional groups, the header."""
    padding: tuple[float, float] | None = None
    """As `Plane.padding`."""
    mosaic: Mosaic | None = None
    """The division of the sheet that it is a tile of."""
    tile: int = 0
    """Which tile, from 0."""
    b_value: float | None = None
    """Of a private attribute (`private_b_value`), where it was looked for."""
    field_of_view: str = ""
    """Where in its plane it lies, in words, where a series has several fields of view."""

    @cached_property
    def traits(self) -> dict[str, Trait]:
        """Name in `TRAITS` to value, for those that the header gives or that were found out."""
        traits = _traits(self.sources)
        if self.b_value is not None:
            traits["b-value"] = (self.b_value,)
        if self.field_of_view:
            traits["field of view"] = (self.field_of_view,)
        return traits

    @property
    def rows(self) -> int:
        """Rows of this image or tile."""
        return self.header.rows if self.mosaic is None else self.mosaic.rows

    @property
    def columns(self) -> int:
        """Columns of this image or tile."""
        return self.header.columns if self.mosaic is None else self.mosaic.columns

    def times(self, factor: float) -> Frame:
        """The same frame with its values multiplied."""
        rescale = times(self.rescale, factor)
        return replace(self, rescale=rescale, padding=padding_of(self.sources, rescale=rescale))

    @property
    def order(self) -> tuple[int, int, int]:
        """Instance Number (0020,0013), then frame, then tile: the order in which the modality counts."""
        return integer(self.header, "InstanceNumber"), self.index, self.tile

    @property
    def where(self) -> str:
        """What an error calls it."""
        frame = f" frame {self.index + 1}" if self.header.multi_frame else ""
        return f"{self.header.entry.name}{frame}"


def times(rescale: tuple[float, float] | None, factor: float) -> tuple[float, float]:
    """A rescale, slope and intercept, whose values are so many times as large."""
    slope, intercept = rescale or (1.0, 0.0)
    return slope * factor, intercept * factor


def frames_of(header: Header) -> list[Frame]:
    """The frames of a file in stored order; of a mosaic its tiles.

    A frame's attributes come from its item of Per-Frame Functional Groups Sequence (5200,9230), then from
    Shared Functional Groups Sequence (5200,9229), then from the dataset itself (PS3.3 C.7.6.16).

    Raises:
        StudyError: If the per-frame items are not as many as the frames, or a mosaic can't be divided.
        GeometryError: If an orientation or spacing is no such thing.
    """
    per_frame = items(header, "PerFrameFunctionalGroupsSequence")
    shared = items(header, "SharedFunctionalGroupsSequence")[:1]
    if per_frame and len(per_frame) != header.frames:
        raise damaged(header.entry, f"{len(per_frame)} per-frame items for {header.frames} frames")
    common = [macro for group in shared for macro in _macros(group)]
    placed_itself = bool(per_frame) or header.frames == 1
    if is_mosaic(header):
        return _tiles(header)
    return [
        _frame(
            header,
            index,
            [*(_macros(per_frame[index]) if per_frame else []), *common, header],
            placed=placed_itself,
        )
        for index in range(header.frames)
    ]


def _tiles(header: Header) -> list[Frame]:
    mosaic = mosaic_of(header.dataset, where=header.entry.name)
    sheet = _frame(header, 0, [header], placed=True)
    return [
        replace(sheet, to_patient=mosaic.to_patient(tile), mosaic=mosaic, tile=tile)
        for tile in range(mosaic.tiles)
    ]


def _macros(group: Dataset) -> list[Dataset]:
    """The first item of each functional group macro."""
    found = [items(group, element.keyword)[:1] for element in group if element.VR == "SQ" and element.keyword]
    flat = [macro for one in found for macro in one]
    # the b-value's direction and the cardiac trigger lie one level deeper (PS3.3 C.8.13.5.9)
    return flat + [inner for m in flat for inner in items(m, "DiffusionGradientDirectionSequence")[:1]]


def _frame(header: Header, index: int, sources: Sequence[Source], *, placed: bool) -> Frame:
    position = _first(sources, "ImagePositionPatient", 3) if placed else None
    orientation = _first(sources, "ImageOrientationPatient", 6) if placed else None
    spacing = _first(sources, "PixelSpacing", 2)
    frame_name = f"{header.entry.name} frame {index + 1}" if header.multi_frame else header.entry.name
    matrix = None
    if position and orientation and spacing:
        matrix = plane_matrix(position=position, orientation=orientation, spacing=spacing, where=frame_name)
    at_detector = (
        spacing
        or _first(sources, "ImagerPixelSpacing", 2)
        or _first(sources, "NominalScannedPixelSpacing", 2)
    )
    slope, intercept = _first(sources, "RescaleSlope", 1), _first(sources, "RescaleIntercept", 1)
    center, width = _first(sources, "WindowCenter"), _first(sources, "WindowWidth")
    thickness = _first(sources, "SliceThickness", 1)
    types = next((t for t in (texts(s, "RescaleType") for s in sources) if t), ("",))
    if slope is not None and slope[0] == 0:
        raise GeometryError(
            f"{frame_name}: Rescale Slope is 0, so every value would be one; correct the header"
        )
    rescale = None if slope is None or intercept is None else (slope[0], intercept[0])
    if rescale is not None and max(map(abs, rescale)) > LARGEST_RESCALE:
        raise GeometryError(
            f"{frame_name}: Rescale Slope {rescale[0]:g} and Intercept {rescale[1]:g} are absurd, expected "
            f"no more than {LARGEST_RESCALE:g}; correct the header"
        )
    return Frame(
        header=header,
        index=index,
        to_patient=matrix,
        spacing=_positive_pair(at_detector),
        window=(center[0], width[0]) if center and width and width[0] >= 1 else None,
        rescale=rescale,
        rescale_type=types[0],
        thickness=thickness[0] if thickness and thickness[0] > 0 else None,
        sources=sources,
        padding=padding_of(sources, rescale=rescale),
    )


def _positive_pair(values: tuple[float, ...] | None) -> tuple[float, float] | None:
    return (values[0], values[1]) if values and min(values) > 0 else None


def _first(sources: Sequence[Source], keyword: str, count: int | None = None) -> tuple[float, ...] | None:
    return next((v for v in (numbers(s, keyword, count) for s in sources) if v is not None), None)


def _traits(sources: Sequence[Source]) -> dict[str, Trait]:
    traits: dict[str, Trait] = {}
    for name, keywords in _TRAIT_KEYWORDS.items():
        for keyword in keywords:
            value = next((v for v in (_trait(s, keyword) for s in sources) if v), None)
            if value is not None:
                traits[name] = value
                break
    return traits


def private_b_value(dataset: Dataset) -> float | None:
    """The b-value (s/mm²) that Siemens, GE or Philips give in a private attribute; None if none does."""
    for group, creator, element in _PRIVATE_B_VALUES:
        try:
            value = dataset.private_block(group, creator)[element].value
            first = value[0] if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value
            found = float(str(first))
        except Exception:  # missing, or not readable, which pydicom tells by many kinds
            continue
        found = found % 1e9  # GE adds 10^9 to some
        return found if 0 <= found < 1e5 else None
    return None


def _trait(source: Source, keyword: str) -> Trait | None:
    if (keyword in _OF_FRAMES and isinstance(source, Header)) or keyword not in source:
        return None
    return numbers(source, keyword) or texts(source, keyword) or None
