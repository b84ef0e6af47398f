"""A phantom put on a scanner: an acquisition, its noise, its volume, and the truth about it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.findings import Box, Finding, Measurement, Severity, Side, Status
from medmllm_plugin.geometry import apply, plane_matrix
from medmllm_plugin.phantoms.chest import KIND, ChestCT, Lesion, sample_chest
from medmllm_plugin.phantoms.shapes import Mask
from medmllm_plugin.source import DicomImage
from medmllm_plugin.volume import Plane, Study, Volume

KINDS = (KIND,)
"""Kinds of phantoms that can be made."""

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"

DEFAULT_SLICES = 64
DEFAULT_MATRIX = 256

MAX_SEED = 10**16
"""Seeds are below this, since the seed is the Study ID (0020,0010), which holds 16 characters."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PhantomStudy:
    """One synthetic series: HFS, axial, evenly spaced. Deterministic by its seed."""

    kind: str
    seed: int
    chest: ChestCT
    matrix: int
    """Rows and columns."""
    slices: int
    pixel: float
    """Pixel Spacing, mm, both ways."""
    step: float
    """Distance between slices, mm."""
    corner: tuple[float, float, float]
    """Centre of the first pixel of the first slice in the phantom's own frame, mm."""
    shift: tuple[float, float, float]
    """From the phantom's own frame to patient LPS mm (where the table stood)."""
    noise: float
    """Standard deviation, HU."""
    _cache: dict[int, tuple[NDArray[np.float32], dict[int, Mask]]] = field(default_factory=dict, repr=False)

    def uid(self, what: str) -> str:
        """A UID of this phantom, the same every time (PS3.5 B.2: 2.25 and a UUID)."""
        key = (
            f"medmllm-phantom/{self.kind}/{self.seed}/{self.matrix}/{self.slices}/{self._lesion_keys}/{what}"
        )
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, key).int}"

    @property
    def _lesion_keys(self) -> str:
        return "+".join(f"{one.finding}:{one.side}" for one in self.chest.lesions)

    @property
    def study(self) -> Study:
        """Its identity."""
        return Study(
            modality="CT",
            study_instance_uid=self.uid("study"),
            series_instance_uid=self.uid("series"),
            frame_of_reference_uid=self.uid("frame of reference"),
            phantom=self.kind,
        )

    def source(self, k: int) -> DicomImage:
        """The instance of slice k, from 0."""
        return DicomImage(
            sop_class_uid=CT_IMAGE_STORAGE,
            sop_instance_uid=self.uid(f"instance {k}"),
            series_instance_uid=self.uid("series"),
        )

    def plane(self, k: int) -> Plane:
        """The place of slice k, from 0."""
        x, y, z = np.array(self.corner) + self.shift
        return Plane(
            source=self.source(k),
            rows=self.matrix,
            columns=self.matrix,
            to_patient=plane_matrix(
                position=(x, y, z + k * self.step),
                orientation=(1, 0, 0, 0, 1, 0),
                spacing=(self.pixel, self.pixel),
            ),
            spacing=(self.pixel, self.pixel),
            window=(-600.0, 1500.0),
        )

    def values(self, k: int) -> NDArray[np.float32]:
        """Hounsfield units of slice k, whole numbers, shape (rows, columns)."""
        clean, _ = self._drawn(k)
        rng = np.random.default_rng([self.seed, 7, k])
        grain = rng.standard_normal((self.matrix, self.matrix), dtype=np.float32)
        return np.clip(np.rint(_blur(clean + grain * np.float32(2.2 * self.noise))), -1024, 3071)

    def masks(self, k: int) -> dict[int, Mask]:
        """Where the lesions, by index, lie on slice k, shape (rows, columns)."""
        return self._drawn(k)[1]

    def volume(self) -> Volume:
        """The series as a volume, drawn only where it is asked for."""
        return Volume(
            planes=tuple(self.plane(k) for k in range(self.slices)),
            read_plane=self.values,
            study=self.study,
            unit="HU",
        )

    def truth(self) -> tuple[Finding, ...]:
        """The findings as a perfect reader would report them, boxes on the slice of their largest area."""
        masks = [self.masks(k) for k in range(self.slices)]
        return tuple(
            finding
            for index, lesion in enumerate(self.chest.lesions)
            if (finding := self._true_finding(index, lesion, [one.get(index) for one in masks])) is not None
        )

    def _true_finding(self, index: int, lesion: Lesion, masks: list[Mask | None]) -> Finding | None:
        seen = {k: mask for k, mask in enumerate(masks) if mask is not None}
        if not seen:
            return None
        best = max(seen, key=lambda k: int(np.count_nonzero(seen[k])))
        mask = seen[best]
        left, top, right, bottom = mask_box(mask)
        plane = self.plane(best)
        assert plane.to_patient is not None
        middle = apply(plane.to_patient, [(left + right - 1) / 2, (top + bottom - 1) / 2, 0])
        size = max(right - left, bottom - top) * self.pixel
        return Finding(
            finding=lesion.finding,
            site=lesion.site,
            side=Side(lesion.side),
            status=Status.PRESENT,
            sentence=sentence(lesion),
            images=tuple(self.source(k) for k in seen),
            tracking_uid=self.uid(f"lesion {index}"),
            certainty=1.0,
            box=Box(
                picture=best + 1,
                image=self.source(best),
                column_min=left,
                row_min=top,
                column_max=right,
                row_max=bottom,
            ),
            center_mm=(float(middle[0]), float(middle[1]), float(middle[2])),
            size_mm=round(size, 1),
            measurements=(Measurement(code="long_axis", value=round(size, 1), unit="mm"),),
            severity=None if lesion.severity is None else Severity(lesion.severity),
        )

    def _drawn(self, k: int) -> tuple[NDArray[np.float32], dict[int, Mask]]:
        if k not in self._cache:
            x, y, z = self.corner
            steps = np.arange(self.matrix, dtype=np.float32) * np.float32(self.pixel)
            self._cache[k] = self.chest.plane(steps + np.float32(x), steps + np.float32(y), z + k * self.step)
        return self._cache[k]


