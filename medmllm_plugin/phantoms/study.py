"""A phantom put on a scanner: its images, its volume, and the truth about it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.findings import Box, Finding, Measurement, Severity, Side, Status
from medmllm_plugin.geometry import apply, plane_matrix
from medmllm_plugin.phantoms import anatomy as parts
from medmllm_plugin.phantoms import ct_abdomen, ct_chest, ct_head, mr_brain, xr_chest
from medmllm_plugin.phantoms.anatomy import Anatomy, Drawn, Kind, Scan
from medmllm_plugin.phantoms.shapes import Mask
from medmllm_plugin.source import DicomImage, FileImage, ImageRef
from medmllm_plugin.volume import Plane, Study, Volume

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (ct_chest.KIND, ct_head.KIND, xr_chest.KIND, ct_abdomen.KIND, mr_brain.KIND)
}
"""Kinds of phantoms that can be made, by name."""

DEFAULT_KIND = ct_chest.KIND.name


class Form(StrEnum):
    """How a study is kept in files."""

    SERIES = "series"
    """One DICOM instance for each image."""
    ENHANCED = "enhanced"
    """One multi-frame DICOM instance for all."""
    NIFTI = "nifti"
    """One NIfTI file."""


SOP_CLASSES = {
    ("CT", Form.SERIES): "1.2.840.10008.5.1.4.1.1.2",
    ("CT", Form.ENHANCED): "1.2.840.10008.5.1.4.1.1.2.1",
    ("MR", Form.SERIES): "1.2.840.10008.5.1.4.1.1.4",
    ("MR", Form.ENHANCED): "1.2.840.10008.5.1.4.1.1.4.1",
    ("DX", Form.SERIES): "1.2.840.10008.5.1.4.1.1.1.1",
}
"""SOP Classes by modality and form: CT and MR Image, their enhanced forms, Digital X-Ray For Presentation."""

NIFTI_NAME = "phantom.nii.gz"

MAX_SEED = 10**16
"""Seeds are below this, since the seed is the Study ID (0020,0010), which holds 16 characters."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PhantomStudy:
    """One synthetic series. Deterministic by its seed."""

    kind: str
    seed: int
    anatomy: Anatomy
    scan: Scan
    form: Form = Form.SERIES
    run: str = ""
    """Sets its UIDs apart from those of the same phantom elsewhere; empty for the usual ones."""
    _cache: dict[int, Drawn] = field(default_factory=dict, repr=False)

    @property
    def lesions(self) -> Sequence[parts.Finding]:
        """What was placed in the anatomy; a scan may miss some of it."""
        return self.anatomy.lesions

    @property
    def slices(self) -> int:
        """How many images."""
        return self.scan.slices

    @property
    def matrix(self) -> int:
        """Rows, or columns if there are more."""
        return max(self.scan.shape)

    @property
    def pixel(self) -> float:
        """Distance between columns, mm; it is the same between rows."""
        return self.scan.spacing[1]

    def uid(self, what: str) -> str:
        """A UID of this phantom, the same every time (PS3.5 B.2: 2.25 and a UUID)."""
        keys = "+".join(f"{one.finding}:{one.side}" for one in self.lesions)
        key = f"medmllm-phantom/{self.kind}/{self.seed}/{self.matrix}/{self.slices}/{keys}/{what}{self.run}"
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, key).int}"

    @property
    def study(self) -> Study:
        """Its identity."""
        return Study(
            modality=self.scan.modality,
            study_instance_uid=self.uid("study"),
            series_instance_uid=self.uid(self._of_form("series")),
            frame_of_reference_uid=self.uid("frame of reference") if self.scan.placed else None,
            phantom=self.kind,
        )

    def source(self, k: int) -> ImageRef:
        """The instance, frame or file slice of slice k, from 0."""
        if self.form is Form.NIFTI:
            return FileImage(file=NIFTI_NAME, index=k)
        whole = self.form is Form.ENHANCED
        return DicomImage(
            sop_class_uid=SOP_CLASSES[self.scan.modality, self.form],
            sop_instance_uid=self.uid("enhanced instance" if whole else f"instance {k}"),
            series_instance_uid=self.uid(self._of_form("series")),
            frame=k + 1 if whole else None,
        )

    def plane(self, k: int) -> Plane:
        """The place of slice k, from 0."""
        scan = self.scan
        position = scan.origin + scan.shift + k * scan.step
        return Plane(
            source=self.source(k),
            rows=scan.shape[0],
            columns=scan.shape[1],
            to_patient=plane_matrix(
                position=position.tolist(),
                orientation=[*scan.across.tolist(), *scan.down.tolist()],
                spacing=scan.spacing,
            )
            if scan.placed
            else None,
            spacing=scan.spacing,
            patient_orientation=None if scan.placed else ("L", "I"),
            window=scan.window,
        )

    def values(self, k: int) -> NDArray[np.float32]:
        """Stored values of slice k (CT: Hounsfield units), whole numbers, shape (rows, columns)."""
        clean, _ = self._drawn(k)
        return self.scan.finish(clean, np.random.default_rng([self.seed, 7, k]))

    def masks(self, k: int) -> dict[int, Mask]:
        """Where the lesions, by index, lie on slice k, shape (rows, columns)."""
        return self._drawn(k)[1]

    def volume(self) -> Volume:
        """The series as a volume, drawn only where it is asked for."""
        return Volume(
            planes=tuple(self.plane(k) for k in range(self.slices)),
            read_plane=self.values,
            study=self.study,
            unit="HU" if self.scan.modality == "CT" else "",
        )

    def truth(self) -> tuple[Finding, ...]:
        """The findings as a perfect reader would report them, boxes on the slice of their largest area."""
        masks = [self.masks(k) for k in range(self.slices)]
        return tuple(
            finding
            for index, lesion in enumerate(self.lesions)
            if (finding := self._true_finding(index, lesion, [one.get(index) for one in masks])) is not None
        )

    def _true_finding(self, index: int, lesion: parts.Finding, masks: list[Mask | None]) -> Finding | None:
        seen = {k: mask for k, mask in enumerate(masks) if mask is not None}
        if not seen:
            return None
        best = max(seen, key=lambda k: int(np.count_nonzero(seen[k])))
        left, top, right, bottom = mask_box(seen[best])
        matrix = self.plane(best).to_patient
        center = None
        if matrix is not None:
            x, y, z = apply(matrix, [(left + right - 1) / 2, (top + bottom - 1) / 2, 0])
            center = (float(x), float(y), float(z))
        between_rows, between_columns = self.scan.spacing
        size = round(max((right - left) * between_columns, (bottom - top) * between_rows), 1)
        measured = [Measurement(code="long_axis", value=size, unit="mm")]
        if self.scan.modality == "CT":
            mean = round(float(self.values(best)[_core(seen[best])].mean()), 1)
            measured.append(Measurement(code="attenuation", value=mean, unit="[hnsf'U]"))
        return Finding(
            finding=lesion.finding,
            site=lesion.site,
            side=Side(lesion.side),
            status=Status.PRESENT,
            sentence=lesion.sentence,
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
            center_mm=center,
            size_mm=size,
            measurements=tuple(measured),
            severity=None if lesion.severity is None else Severity(lesion.severity),
        )

    def _of_form(self, what: str) -> str:
        return what if self.form is Form.SERIES else f"{self.form} {what}"

    def _drawn(self, k: int) -> Drawn:
        if k not in self._cache:
            self._cache[k] = self.anatomy.draw(self.scan.section(k))
        return self._cache[k]


