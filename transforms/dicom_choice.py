"""Series of DICOM images, and the rule that chooses the one to read.

When the user names no series: images only, no localizers, no Siemens mosaics; then the series that is first
by 1. having the UIDs by which a report cites it, 2. images of the patient rather than screens (Image Type
value 2 or Secondary Capture), 3. at least 5 slices with a place, 4. original rather than derived (Image Type
value 1), 5. for CT: axial, 6. the most slices in one stack, 7. the lowest Series Number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from medmllm_plugin.errors import InputError, StudyError
from medmllm_plugin.transforms.attributes import integer, known_name, text
from medmllm_plugin.transforms.dicom_frames import frames_of
from medmllm_plugin.transforms.dicom_headers import Header, check_pixels, damaged
from medmllm_plugin.transforms.entries import Entry
from medmllm_plugin.transforms.plain_series import plain_stack
from medmllm_plugin.transforms.stacks import Stack, best_stack, is_axial, is_stack

_FEW = 5
_LOCALIZERS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"})


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Series:
    """The images of one Series Instance UID (0020,000E)."""

    headers: Sequence[Header]
    """Its files; those of a plain series are read when asked for."""
    kinds: Sequence[Header]
    """Headers that stand for all: in a plain series the first, otherwise each."""
    images: int
    stack: Stack | None
    """Its largest stack; None if it can't be read, for which `error` is the reason."""
    error: InputError | None = None

    @property
    def uid(self) -> str:
        return self.headers[0].series_instance_uid

    @property
    def modality(self) -> str:
        return self.headers[0].modality

    @property
    def number(self) -> int:
        """Series Number (0020,0011); 0 if it has none."""
        return integer(self.headers[0], "SeriesNumber")

    @property
    def citable(self) -> bool:
        """Whether every image has the UIDs by which DICOM refers to it."""
        return all(h.citable for h in self.kinds)

    @property
    def label(self) -> str:
        """Number, modality and count, without free text of the header."""
        images = self.images
        number = self.number if text(self.headers[0], "SeriesNumber") else "without number"
        return f"series {number} ({self.modality or 'no modality'}, {images} image{'s'[: images != 1]})"

    @property
    def localizer(self) -> bool:
        return all(_LOCALIZERS & set(h.image_type) for h in self.kinds)

    @property
    def mosaic(self) -> bool:
        return any("MOSAIC" in h.image_type for h in self.kinds)

    @property
    def secondary(self) -> bool:
        """Whether its images are screens or results made of images rather than images of the patient."""
        first = self.headers[0]
        return first.image_type[1:2] == ("SECONDARY",) or "Secondary Capture" in known_name(
            first.sop_class_uid
        )

    @property
    def derived(self) -> bool:
        return self.headers[0].image_type[:1] == ("DERIVED",)

    @property
    def slices(self) -> int:
        """Images in its largest stack."""
        return len(self.stack.frames) if self.stack else 0

    def rank(self) -> tuple[bool, bool, bool, bool, bool, int, int]:
        """The rule of choice: the greatest is chosen."""
        stacked = self.stack is not None and is_stack(self.stack) and self.slices >= _FEW
        axial = self.modality != "CT" or (self.stack is not None and is_axial(self.stack))
        return (self.citable, not self.secondary, stacked, not self.derived, axial, self.slices, -self.number)


def group(images: Iterable[Header]) -> list[Series]:
    groups: dict[tuple[str, str], list[Header]] = defaultdict(list)
    for header in images:
        uid = header.series_instance_uid
        groups[uid, "" if uid else f"{header.modality} {text(header, 'SeriesNumber')}"].append(header)
    return [_series(headers) for headers in groups.values()]


def plain(entries: Sequence[Entry]) -> Series | None:
    """The series of these files, if it is as most are; None if each header must be looked at."""
    found = plain_stack(entries)
    if found is None:
        return None
    stack, headers = found
    return Series(headers=headers, kinds=headers[:1], images=len(headers), stack=stack)


