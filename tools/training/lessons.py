"""What a model is taught of each kind of phantom: its slice plan, its findings, and how studies vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from medmllm_plugin.phantoms.study import KINDS, PhantomStudy, sample_study

WINDOW = 112
"""Side of a window of the vision tower, px: pictures are one or a square of several."""

RESERVED = (range(500_000, 510_000), range(2**30, 10**16))
"""Seeds that are never trained on: those of demo and acceptance tests, and those of evaluations."""

FINDINGS = tuple(dict.fromkeys(key for kind in KINDS.values() for key in kind.findings))
"""Keys of the findings of all kinds: what the labels of an example stand for, whichever kinds are taught."""

HARD: Mapping[str, int] = MappingProxyType(
    {"nodule": 4, "mass": 4, "fracture": 3, "hemorrhage": 2, "renal_stone": 3, "consolidation": 2}
)
"""How often, for once of the others, a picture is drawn that shows a finding that is hard to learn."""

CLOSER = 20
"""Most pictures of a close look."""

FEWER_SHARE = 0.4
"""Share of the studies that are taught in fewer pictures than the plan's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesson:
    """One kind of phantom as it is taught."""

    kind: str
    plan: Mapping[str, Any]
    """Settings of `transforms.slices.SlicePlan`."""
    fewer: tuple[int, ...]
    """In how many pictures it is also taught, beside the plan's count: of studies that have fewer slices,
    or as a cheaper lesson of the same."""
    modalities: tuple[str, ...]
    """Modality (0008,0060) of the studies that this plan suits; of a film also CR."""
    matrices: tuple[int, ...]
    """Rows and columns that studies have, each as often as it stands here."""
    closer: tuple[str, ...] = ()
    """Keys of the findings that are looked at closely."""

    @property
    def findings(self) -> tuple[str, ...]:
        """Keys of the findings it can have."""
        return KINDS[self.kind].findings

    @property
    def count(self) -> int:
        """Pictures of a study."""
        return int(self.plan["count"])

    @property
    def side(self) -> int:
        """Rows and columns of a picture, px."""
        return int(self.plan["size"])

    def shown(self, seed: int) -> int:
        """In how many pictures the study of a seed is taught."""
        rng = np.random.default_rng([seed, 12])
        return int(rng.choice(np.array(self.fewer))) if rng.random() < FEWER_SHARE else self.count

    @property
    def tokens(self) -> int:
        """Vision tokens of a picture."""
        return (self.side // 28) ** 2

    @property
    def windows(self) -> int:
        """Windows of a picture: what it costs, in pictures of one window."""
        return (self.side // WINDOW) ** 2

    def study(self, seed: int) -> PhantomStudy:
        """A study of varied slice count and matrix."""
        rng = np.random.default_rng([seed, 11])
        usual = KINDS[self.kind].slices[1]
        slices = 1 if usual == 1 else int(rng.integers(self.shown(seed), usual * 7 // 5))
        return sample_study(
            kind=self.kind, seed=seed, slices=slices, matrix=int(rng.choice(np.array(self.matrices)))
        )


def _stack(
    kind: str,
    modality: str,
    window: str | None,
    *,
    count: int = 16,
    fewer: tuple[int, ...] = (12, 14),
    closer: tuple[str, ...] = (),
) -> Lesson:
    plan = {"count": count, "size": WINDOW, **({} if window is None else {"window": window})}
    return Lesson(
        kind=kind,
        plan=plan,
        fewer=fewer,
        modalities=(modality,),
        matrices=(112, 140, 168, 256, 112, 140, 168, 256, 256, 320),
        closer=closer,
    )


LESSONS: Mapping[str, Lesson] = MappingProxyType(
    {
        lesson.kind: lesson
        for lesson in (
            _stack(
                "ct-chest",
                "CT",
                "ct",
                count=40,
                fewer=(16, 20, 24, 28, 32),
                closer=("nodule", "mass", "consolidation"),
            ),
            _stack(
                "ct-head",
                "CT",
                "ct-head",
                count=20,
                fewer=(12, 14, 16, 18),
                closer=("hemorrhage", "mass", "fracture"),
            ),
            Lesson(
                kind="xr-chest",
                plan={"count": 1, "size": 2 * WINDOW},
                fewer=(1,),
                modalities=("DX", "CR"),
                matrices=(384, 448, 512, 512),
            ),
            _stack("ct-abdomen", "CT", "ct-abdomen"),
            _stack("mr-brain", "MR", None),
        )
    }
)
"""By kind."""


def shares(text: str) -> dict[str, int]:
    """How often each kind is shown, from a text such as `ct-chest=2,ct-head,xr-chest`.

    Raises:
        ValueError: If a kind is not one of `LESSONS`, or a number is below 1.

    >>> shares("ct-chest=2,ct-head")
    {'ct-chest': 2, 'ct-head': 1}
    """
    found = {}
    for part in text.split(","):
        kind, _, number = part.strip().partition("=")
        if kind not in LESSONS or not (number or "1").isdecimal() or int(number or 1) < 1:
            raise ValueError(f"found {part!r}, expected KIND or KIND=NUMBER of: {', '.join(LESSONS)}")
        found[kind] = int(number or 1)
    return found


def turns(weights: Mapping[str, int]) -> tuple[str, ...]:
    """The kinds in the order they take turns, each evenly spread.

    >>> turns({"ct-chest": 2, "ct-head": 1, "xr-chest": 1})
    ('ct-chest', 'ct-head', 'xr-chest', 'ct-chest')
    """
    places = [
        ((n + 0.5) / weight, number, kind)
        for number, (kind, weight) in enumerate(weights.items())
        for n in range(weight)
    ]
    return tuple(kind for _, _, kind in sorted(places))
