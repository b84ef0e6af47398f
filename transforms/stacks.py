"""Frames sorted into stacks: parallel planes, one at each place, by position along their normal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import StudyError
from medmllm_plugin.geometry import plane_name, unit_normal
from medmllm_plugin.headers import InstanceFacts
from medmllm_plugin.transforms.attributes import numbers, text
from medmllm_plugin.transforms.dicom_frames import TRAITS, Frame, private_b_value
from medmllm_plugin.transforms.dicom_headers import Header
from medmllm_plugin.transforms.gaps import SAME_PLACE
from medmllm_plugin.transforms.mixed import BETWEEN, are_stacks, fields_of_view
from medmllm_plugin.transforms.stored_bits import Record
from medmllm_plugin.volume import Lying

_PARALLEL = 2e-3
"""How far direction cosines of one stack may differ: headers round them."""
_NOT_MAGNITUDE = frozenset(
    {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY", "B0", "B0 MAP", "FIELD_MAP", "VELOCITY"}
)
"""Words of Image Type or Frame Type for MR images that show no anatomy by their brightness."""
_FAT = frozenset({"F", "FAT", "FF", "FAT_FRACTION", "R2_STAR", "T2_STAR"})
"""Words of Image Type or Frame Type for what a Dixon series shows beside what a radiologist reads first."""
_TIMES = ("temporal position", "trigger time", "cardiac phase", "frame time", "acquisition time")
"""Of `TRAITS` those by which images at one place follow each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the pixels of a stack are, summed up over its files."""

    files: int
    rescale_types: frozenset[str | None]
    """Rescale Type (0028,1054) of its frames, empty where it is missing; None for frames without rescale."""
    lossy: int
    """Files that were compressed with loss (0028,2110)."""
    burned_in: bool
    """Whether a file says that its pixels carry text (0028,0301)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stack:
    """Frames to be shown together."""

    frames: Sequence[Frame]
    """Sorted along the normal; in the order of the instance and frame numbers if they form no stack."""
    name: str = ""
    """What tells it from the other stacks of its series, such as `b-value 1000`; empty if it is the only
    one."""
    notes: tuple[str, ...] = ()
    """What was split off and why."""
    origins: NDArray[np.float64] | None = None
    """Shape (frames, 3): the place of each, LPS mm; None if one has none."""
    facts: Facts
    record: Callable[[int], Record] | None = None
    """Where the pixels of each lie, by number; None if that is to be found frame by frame."""
    lying: Callable[[Sequence[int]], Lying] | None = None
    """The same of several, where all lie in files as they are, of 16 bits."""
    instance: Callable[[int], str] | None = None
    """SOP Instance UID (0008,0018) of each, where frames differ in nothing that a `Plane` says but this and
    their place; None if they may."""
    instance_facts: Callable[[], Sequence[InstanceFacts]] | None = None
    """Those of each frame's header, where that is known without making the frames."""


def stack_of(frames: Sequence[Frame], *, name: str = "", notes: tuple[str, ...] = ()) -> Stack:
    """The stack of frames that are there, summed up."""
    matrices = [f.to_patient for f in frames if f.to_patient is not None]
    headers = list(dict.fromkeys(f.header for f in frames))
    return Stack(
        frames=tuple(frames),
        name=name,
        notes=notes,
        origins=np.array([m[:3, 3] for m in matrices]) if len(matrices) == len(frames) else None,
        facts=Facts(
            files=len(headers),
            rescale_types=frozenset(None if f.rescale is None else f.rescale_type for f in frames),
            lossy=sum(text(h, "LossyImageCompression") == "01" for h in headers),
            burned_in=any(text(h, "BurnedInAnnotation") == "YES" for h in headers),
        ),
    )


def stacks_of(frames: Sequence[Frame]) -> list[Stack]:
    """All stacks of a series, in the order of their numbers and then of what tells them apart.

    Frames belong together if they are parallel, of one size, spacing, photometric kind and Frame of Reference
    UID (0020,0052). Several frames at one place (echoes, b-values, phases) are told apart by the first of
    `TRAITS` that does so; those that lie between one another though they were not taken together, by
    `medmllm_plugin.transforms.mixed`. Position decides the order, never Instance Number (0020,0013). Where
    nothing stacks (a cine at one place, a scout of three directions, radiographs) all are one.
    """
    placed = [f for f in frames if f.to_patient is not None]
    if not placed:
        return _cines(_unplaced(frames))
    notes: tuple[str, ...] = ()
    if len(placed) < len(frames):
        left = len(frames) - len(placed)
        images = f"{left} image{'s'[: left != 1]} of the series that {'has' if left == 1 else 'have'}"
        notes = (f"left out {images} no place in the patient",)
    groups = _parallel_groups(placed)
    found = [_split(group) for group in groups]
    if max(len(s.frames) for group in found for s in group) == 1 < len(placed) and len(_kinds(placed)) == 1:
        return [_series_of_views(placed, notes)]
    directions = _directions(groups) if len(groups) > 1 else [""]
    return [
        replace(s, name=", ".join(filter(None, (direction, s.name))), notes=(*notes, *s.notes))
        for direction, group in zip(directions, found, strict=True)
        for s in group
    ]