def _series(headers: list[Header]) -> Series:
    # a scout sent in the series of the slices is no part of their stack
    proper = [h for h in headers if not _LOCALIZERS & set(h.image_type)] or headers
    scouts = len(headers) - len(proper)
    stack, error = None, None
    try:
        for header in proper:
            check_pixels(header)
        stack = best_stack([frame for header in proper for frame in frames_of(header)])
        if scouts:
            note = f"left out {scouts} localizers of the same series"
            stack = replace(stack, notes=(*stack.notes, note))
    except InputError as told:
        error = told
    except Exception as cause:  # a header may be wrong in ways that no list foresees
        what = f"a header of impossible values in its series ({type(cause).__name__})"
        error = damaged(proper[0].entry, what)
    images = sum(h.frames for h in proper)
    return Series(headers=proper, kinds=proper, images=images, stack=stack, error=error)


def of_modality(everything: list[Series], modality: str | None, where: str) -> list[Series]:
    candidates = [s for s in everything if modality is None or s.modality in ("", modality)]
    if not candidates:
        raise StudyError(
            found=_listed(everything),
            expected=f"a series of modality {modality}",
            where=where,
            remedy="give another modality or none",
        )
    return candidates


def _listed(everything: Sequence[Series], most: int = 12) -> str:
    labels = [s.label for s in sorted(everything, key=lambda s: s.number)]
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more


def named_series(candidates: Sequence[Series], wanted: str, where: str) -> tuple[Series, str]:
    found = [s for s in candidates if s.uid == wanted]
    found = found or [s for s in candidates if str(s.number) == wanted]
    found = found or [s for s in candidates if s.uid.startswith(wanted) or s.uid.endswith(wanted)]
    if len(found) != 1:
        raise StudyError(
            found=_listed(found or candidates),
            expected=f"one series that {wanted!r} names",
            where=where,
            remedy="give the whole Series Instance UID of one of them",
        )
    _refuse_mosaic(found[0])
    return found[0], "it was asked for"


def _refuse_mosaic(series: Series) -> None:
    if series.mosaic:
        raise StudyError(
            found=f"{series.label}: Siemens mosaics, which hold many slices in one picture",
            expected="one slice in each image or frame",
            where=series.headers[0].entry.name,
            remedy="export them as single slices or enhanced MR, or convert them to NIfTI",
        )


def choose(candidates: list[Series], where: str) -> tuple[Series, str]:
    studies = {s.headers[0].study_instance_uid for s in candidates}
    if len(studies) > 1:
        raise StudyError(
            found=f"{len(studies)} studies: {_listed(candidates)}",
            expected="the series of one study",
            where=where,
            remedy="give each study by itself, or name the series",
        )
    proper = [s for s in candidates if not s.mosaic]
    if not proper:
        _refuse_mosaic(candidates[0])
    sharp = [s for s in proper if not s.localizer] or proper
    chosen = max(sharp, key=Series.rank)
    larger = [s for s in sharp if s.error is not None and s.images > chosen.slices]
    if chosen.error is None and larger:
        chosen = larger[0]  # it might have been the one to read, so its damage must be told
    if chosen.localizer:
        return chosen, "there are only localizers"
    if len(sharp) == 1:
        return chosen, "the only series of images"
    return chosen, f"first of {len(sharp)} series by {_deciding(chosen, sharp)}"


def _deciding(chosen: Series, among: Sequence[Series]) -> str:
    """Which part of the rule set the chosen one apart from the next."""
    names = (
        "having UIDs to be cited by",
        "being images of the patient rather than screens",
        f"having at least {_FEW} slices in one stack",
        "being original rather than derived",
        "being axial",
        "the number of slices in one stack",
        "the lowest series number",
    )
    second = max((s.rank() for s in among if s is not chosen), default=chosen.rank())
    return next((n for n, a, b in zip(names, chosen.rank(), second, strict=True) if a != b), names[-1])


def others(everything: Sequence[Series], chosen: Series) -> list[str]:
    others = sorted((s for s in everything if s is not chosen), key=lambda s: s.number)
    return [f"left out {s.label}: {_why_left_out(s)}" for s in others]


def _why_left_out(series: Series) -> str:
    if series.localizer:
        return "localizers"
    if series.mosaic:
        return "Siemens mosaics"
    if series.error is not None:
        return "it can't be read whole"
    if series.secondary:
        return "secondary images (screens, or made from other images)"
    return f"derived, {series.slices} in one stack" if series.derived else f"{series.slices} in one stack"
