"""Frames sorted into stacks: parallel planes, one at each place, by position along their normal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.geometry import Matrix, plane_name, unit_normal
from medmllm_plugin.transforms.attributes import text
from medmllm_plugin.transforms.dicom_frames import TRAITS, Frame

_PARALLEL = 2e-3
"""How far direction cosines of one stack may differ: headers round them."""
_NOT_MAGNITUDE = frozenset(
    {"P", "PHASE", "PHASE MAP", "R", "REAL", "I", "IMAGINARY", "B0", "B0 MAP", "FIELD_MAP", "VELOCITY"}
)
"""Words of Image Type or Frame Type for MR images that show no anatomy by their brightness."""
SAME_PLACE = 0.01
"""Planes closer than this along the normal, mm, are at one place."""


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
    notes: tuple[str, ...] = ()
    """What was split off and why."""
    origins: NDArray[np.float64] | None = None
    """Shape (frames, 3): the place of each, LPS mm; None if one has none."""
    facts: Facts


def stack_of(frames: Sequence[Frame], notes: tuple[str, ...] = ()) -> Stack:
    """The stack of frames that are there, summed up."""
    matrices = [f.to_patient for f in frames if f.to_patient is not None]
    headers = list(dict.fromkeys(f.header for f in frames))
    return Stack(
        frames=tuple(frames),
        notes=notes,
        origins=np.array([m[:3, 3] for m in matrices]) if len(matrices) == len(frames) else None,
        facts=Facts(
            files=len(headers),
            rescale_types=frozenset(None if f.rescale is None else f.rescale_type for f in frames),
            lossy=sum(text(h, "LossyImageCompression") == "01" for h in headers),
            burned_in=any(text(h, "BurnedInAnnotation") == "YES" for h in headers),
        ),
    )


def best_stack(frames: Sequence[Frame]) -> Stack:
    """The largest stack of a series.

    Frames belong together if they are parallel, of one size, spacing and photometric kind. Several frames at
    one place (echoes, b-values, phases) are told apart by the first of `TRAITS` that does so; among stacks of
    one size magnitude goes before phase, then the lowest value is taken. Position decides the order, never
    Instance Number (0020,0013). Where nothing stacks (a cine at one place, a scout of three directions,
    radiographs) all are kept.
    """
    placed = [f for f in frames if f.to_patient is not None]
    if not placed:
        return _unplaced(frames)
    notes: list[str] = []
    if len(placed) < len(frames):
        notes.append(
            f"left out {len(frames) - len(placed)} images of the series that have no place in the patient"
        )
    candidates = [one for group in _parallel_groups(placed) for one in _split(group)]
    best = max(candidates, key=lambda stack: (len(stack.frames), _is_magnitude(stack.frames[0])))
    if len(best.frames) == 1 and len(placed) > 1 and len({_kind(f) for f in placed}) == 1:
        same = len(_places(placed)) == 1 and len(_parallel_groups(placed)) == 1
        what = "are at one place (a time series)" if same else "form no stack"
        return stack_of(
            sorted(placed, key=lambda f: f.order),
            (*notes, f"the {len(placed)} images {what}: shown in the order of their numbers"),
        )
    if len(best.frames) < len(placed):
        groups = len(_parallel_groups(placed))
        what = f"{groups} directions or sizes" if groups > 1 else "several images at one place"
        notes.append(
            f"the series has {what}: {len(best.frames)} of {len(placed)} images were taken, the largest stack"
        )
    return replace(best, notes=(*notes, *best.notes))


def spacing_notes(matrices: Sequence[Matrix], thickness: float | None = None) -> tuple[str, ...]:
    """What is odd about the places of sorted planes: uneven gaps, tilt, slices thicker than their gaps.

    >>> planes = [np.eye(4) for _ in range(3)]
    >>> for matrix, z in zip(planes, (0, 4, 11)): matrix[2, 3] = z
    >>> spacing_notes(planes)
    ('the slices are unevenly spaced: gaps 4.00 to 7.00 mm',)
    """
    if not matrices:
        return ()
    return place_notes(unit_normal(matrices[0]), np.array([m[:3, 3] for m in matrices]), thickness)


def place_notes(
    normal: NDArray[np.float64], origins: NDArray[np.float64], thickness: float | None = None
) -> tuple[str, ...]:
    """As `spacing_notes`, of sorted planes of one normal whose places are `origins`, shape (planes, 3)."""
    if len(origins) < 2:
        return ()
    notes = []
    gaps = np.diff(origins @ normal)
    if gaps.max() < SAME_PLACE:
        return ()
    uneven = gaps.max() - gaps.min() > SAME_PLACE
    if uneven:
        notes.append(f"the slices are unevenly spaced: gaps {gaps.min():.2f} to {gaps.max():.2f} mm")
    way = origins[-1] - origins[0]
    tilt = np.degrees(np.arccos(np.clip(way @ normal / np.linalg.norm(way), -1, 1)))
    if tilt > 0.5:
        notes.append(
            f"the stack is sheared by {tilt:.1f} degrees (gantry tilt); each slice keeps its own place"
        )
    middle = float(np.median(gaps))
    if thickness is not None and not uneven and abs(thickness - middle) > 0.05 * middle:
        what = "they overlap" if thickness > middle else "what lies between was not imaged"
        notes.append(f"the slices are {thickness:g} mm thick every {middle:.2f} mm: {what}")
    return tuple(notes)


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


def _is_magnitude(frame: Frame) -> bool:
    return not _NOT_MAGNITUDE & set(map(str, frame.traits.get("image type", ())))


def _unplaced(frames: Sequence[Frame]) -> Stack:
    kinds = Counter(_kind(f) for f in frames)
    kind = max(kinds, key=lambda k: kinds[k])
    kept = tuple(sorted((f for f in frames if _kind(f) == kind), key=lambda f: f.order))
    notes = []
    if len(kept) < len(frames):
        others = ", ".join(f"{n} {k}" for k, n in kinds.items() if k != kind)
        notes.append(f"left out {others} images of the series: those shown are {kind}")
    if len(kept) > 1:
        notes.append(
            f"the {len(kept)} images have no place in the patient: shown in the order of their numbers"
        )
    return stack_of(kept, tuple(notes))


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
    if (a.header.rows, a.header.columns) != (b.header.rows, b.header.columns):
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
        return [stack_of([place[0] for place in places])]
    varying = [t for t in TRAITS if len({f.traits.get(t) for f in group}) > 1]
    for names in (*((t,) for t in varying), *combinations(varying, 2)):
        stacks = _by_key(group, lambda f, names=names: tuple(f.traits.get(n, ()) for n in names))  # type: ignore[misc]
        if len(stacks) == most and all(len(_places(s)) == len(s) for s in stacks):
            return [_named(stack, names) for stack in stacks]
    # nothing in the header tells them apart: the first at each place, in the order of their numbers
    first = tuple(min(place, key=lambda f: f.order) for place in places)
    note = (
        f"up to {most} images are at one place and the header doesn't tell why; the first of each was taken"
    )
    return [stack_of(first, (note,))]


def _by_key(group: list[Frame], key: Callable[[Frame], object]) -> list[list[Frame]]:
    found: dict[object, list[Frame]] = defaultdict(list)
    for frame in group:
        found[key(frame)].append(frame)
    return [found[k] for k in sorted(found, key=repr_key)]


def repr_key(value: object) -> tuple[tuple[int, float, str], ...]:
    """A key by which traits of mixed kinds sort: numbers by size before text."""
    flat = [v for part in value if isinstance(part, tuple) for v in part] if isinstance(value, tuple) else []
    return tuple((0, float(v), "") if isinstance(v, float) else (1, 0.0, str(v)) for v in flat)


def _named(stack: list[Frame], names: tuple[str, ...]) -> Stack:
    frames = tuple(place[0] for place in _places(stack))
    values = ", ".join(f"{n} {_words(stack[0].traits.get(n, ()))}" for n in names)
    return stack_of(frames, (f"the stack shown is that of {values}",))


def _words(value: Sequence[object]) -> str:
    shown = "\\".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    return "".join(c for c in shown if c.isprintable())[:60] or "none"