def best_stack(stacks: Sequence[Stack]) -> Stack:
    """The largest; of one size magnitude goes before phase and Dixon fat last, then the first is taken."""

    def rank(stack: Stack) -> tuple[int, bool, bool]:
        words = _image_words(stack.frames[0])
        return len(stack.frames), not words & _NOT_MAGNITUDE, not words & _FAT

    return max(stacks, key=rank)


def named_stack(stacks: Sequence[Stack], wanted: int | str, where: str) -> Stack:
    """The stack that is asked for.

    Args:
        stacks: All stacks of a series.
        wanted: Its number from 0, its name, or a part of its name that no other has.
        where: What to call the series in an error.

    Raises:
        StudyError: If there is none, or more than one.
    """
    number = int(wanted) if str(wanted).isdecimal() else None
    if number is not None and number < len(stacks):
        return stacks[number]
    folded = str(wanted).casefold()
    found = [s for s in stacks if s.name.casefold() == folded]
    found = found or [s for s in stacks if number is None and folded in s.name.casefold()]
    if len(found) != 1:
        raise StudyError(
            found=listed(stacks),
            expected=f"one that {str(wanted)[:60]!r} names",
            where=where,
            remedy="give its number or its name",
        )
    return found[0]


def listed(stacks: Sequence[Stack], most: int = 12) -> str:
    """The stacks of a series in words: how many, and the number and name of each.

    >>> listed([])
    '0 stacks'
    """
    shown = [f"{n} ({s.name})" for n, s in enumerate(stacks[:most]) if s.name]
    more = f" and {len(stacks) - most} more" if len(stacks) > most else ""
    return f"{len(stacks)} stack{'s'[: len(stacks) != 1]}" + (f": {', '.join(shown)}{more}" if shown else "")


def is_axial(stack: Stack) -> bool:
    """Whether its planes are axial, obliquely or not."""
    matrix = stack.frames[0].to_patient
    return matrix is not None and plane_name(matrix).endswith("axial")


def is_stack(stack: Stack) -> bool:
    """Whether its frames lie one behind the other in the patient."""
    matrix = stack.frames[0].to_patient
    if matrix is None or stack.origins is None:
        return False
    gaps = np.diff(np.sort(stack.origins @ unit_normal(matrix)))
    return len(gaps) == 0 or bool(gaps.min() >= SAME_PLACE)


def _image_words(frame: Frame) -> set[str]:
    return {str(word) for name in ("image type", "complex component") for word in frame.traits.get(name, ())}


def _unplaced(frames: Sequence[Frame]) -> Stack:
    kinds = _kinds(frames)
    kind = max(kinds, key=lambda k: kinds[k])
    kept = tuple(sorted((f for f in frames if _kind(f) == kind), key=lambda f: f.order))
    notes = []
    if len(kept) < len(frames):
        others = ", ".join(f"{n} {k}" for k, n in kinds.items() if k != kind)
        notes.append(f"left out {others} images of the series: those shown are {kind}")
    if len(kept) > 1:
        seconds = cine_seconds(kept[0].header) if len({f.header for f in kept}) == 1 else None
        if seconds is None:
            how = "have no place in the patient: shown in the order of their numbers"
        else:
            how = f"are a cine of {seconds:.1f} s without a place in the patient: shown in the order of time"
        notes.append(f"the {len(kept)} images {how}")
    return stack_of(kept, notes=tuple(notes))


def _cines(whole: Stack) -> list[Stack]:
    """Images without a place, and where they are cines of several files each cine by itself too."""
    files: dict[Header, list[Frame]] = defaultdict(list)
    for frame in whole.frames:
        files[frame.header].append(frame)
    if len(files) < 2 or not all(header.multi_frame for header in files):
        return [whole]
    alone = [replace(_unplaced(frames), name=f"cine {n}") for n, frames in enumerate(files.values(), 1)]
    return [replace(whole, name=f"all {len(files)} cines"), *alone]