def sample_study(
    *,
    kind: str = DEFAULT_KIND,
    seed: int = 0,
    findings: tuple[str, ...] | None = None,
    slices: int | None = None,
    matrix: int | None = None,
    form: Form = Form.SERIES,
) -> PhantomStudy:
    """A phantom study at random, the same for the same arguments.

    Args:
        kind: One of `KINDS`.
        seed: Any integer from 0 to `MAX_SEED` - 1.
        findings: Keys of findings to place; None for a random choice; empty for a normal study.
        slices: How many slices cover the anatomy; None for the usual number of the kind.
        matrix: Rows and columns; None for the usual number of the kind.
        form: How it will be kept in files, which its sources name.

    Raises:
        SettingsError: If the kind, a finding, a number or the form is not possible.
    """
    if kind not in KINDS:
        raise SettingsError(f"no phantom is of kind {kind!r}; there are: {', '.join(KINDS)}")
    one = KINDS[kind]
    count = one.slices[1] if slices is None else slices
    side = one.matrix[1] if matrix is None else matrix
    (fewest, _, most), (smallest, _, largest) = one.slices, one.matrix
    if not fewest <= count <= most or not smallest <= side <= largest or not 0 <= seed < MAX_SEED:
        raise SettingsError(
            f"a {kind} phantom has {fewest} to {most} slices of {smallest} to {largest} px and a seed from 0 "
            f"to {MAX_SEED - 1}, got {count}, {side} and {seed}"
        )
    anatomy, scan = one.sample(np.random.default_rng([seed, 3]), findings, count, side)
    if form is not Form.SERIES and not scan.placed:
        raise SettingsError(f"a {kind} phantom is one image without a place; it has only the form 'series'")
    return PhantomStudy(kind=kind, seed=seed, anatomy=anatomy, scan=scan, form=form)


def mask_box(mask: Mask) -> tuple[float, float, float, float]:
    """(column_min, row_min, column_max, row_max) of a mask that has a pixel, in corner coordinates.

    >>> mask_box(np.eye(4, dtype=bool)[:, 1:3])
    (0.0, 1.0, 2.0, 3.0)
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _core(mask: Mask) -> Mask:
    """The pixels of a mask whose four neighbours are in it too, as one draws a region; all if none are."""
    inner = mask.copy()
    inner[1:-1, 1:-1] &= mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return inner if inner.any() else mask
