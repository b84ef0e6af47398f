"""What each viewer will show, lose or break on for one Structured Report, computed from its tree.

Each rule here was seen in the viewer's own code or run: OHIF 3.13.13, the TID 1500 loader of Slicer 5.12,
DCMTK 3.6.7, dcmqi 1.5.7. `tests/test_sr_viewers.py` holds OHIF's against OHIF itself. Images are taken to be
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
)

from medmllm_plugin.dicom_bridge import sr_concepts as concepts
from medmllm_plugin.dicom_bridge.sr_tree import SrItem, SrNumber, SrRegion
from medmllm_plugin.dicom_bridge.sr_values import SrDocument

_SHOWN_BY_OHIF = (BasicTextSRStorage, EnhancedSRStorage, ComprehensiveSRStorage, Comprehensive3DSRStorage)
_READ_AS_TID_1500 = (EnhancedSRStorage, ComprehensiveSRStorage, Comprehensive3DSRStorage)
_REGION_TYPES = ("SCOORD", "SCOORD3D")
_DRAWN = ("POINT", "MULTIPOINT", "POLYLINE", "CIRCLE", "ELLIPSE")
_HYDRATED = (("POLYLINE", 4), ("POLYLINE", 5), ("POINT", 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One viewer on one document."""

    viewer: str
    shows: str
    loses: tuple[str, ...] = ()
    """What it leaves out or gets wrong without a word."""
    breaks: tuple[str, ...] = ()
    """Where it stops, drops findings, or shows nothing."""

    def to_json(self) -> dict[str, Any]:
        """The view for `sr check --json`."""
        return {
            "viewer": self.viewer,
            "shows": self.shows,
            "loses": list(self.loses),
            "breaks": list(self.breaks),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class OhifLoad:
    """What OHIF's SR extension does with a document whose images it has open."""

    measurements: bool
    """Whether it opens the measurement viewport; else the text viewport."""
    localised: int
    """Measurement groups that hold a region."""
    drawn: int
    """Groups whose region is drawn, the ones before an error included."""
    hydrated: int
    """Groups that become OHIF's own measurements."""
    throws: str = ""
    """Why its load throws; empty if it doesn't."""


class _Thrown(Exception):  # noqa: N818 - what a viewer throws, no error of ours
    pass


def views(document: SrDocument) -> tuple[View, ...]:
    """The document in each viewer that we know: OHIF, 3D Slicer, ours, DCMTK's, Weasis, dcmqi."""
    seers: tuple[Callable[[SrDocument], View], ...] = (_ohif, _slicer, _ours, _dsr2html, _weasis, _dcmqi)
    return tuple(see(document) for see in seers)


def ohif_load(document: SrDocument) -> OhifLoad:
    """What OHIF's SOP class handler and Cornerstone's adapters will do, step by step as they do it."""
    tree = document.tree
    measurements = tree.name is not None and tree.name.value == concepts.IMAGING_MEASUREMENT_REPORT.value
    groups = list(_groups(tree))
    localised = sum(_first_region(group) is not None for group in groups)
    if not measurements:
        return OhifLoad(measurements=False, localised=localised, drawn=0, hydrated=0)
    drawn, throws = 0, ""
    try:
        for coordinates in reversed(_ohif_measurements(tree)):
            drawn += _ohif_draws(coordinates, document.sop_class_uid)
    except _Thrown as error:
        throws = str(error)
    hydrated = 0 if throws else sum(map(_ohif_hydrates, _groups_by_meaning(tree)))
    return OhifLoad(measurements=True, localised=localised, drawn=drawn, hydrated=hydrated, throws=throws)


def _ohif(document: SrDocument) -> View:
    if document.sop_class_uid == KeyObjectSelectionDocumentStorage:
        return View(
            viewer="OHIF 3.13",
            shows="nothing: its SR extension opens no Key Object Selection",
            loses=(_many(len(document.images), "key image"),),
        )
    if document.sop_class_uid not in _SHOWN_BY_OHIF:
        return View(viewer="OHIF 3.13", shows="nothing: it opens no SR of this SOP class")
    load = ohif_load(document)
    garbled = _garbled(document.tree)
    lost = (
        [f"letters beyond ASCII in {_many(garbled, 'text')}, when opened as a local file"] if garbled else []
    )
    if not load.measurements:
        regions = sum(isinstance(item.value, SrRegion) for item in document.tree.walk())
        images = sum(item.value_type == "IMAGE" for item in document.tree.walk())
        lost += (
            [f"the links to {_many(images, 'image')} (it prints that images are not supported)"]
            if images
            else []
        )
        lost += [_many(regions, "region")] if regions else []
        lost += _lost_names(document.tree)
        return View(viewer="OHIF 3.13", shows="the text, in its text viewport", loses=tuple(lost))
    texts = len(document.sentences) + len(document.remarks)
    unplaced = len(document.findings) - load.localised
    lost += [f"{_many(unplaced, 'finding')} without a place"] if unplaced > 0 else []
    lost += [f"{_many(texts, 'text')} (a report with this title has no text viewport)"] if texts else []
    if load.throws:
        missing = load.localised - load.drawn
        dropped = f"; {missing} of {_many(load.localised, 'finding')} not drawn" if missing else ""
        return View(
            viewer="OHIF 3.13",
            shows=f"{load.drawn} drawn",
            loses=tuple(lost),
            breaks=(f"its load throws: {load.throws}{dropped}",),
        )
    if load.drawn < load.localised:
        lost.append(f"{load.localised - load.drawn} of {load.localised} regions: not drawn")
    if load.hydrated < load.drawn:
        lost.append(
            f"{load.drawn - load.hydrated} of {load.drawn} drawn can't be made measurements of its own"
        )
    shows = f"{load.drawn} drawn, {load.hydrated} become measurements" if load.localised else "an empty pane"
    return View(viewer="OHIF 3.13", shows=shows, loses=tuple(lost))


def _ohif_measurements(tree: SrItem) -> list[list[SrItem]]:
    """The coordinates of each measurement, groups of one tracking UID merged.

    Raises:
        _Thrown: Where OHIF's own code throws.
    """
    container = _named(tree.children, concepts.IMAGING_MEASUREMENTS.value)
    if container is None:
        return []
    merged: dict[str, list[SrItem]] = {}
    for group in container.children:
        if group.name is None:
            raise _Thrown("an item of Imaging Measurements has no concept name")
        if group.name.value != concepts.MEASUREMENT_GROUP.value:
            continue
        uid = _named(group.children, concepts.TRACKING_UID.value)
        if uid is None:
            raise _Thrown("a measurement group has no tracking UID")
        merged.setdefault(str(uid.value), []).extend(group.children)
    return [_ohif_coordinates(items) for items in merged.values()]


def _ohif_coordinates(items: list[SrItem]) -> list[SrItem]:
    if _named(items, concepts.TRACKING_IDENTIFIER.value) is None:
        raise _Thrown("a measurement group has no tracking identifier")
    if any(item.name is None for item in items):
        raise _Thrown("an item of a measurement group has no concept name")
    numbers = [item for item in items if isinstance(item.value, SrNumber)]
    if any(number.value.unit is None for number in numbers if isinstance(number.value, SrNumber)):
        raise _Thrown("a number has no unit")
    regions = [item for item in items if item.value_type in _REGION_TYPES]
    return regions[:1] or [region for number in numbers for region in _regions(number)[:1]]


def _ohif_draws(coordinates: list[SrItem], sop_class_uid: str) -> bool:
    if not coordinates:
        raise _Thrown("a measurement group has no region")
    first = coordinates[0]
    if not isinstance(first.value, SrRegion):
        raise _Thrown("a region can't be read")
    if first.value_type == "SCOORD3D":
        return sop_class_uid == Comprehensive3DSRStorage and first.value.graphic_type in _DRAWN
    return first.value.image is not None


def _ohif_hydrates(group: SrItem) -> bool:
    """Whether Cornerstone's adapters make a measurement of it: they take only rectangles and points."""
    tracked = next((one for one in group.children if _means(one, concepts.TRACKING_IDENTIFIER.meaning)), None)
    if tracked is None:
        return False
    own = next(iter(_regions(group)), None)
    if not str(tracked.value).startswith("Cornerstone3DTools@"):
        region = None if own is None else own.value
        if not isinstance(region, SrRegion):
            return False
        if (region.graphic_type, len(region.points)) not in _HYDRATED:
            return False
    number = next((child for child in group.children if child.value_type == "NUM"), None)
    place = own if number is None else next(iter(_regions(number)), None)
    if place is None or not isinstance(place.value, SrRegion):
        return False
    return place.value_type == "SCOORD3D" or place.value.image is not None


def _slicer(document: SrDocument) -> View:
    viewer = "3D Slicer 5.12"
    if document.sop_class_uid not in _READ_AS_TID_1500 or document.template != "1500":
        return View(viewer=viewer, shows="nothing: its loader takes TID 1500 only")
    groups = list(_groups(document.tree))
    breaks = []
    if any(not any(group.find(concepts.FINDING)) for group in groups):
        breaks.append("its load raises AttributeError: a measurement group has no Finding")
    if any(not any(group.find(concepts.FINDING_SITE)) for group in groups):
        breaks.append("its load raises IndexError: a measurement group has no Finding Site")
    kinds = {
        item.value_type for group in groups for item in group.children if item.value_type in _REGION_TYPES
    }
    if len(kinds) > 1:
        breaks.append("its load raises AttributeError: regions on images and points in space in one SR")
    lost = ["the text, the observer, and whether it is verified"]
    if "SCOORD" in kinds:
        lost.append("the right place of every box, unless the images are axial")
    shapes = {region.graphic_type for group in groups if (region := _first_region(group)) is not None}
    if "SCOORD3D" in kinds and shapes - {"POINT"}:
        lost.append(f"regions in space that are no points ({', '.join(sorted(shapes - {'POINT'}))})")
    unplaced = len(document.findings) - len(groups)
    lost += [f"{_many(unplaced, 'finding')} without a place"] if unplaced else []
    if breaks:
        return View(viewer=viewer, shows="nothing", loses=tuple(lost), breaks=tuple(breaks))
    return View(
        viewer=viewer, shows=f"a table of {_many(len(groups), 'finding')} and the regions", loses=tuple(lost)
    )


def _ours(document: SrDocument) -> View:
    placed = sum(bool(finding.regions) for finding in document.findings)
    findings = f"{_many(len(document.findings), 'finding')}, {placed} with a region"
    shows = f"{findings}; {_many(len(document.sentences), 'sentence')}"
    if document.images:
        shows = _many(len(document.images), "key image")
    return View(viewer="medmllm sr show", shows=shows, loses=document.problems)


def _dsr2html(document: SrDocument) -> View:
    broken = [
        item for item in document.tree.walk() if item.value_type in ("TEXT", "CODE") and item.name is None
    ]
    return View(
        viewer="dsr2html",
        shows="the whole tree as a page, with links to images",
        loses=tuple(_lost_names(document.tree)),
        breaks=(f"item {broken[0].place} has no concept name, so it refuses the file",) if broken else (),
    )


def _weasis(document: SrDocument) -> View:
    regions = sum(bool(finding.regions) for finding in document.findings)
    return View(
        viewer="Weasis",
        shows="the text, with links to images",
        loses=(f"the drawing of {_many(regions, 'region')}",) if regions else (),
    )


def _dcmqi(document: SrDocument) -> View:
    if document.template != "1500":
        return View(viewer="dcmqi", shows="nothing: tid1500reader takes TID 1500 only")
    groups = list(_groups(document.tree))
    regions = sum(_first_region(group) is not None for group in groups)
    lost = [f"the coordinates of {_many(regions, 'region')}"] if regions else []
    if any(len(list(group.find(concepts.ALGORITHM_PARAMETERS))) > 1 for group in groups):
        lost.append("all but the first of the algorithm's parameters")
    return View(
        viewer="dcmqi", shows=f"codes and numbers of {_many(len(groups), 'finding')}", loses=tuple(lost)
    )


def _lost_names(tree: SrItem) -> list[str]:
    """What is shown without its name, as running text, since its container is CONTINUOUS."""
    count = sum(
        child.relationship == "CONTAINS" and child.value_type in ("TEXT", "CODE", "NUM", "PNAME")
        for item in tree.walk()
        if item.value_type == "CONTAINER" and not item.separate
        for child in item.children
    )
    return [f"the {_many(count, 'name')} of items in CONTINUOUS containers"] if count else []


def _many(count: int, noun: str) -> str:
    """A number of things: 1 finding, 2 findings."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _garbled(tree: SrItem) -> int:
    """Texts that dcmjs garbles: it forgets the document's character set inside sequences."""
    return sum(
        item.value_type == "TEXT" and not str(item.value).isascii() and not item.character_set
        for item in tree.walk()
    )


def _groups(tree: SrItem) -> Iterator[SrItem]:
    return (item for item in tree.walk() if item.is_named(concepts.MEASUREMENT_GROUP))


def _groups_by_meaning(tree: SrItem) -> list[SrItem]:
    """As the adapters find them: by the words and not the code."""
    return [
        group
        for container in tree.children
        if _means(container, concepts.IMAGING_MEASUREMENTS.meaning)
        for group in container.children
        if _means(group, concepts.MEASUREMENT_GROUP.meaning)
    ]


def _means(item: SrItem, meaning: str) -> bool:
    return item.name is not None and item.name.meaning == meaning


def _named(items: tuple[SrItem, ...] | list[SrItem], value: str) -> SrItem | None:
    """The first item of a concept name's value, as OHIF seeks it: an item before it without name throws."""
    for item in items:
        if item.name is None:
            raise _Thrown("an item has no concept name")
        if item.name.value == value:
            return item
    return None


def _regions(item: SrItem) -> list[SrItem]:
    return [child for child in item.children if child.value_type in _REGION_TYPES]


def _first_region(group: SrItem) -> SrRegion | None:
    """The region of a group, its own or else that of a number of it."""
    own = [*_regions(group), *(one for child in group.children for one in _regions(child))]
    return next((one.value for one in own if isinstance(one.value, SrRegion)), None)