def cine_seconds(header: Header) -> float | None:
    """From the first to the last frame of a multi-frame file; None if it doesn't say.

    By Frame Time Vector (0018,1065), Frame Time (0018,1063), both in ms, or Cine Rate (0018,0040).
    """
    steps = header.frames - 1
    if steps < 1:
        return None
    vector = numbers(header, "FrameTimeVector")
    if vector is not None and len(vector) == header.frames:
        return sum(vector[1:]) / 1000
    for keyword in ("FrameTime", "CineRate", "RecommendedDisplayFrameRate"):
        value = numbers(header, keyword, 1)
        if value is not None and value[0] > 0:
            return steps * (value[0] / 1000 if keyword == "FrameTime" else 1 / value[0])
    return None


def _series_of_views(placed: list[Frame], notes: tuple[str, ...]) -> Stack:
    """Frames of which no two are one behind the other: all of them, in the order of time or of numbers."""
    if len(_parallel_groups(placed)) > 1 or len(_places(placed)) > 1:
        note = f"the {len(placed)} images form no stack: shown in the order of their numbers"
        return stack_of(sorted(placed, key=lambda f: f.order), notes=(*notes, note))
    for name in _TIMES:
        times = [f.traits.get(name, ()) for f in placed]
        if all(times) and len(set(times)) == len(placed):
            order, by = sorted(placed, key=lambda f, n=name: repr_key((f.traits[n],))), name  # type: ignore[misc]
            break
    else:
        order, by = sorted(placed, key=lambda f: f.order), "numbers"
    note = f"the {len(placed)} images are at one place (a time series): shown in the order of their {by}"
    return stack_of(order, notes=(*notes, note))


def _directions(groups: Sequence[Sequence[Frame]]) -> list[str]:
    """What tells groups of parallel frames apart: plane, size, frame of reference, else a number."""
    first = [group[0] for group in groups]
    names = [plane_name(f.to_patient) for f in first if f.to_patient is not None]
    if len(set(names)) < len(names):
        names = [f"{name} {f.rows} x {f.columns}" for name, f in zip(names, first, strict=True)]
    spaces = [text(f.header, "FrameOfReferenceUID") for f in first]
    if len(known := list(dict.fromkeys(spaces))) > 1:
        numbered = [known.index(space) + 1 for space in spaces]
        names = [f"{name}, frame of reference {n}" for name, n in zip(names, numbered, strict=True)]
    same = Counter(names)
    seen: Counter[str] = Counter()
    for n, name in enumerate(names):
        seen[name] += 1
        names[n] = f"{name} ({seen[name]})" if same[name] > 1 else name
    return names


def _kinds(frames: Iterable[Frame]) -> Counter[str]:
    return Counter(_kind(f) for f in frames)


def _kind(frame: Frame) -> str:
    photometric = frame.header.photometric
    return photometric if photometric in ("MONOCHROME1", "MONOCHROME2") else "colour"


