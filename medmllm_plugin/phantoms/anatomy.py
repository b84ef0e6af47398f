"""What every kind of phantom has: an anatomy that any plane can be drawn of, and a scan of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.phantoms.sections import Section, Values, Vector
from medmllm_plugin.phantoms.shapes import Mask

Drawn = tuple[Values, dict[int, Mask]]
"""An image without noise, and the mask of each lesion that it shows by the lesion's index."""

Finish = Callable[[Values, np.random.Generator], Values]
"""Adds blur and noise to an image and rounds it as a scanner stores it."""

SEVERITIES = ("mild", "moderate", "severe")

GRADE_WORDS = {"mild": "small", "moderate": "moderate", "severe": "large"}
"""How severity is said of a thing that has a size."""


class Finding(Protocol):
    """One finding placed in an anatomy, whatever else it is."""

    @property
    def finding(self) -> str:
        """A key of the findings of `codes.toml`."""
        ...

    @property
    def site(self) -> str:
        """A key of the sites of `codes.toml`."""
        ...

    @property
    def side(self) -> str:
        """A value of `findings.Side`."""
        ...

    @property
    def severity(self) -> str | None:
        """A value of `findings.Severity`."""
        ...

    @property
    def sentence(self) -> str:
        """It in words."""
        ...


class Anatomy(Protocol):
    """A patient that doesn't exist."""

    @property
    def lesions(self) -> Sequence[Finding]:
        """What is to be found, in the order of the truth."""
        ...

    def draw(self, section: Section) -> Drawn:
        """A plane without noise, in Hounsfield units or the signal of MR."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scan:
    """How a phantom is acquired: the planes, what they stand for, and what the header says of them."""

    modality: str
    """Modality (0008,0060)."""
    slices: int
    shape: tuple[int, int]
    """(rows, columns)."""
    spacing: tuple[float, float]
    """Between rows, then between columns, mm."""
    origin: Vector
    """Centre of the first pixel of the first slice in the phantom's own frame, mm."""
    across: Vector
    """Unit direction of a row."""
    down: Vector
    """Unit direction of a column."""
    step: Vector
    """From a slice to the next, mm; not along the normal if the gantry is tilted."""
    thickness: float
    """Slice Thickness (0018,0050), mm."""
    shift: tuple[float, float, float]
    """From the phantom's own frame to patient LPS mm (where the table stood)."""
    window: tuple[float, float]
    """Window Center and Width (0028,1050), (0028,1051)."""
    finish: Finish = field(repr=False)
    body_part: str
    """Body Part Examined (0018,0015)."""
    position: str = "HFS"
    """Patient Position (0018,5100)."""
    downwards: bool = False
    """True if instances are numbered against the order of the slices."""
    placed: bool = True
    """False for a projection, which has no place in the patient."""
    header: Mapping[str, object] = field(default_factory=dict)
    """Further attributes of each instance by keyword, such as KVP."""

    def section(self, k: int) -> Section:
        """The plane of slice k, from 0."""
        return Section(
            origin=self.origin + k * self.step,
            across=self.across,
            down=self.down,
            spacing=self.spacing,
            thickness=self.thickness,
            shape=self.shape,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of phantom that can be made."""

    name: str
    """As `--kind` takes it."""
    findings: tuple[str, ...]
    """Keys of findings it can have."""
    sites: tuple[str, ...]
    """Keys of the sites they have."""
    slices: tuple[int, int, int]
    """Fewest, usual and most slices."""
    matrix: tuple[int, int, int]
    """Fewest, usual and most rows and columns."""
    sample: Callable[[np.random.Generator, tuple[str, ...] | None, int, int], tuple[Anatomy, Scan]] = field(
        repr=False
    )
    """Draws an anatomy and its scan: (generator, findings or None for any, slices, matrix)."""


def grade(
    rng: np.random.Generator, *spans: tuple[float, float], names: Sequence[str] = SEVERITIES
) -> tuple[str, float]:
    """A severity at random, and a number of its span.

    >>> grade(np.random.default_rng(0), (1, 1), (2, 2), (3, 3))
    ('severe', 3.0)
    """
    index = int(rng.integers(len(spans)))
    return names[index], float(rng.uniform(*spans[index]))


def chosen_findings(
    rng: np.random.Generator,
    findings: tuple[str, ...] | None,
    *,
    kind: str,
    known: Sequence[str],
    weights: Sequence[float],
) -> tuple[str, ...]:
    """These findings, or one to three at random (three studies in ten are normal).

    Raises:
        SettingsError: If a finding is not one of those known.
    """
    if findings is not None:
        for key in findings:
            if key not in known:
                raise SettingsError(
                    f"a {kind} phantom has no finding {key!r}; it can have: {', '.join(known)}"
                )
        return findings
    if rng.random() < 0.3:
        return ()
    count = min(len(known), int(rng.choice([1, 2, 3], p=[0.55, 0.3, 0.15])))
    p = np.asarray(weights, np.float64) / np.sum(weights)
    keys = [str(key) for key in rng.choice(list(known), size=count, replace=False, p=p)]
    return tuple(sorted(keys, key=list(known).index))