def sample_study(
    *,
    kind: str = KIND,
    seed: int = 0,
    findings: tuple[str, ...] | None = None,
    slices: int = DEFAULT_SLICES,
    matrix: int = DEFAULT_MATRIX,
) -> PhantomStudy:
    """A phantom study at random, the same for the same arguments.

    Args:
        kind: One of `KINDS`.
        seed: Any integer from 0 to `MAX_SEED` - 1.
        findings: Keys of findings to place; None for a random choice; empty for a normal study.
        slices: How many slices cover the anatomy, 16 to 512.
        matrix: Rows and columns, 64 to 1024.

    Raises:
        SettingsError: If the kind, a finding or a number is not possible.
    """
    if kind not in KINDS:
        raise SettingsError(f"no phantom is of kind {kind!r}; there are: {', '.join(KINDS)}")
    if not 16 <= slices <= 512 or not 64 <= matrix <= 1024 or not 0 <= seed < MAX_SEED:
        raise SettingsError(
            f"a phantom has 16 to 512 slices of 64 to 1024 px and a seed from 0 to {MAX_SEED - 1}, "
            f"got {slices}, {matrix} and {seed}"
        )
    rng = np.random.default_rng([seed, 3])
    chest = sample_chest(rng, findings=findings)
    height = 310.0 * chest.stretch[2]
    body = 2 * (158 * chest.stretch[0] + chest.fat)
    field_of_view = float(np.clip(body * rng.uniform(0.98, 1.12), 300, 480))
    pixel = round(field_of_view / matrix, 4)
    step = round(float(height / slices * rng.uniform(0.98, 1.04)), 2)
    middle = rng.uniform(-12, 12, 2)
    first = float(rng.uniform(-4, 4)) + (height - step * (slices - 1)) / 2
    half = pixel * (matrix - 1) / 2
    return PhantomStudy(
        kind=kind,
        seed=seed,
        chest=chest,
        matrix=matrix,
        slices=slices,
        pixel=pixel,
        step=step,
        corner=(round(float(middle[0]) - half, 3), round(float(middle[1]) - half, 3), round(first, 3)),
        shift=(0.0, round(float(rng.uniform(-150, 20)), 1), round(float(rng.uniform(-900, 200)), 1)),
        noise=float(rng.uniform(6, 22)),
    )


def sentence(lesion: Lesion) -> str:
    """A lesion in words."""
    size = {"mild": "Small", "moderate": "Moderate", "severe": "Large", None: ""}[lesion.severity]
    degree = {"mild": "Mildly", "moderate": "Moderately", "severe": "Severely", None: ""}[lesion.severity]
    return {
        "nodule": f"Solid nodule in the {lesion.side} lung.",
        "mass": f"Mass in the {lesion.side} lung.",
        "consolidation": f"Consolidation with air bronchograms in the {lesion.side} lung.",
        "pleural_effusion": f"{size} {lesion.side} pleural effusion.",
        "pneumothorax": f"{size} {lesion.side} pneumothorax.",
        "cardiomegaly": f"{degree} enlarged heart.",
    }[lesion.finding]


def mask_box(mask: Mask) -> tuple[float, float, float, float]:
    """(column_min, row_min, column_max, row_max) of a mask that has a pixel, in corner coordinates.

    >>> mask_box(np.eye(4, dtype=bool)[:, 1:3])
    (0.0, 1.0, 2.0, 3.0)
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _blur(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The point spread of the scanner: 1-2-1 along rows and columns."""
    padded = np.pad(values, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return np.asarray((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16, np.float32)