def _parallel_groups(frames: Iterable[Frame]) -> list[list[Frame]]:
    groups: list[list[Frame]] = []
    for frame in sorted(frames, key=lambda f: f.order):
        group = next((g for g in groups if _alike(g[0], frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    return groups


def _alike(a: Frame, b: Frame) -> bool:
    if a.to_patient is None or b.to_patient is None or _kind(a) != _kind(b):
        return False
    if (a.rows, a.columns) != (b.rows, b.columns):
        return False
    spaces = {text(f.header, "FrameOfReferenceUID") for f in (a, b)} - {""}
    if len(spaces) > 1:
        return False
    size = np.abs(a.to_patient[:3, :2]).max()
    return bool(np.abs(a.to_patient[:3, :2] - b.to_patient[:3, :2]).max() < _PARALLEL * size)


def _along_normal(frames: Sequence[Frame]) -> NDArray[np.float64]:
    matrices = [f.to_patient for f in frames if f.to_patient is not None]
    return np.array([m[:3, 3] for m in matrices]) @ unit_normal(matrices[0])


def _places(frames: Sequence[Frame]) -> list[list[Frame]]:
    """The frames at each place, by rising position."""
    positions = _along_normal(frames)
    places: list[list[Frame]] = []
    last = -np.inf
    for i in np.argsort(positions, kind="stable"):
        if positions[i] - last < SAME_PLACE:
            places[-1].append(frames[i])
        else:
            places.append([frames[i]])
            last = float(positions[i])
    return places


def _split(group: list[Frame]) -> list[Stack]:
    places = _places(group)
    most = max(map(len, places))
    if most == 1:
        return _taken_apart([place[0] for place in places])
    group = _with_fields_of_view(_with_b_values(group))
    varying = [t for t in TRAITS if len({f.traits.get(t) for f in group}) > 1]
    for names in (*((t,) for t in varying), *combinations(varying, 2)):
        stacks = _by_traits(group, names)
        if len(stacks) == most and all(len(_places(s)) == len(s) for s in stacks):
            first = "b-value", *(n for n in names if n != "b-value")  # what a reader wants to know first
            told = first if "b-value" in varying and len(_by_traits(group, first)) == most else names
            return [_named(stack, told) for stack in _by_traits(group, told)]
    if repeated := _repetitions(places) or _by_time(places):
        return repeated
    # nothing in the header tells them apart: the first at each place, in the order of their numbers
    earliest = tuple(min(place, key=lambda f: f.order) for place in places)
    why = "are at one place and the header doesn't tell why; the first of each was taken"
    return [stack_of(earliest, notes=(f"up to {most} images {why}",))]


def _taken_apart(frames: list[Frame]) -> list[Stack]:
    """Frames sorted by position, each at a place of its own: one stack, or several, one between the other."""
    frames = _with_fields_of_view(frames)
    for name in BETWEEN:
        labels = [f.traits.get(name, ()) for f in frames]
        # passes are numbered as acquisitions at times: they fill gaps, while a second acquisition overlaps
        if are_stacks(labels) and (name != "acquisition number" or _overlap(frames)):
            return [_named(part, (name,)) for part in _by_traits(frames, (name,))]
    return [stack_of(frames)]


def _overlap(frames: Sequence[Frame]) -> bool:
    """Whether sorted slices are thicker than the way from one to the next."""
    thickness = frames[0].thickness
    gap = float(np.median(np.diff(_along_normal(frames))))
    return thickness is not None and thickness > 1.1 * gap


def _with_fields_of_view(frames: list[Frame]) -> list[Frame]:
    """The frames with the field of view of each, where there are several."""
    matrices = [f.to_patient for f in frames if f.to_patient is not None]
    fields = fields_of_view(matrices, rows=frames[0].rows, columns=frames[0].columns)
    return [replace(f, field_of_view=v) if v else f for f, v in zip(frames, fields, strict=True)]


def _by_time(places: list[list[Frame]]) -> list[Stack]:
    """Stacks of the first, second and so on at each place by time, for series taken place by place.

    Empty if the header gives no times, if two at one place are the same, or if some places have more images.
    """
    if len({len(place) for place in places}) > 1:
        return []
    for name in _TIMES:
        timed = [{repr_key((f.traits.get(name, ()),)): f for f in place} for place in places]
        if all(len(one) == len(place) and () not in one for one, place in zip(timed, places, strict=True)):
            ranked = [[one[time] for time in sorted(one)] for one in timed]
            return [stack_of(s, name=f"time {n}") for n, s in enumerate(zip(*ranked, strict=True), 1)]
    return []


def _repetitions(places: list[list[Frame]]) -> list[Stack]:
    """Stacks taken one after the other, each with numbers of its own: [] if the numbers don't show that."""
    if len({len(place) for place in places}) > 1 or len({f.order for p in places for f in p}) < len(places):
        return []
    ranked = [sorted(place, key=lambda f: f.order) for place in places]
    stacks = [[place[n] for place in ranked] for n in range(len(ranked[0]))]
    ends = [(min(f.order for f in s), max(f.order for f in s)) for s in stacks]
    if any(before[1] >= after[0] for before, after in pairwise(ends)):
        return []
    return [stack_of(s, name=f"repetition {n}") for n, s in enumerate(stacks, 1)]


def _with_b_values(group: list[Frame]) -> list[Frame]:
    """The frames with the b-values of their maker's private attributes, where the standard's are missing."""
    first = group[0]
    if any("b-value" in f.traits for f in group) or first.header.modality != "MR" or first.header.multi_frame:
        return group
    if private_b_value(first.header.dataset) is None:
        return group
    values = [private_b_value(f.header.dataset) for f in group]
    return [replace(f, b_value=value) for f, value in zip(group, values, strict=True)]


def _by_traits(group: list[Frame], names: tuple[str, ...]) -> list[list[Frame]]:
    """The frames of each combination of traits, by rising values."""
    found: dict[object, list[Frame]] = defaultdict(list)
    for frame in group:
        found[tuple(frame.traits.get(name, ()) for name in names)].append(frame)
    return [found[k] for k in sorted(found, key=repr_key)]


def repr_key(value: object) -> tuple[tuple[int, float, str], ...]:
    """A key by which traits of mixed kinds sort: numbers by size before text."""
    flat = [v for part in value if isinstance(part, tuple) for v in part] if isinstance(value, tuple) else []
    return tuple((0, float(v), "") if isinstance(v, float) else (1, 0.0, str(v)) for v in flat)


def _named(stack: list[Frame], names: tuple[str, ...]) -> Stack:
    frames = tuple(place[0] for place in _places(stack))
    return stack_of(frames, name=", ".join(f"{n} {_words(stack[0].traits.get(n, ()))}" for n in names))


def _words(value: Sequence[object]) -> str:
    shown = "\\".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value)
    return "".join(c for c in shown if c.isprintable())[:60] or "none"
