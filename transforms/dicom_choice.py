"""Series of DICOM images, and the rule that chooses the one to read.

When the user names no series: images only, no localizers, Siemens mosaics (functional or diffusion series)
only where nothing else is there; then the series that is first by 1. having the UIDs by which a report cites
it, 2. images of the patient rather than screens (Image Type value 2 or Secondary Capture), 3. at least 5
slices with a place, 4. original rather than derived (Image Type value 1), 5. for CT: axial, 6. for CT: a
smooth kernel rather than one for bone or lung, 7. the most slices in one stack, 8. the lowest Series Number.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from medmllm_plugin.errors import InputError, StudyError
from medmllm_plugin.transforms.attributes import integer, known_name, text
from medmllm_plugin.transforms.dicom_frames import frames_of
from medmllm_plugin.transforms.dicom_headers import Header, check_pixels, damaged
from medmllm_plugin.transforms.entries import Entry
from medmllm_plugin.transforms.mosaic import is_mosaic
from medmllm_plugin.transforms.plain_series import plain_stack
from medmllm_plugin.transforms.stacks import (
    Stack,
    best_stack,
    is_axial,
    is_stack,
    listed,
    named_stack,
    stacks_of,
)

_FEW = 5
_LEAST_DIGITS = 6
"""So many digits alone may be the end of a UID."""
_LOCALIZERS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"})
_SHARP = re.compile(
    r"[BHU][6-9]\d\w*|Bl\d\d\w*|[BH][a-z](?:5[5-9]|[6-9]\d)\w*"  # Siemens
    r"|BONE\w*|LUNG|EDGE|ULTRA"  # GE
    r"|[DEL]|Y[A-E]"  # Philips
    r"|FC[358]\d",  # Canon
    re.IGNORECASE,
)
"""Values of Convolution Kernel (0018,1210) that are for bone and lung."""


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
    stacks: Sequence[Stack] = ()
    """All its stacks."""
    error: InputError | None = None

    @property
    def uid(self) -> str:
        """Series Instance UID (0020,000E), or empty."""
        return self.headers[0].series_instance_uid

    @property
    def modality(self) -> str:
        """Modality (0008,0060), or empty."""
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
        """Whether Image Type (0008,0008) marks all its images as localizers."""
        return all(_LOCALIZERS & set(h.image_type) for h in self.kinds)

    @property
    def mosaic(self) -> bool:
        """Whether it holds Siemens mosaics."""
        return any(is_mosaic(h) for h in self.kinds)

    @property
    def secondary(self) -> bool:
        """Whether its images are screens or results made of images rather than images of the patient."""
        first = self.headers[0]
        return first.image_type[1:2] == ("SECONDARY",) or "Secondary Capture" in known_name(
            first.sop_class_uid
        )

    @property
    def derived(self) -> bool:
        """Whether value 1 of Image Type (0008,0008) is DERIVED."""
        return self.headers[0].image_type[:1] == ("DERIVED",)

    @property
    def slices(self) -> int:
        """Images in its largest stack."""
        return len(self.stack.frames) if self.stack else 0

    def rank(self) -> tuple[bool, bool, bool, bool, bool, bool, int, int]:
        """The rule of choice: the greatest is chosen."""
        stacked = self.stack is not None and is_stack(self.stack) and self.slices >= _FEW
        axial = self.modality != "CT" or (self.stack is not None and is_axial(self.stack))
        smooth = self.modality != "CT" or not is_sharp(text(self.headers[0], "ConvolutionKernel"))
        first = self.citable, not self.secondary, stacked, not self.derived
        return *first, axial, smooth, self.slices, -self.number


def is_sharp(kernel: str) -> bool:
    """Whether a Convolution Kernel (0018,1210) is one for bone or lung.

    >>> [is_sharp(kernel) for kernel in ("B70f", "Bl57d", "BONEPLUS", "Br40d", "STANDARD", "")]
    [True, True, True, False, False, False]
    """
    return _SHARP.fullmatch(kernel) is not None


def group(images: Iterable[Header]) -> list[Series]:
    """Images as series, by Series Instance UID; where that is missing by Modality and Series Number."""
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
    return Series(headers=headers, kinds=headers[:1], images=len(headers), stack=stack, stacks=(stack,))


def _series(headers: list[Header]) -> Series:
    # a scout sent in the series of the slices is no part of their stack
    proper = [h for h in headers if not _LOCALIZERS & set(h.image_type)] or headers
    scouts = len(headers) - len(proper)
    stack, stacks, error = None, list[Stack](), None
    try:
        _require_one_series(headers)
        for header in proper:
            check_pixels(header)
        stacks = stacks_of([frame for header in proper for frame in frames_of(header)])
        if scouts:
            note = f"left out {scouts} localizers of the same series"
            stacks = [replace(one, notes=(*one.notes, note)) for one in stacks]
        stack = best_stack(stacks)
    except InputError as told:
        error = told
    except Exception as cause:  # a header may be wrong in ways that no list foresees
        what = f"a header of impossible values in its series ({type(cause).__name__})"
        error = damaged(proper[0].entry, what)
    images = sum(h.frames for h in proper)
    return Series(headers=proper, kinds=proper, images=images, stack=stack, stacks=tuple(stacks), error=error)


def _require_one_series(headers: Sequence[Header]) -> None:
    """A series is of one study and modality: else its UID was given away twice, and may be of anybody."""
    studies = {header.study_instance_uid for header in headers} - {""}
    modalities = {header.modality for header in headers} - {""}
    if len(studies) > 1 or len(modalities) > 1:
        of = f"in {len(studies)} studies" if len(studies) > 1 else f"of {' and '.join(sorted(modalities))}"
        raise StudyError(
            found=f"one Series Instance UID {of}",
            expected="a series of one study and one modality",
            where=headers[0].entry.name,
            remedy="give the files of each by themselves",
        )


def shown_stack(series: Series, wanted: int | str | None) -> Stack:
    """The stack to show of a series that can be read: the largest, or the one that is asked for.

    Raises:
        StudyError: If there is no such stack.
    """
    assert series.stack is not None
    stack = series.stack if wanted is None else named_stack(series.stacks, wanted, series.label)
    if len(series.stacks) < 2:
        return stack
    total = len({(f.header, f.index, f.tile) for one in series.stacks for f in one.frames})
    why = "the largest" if wanted is None else "asked for"
    taken = f"{stack.name}, {len(stack.frames)} of {total} images"
    note = f"of {listed(series.stacks)} one was taken, {why}: {taken}"
    return replace(stack, notes=(note, *stack.notes))


def of_modality(everything: list[Series], modality: str | None, where: str) -> list[Series]:
    """The series of a modality and those that name none; all if none is asked for.

    Raises:
        StudyError: If there is no such series.
    """
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


class _Nameable(Protocol):
    @property
    def uid(self) -> str: ...
    @property
    def number(self) -> int: ...


_T = TypeVar("_T", bound=_Nameable)


def that_are_named(candidates: Sequence[_T], wanted: str) -> list[_T]:
    """The series that a user's word names: by UID, by Series Number, or by the beginning or end of a UID.

    A few digits alone are a number and no part of a UID: every UID made from a UUID begins with 2, and a
    number that the study doesn't have would name another series.
    """
    found = [one for one in candidates if one.uid == wanted]
    found = found or [one for one in candidates if str(one.number) == wanted]
    if found or (len(wanted) < _LEAST_DIGITS and not wanted.strip("0123456789")):
        return found
    return [one for one in candidates if one.uid.startswith(wanted) or one.uid.endswith(wanted)]


def named_series(candidates: Sequence[Series], wanted: str, where: str) -> tuple[Series, str]:
    """The one series that a user's word names (see `that_are_named`), and why it was chosen.

    Raises:
        StudyError: If it names none or several.
    """
    found = that_are_named(candidates, wanted)
    if len(found) != 1:
        raise StudyError(
            found=_listed(found or candidates),
            expected=f"one series that {wanted!r} names",
            where=where,
            remedy="give the whole Series Instance UID of one of them",
        )
    return found[0], "it was asked for"


def choose(candidates: list[Series], where: str) -> tuple[Series, str]:
    """The series to read where the user names none, by the rule above, and why, in words.

    Raises:
        StudyError: If they are of several studies.
    """
    studies = {s.headers[0].study_instance_uid for s in candidates}
    if len(studies) > 1:
        raise StudyError(
            found=f"{len(studies)} studies: {_listed(candidates)}",
            expected="the series of one study",
            where=where,
            remedy="give each study by itself, or name the series",
        )
    proper = [s for s in candidates if not s.mosaic] or candidates
    sharp = [s for s in proper if not s.localizer] or proper
    chosen = max(sharp, key=Series.rank) if len(sharp) > 1 else sharp[0]
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
        "being made with a smooth kernel",
        "the number of slices in one stack",
        "the lowest series number",
    )
    second = max((s.rank() for s in among if s is not chosen), default=chosen.rank())
    return next((n for n, a, b in zip(names, chosen.rank(), second, strict=True) if a != b), names[-1])


def others(everything: Sequence[Series], chosen: Series) -> list[str]:
    """A note for each series that was not chosen, by Series Number: what it is and why it was left out."""
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
