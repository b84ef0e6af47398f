"""Small values for tests, made from nothing: planes, volumes, slice sets and replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.geometry import Matrix, plane_matrix
from medmllm_plugin.request import Request
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.source import DicomImage
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volume import Plane, Study, Volume

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
THREE_FOUR_FIVE = (0.6, 0.8, 0.0, 0.0, 0.0, -1.0)
"""An oblique plane whose numbers can be followed by hand."""
OBLIQUE_TURN = (0.8, 0.48, -0.36, -0.6, 0.64, -0.48)
"""An axial plane turned and tipped, its normal (0, 0.6, 0.8)."""


def an_image(number: int = 1) -> DicomImage:
    """Instance `number` of a series."""
    return DicomImage(
        sop_class_uid=CT_IMAGE_STORAGE, sop_instance_uid=f"1.2.3.{number}", series_instance_uid="1.2.3"
    )


def a_rotation(quaternion: Sequence[float]) -> Matrix:
    """The rotation of a quaternion of any length but 0, shape (3, 3)."""
    w, x, y, z = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def a_stack(
    slices: int = 5,
    *,
    position: Sequence[float] = (0.0, 0.0, 0.0),
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (1.0, 1.0),
    step: float = 2.0,
    tilt: float = 0.0,
) -> list[Matrix]:
    """Matrices of parallel planes `step` mm apart, each shifted by `tilt` mm along a column for each mm."""
    row, column = np.reshape(np.asarray(orientation, np.float64), (2, 3))
    way = step * np.cross(row, column) + tilt * step * column
    return [
        plane_matrix(
            position=[float(v) for v in np.asarray(position, np.float64) + k * way],
            orientation=orientation,
            spacing=spacing,
        )
        for k in range(slices)
    ]


def a_volume(
    slices: int = 5,
    *,
    rows: int = 56,
    columns: int = 56,
    spacing: tuple[float, float] = (1.0, 1.0),
    placed: bool = True,
    values: Callable[[int], NDArray[Any]] | None = None,
    modality: str = "CT",
    unit: str = "HU",
    inverted: bool = False,
    window: tuple[float, float] | None = None,
    **stack: Any,
) -> Volume:
    """A volume of a stack; without `values` each plane is filled with its index."""
    matrices = a_stack(slices, spacing=spacing, **stack)
    return Volume(
        planes=tuple(
            Plane(
                source=an_image(k + 1),
                rows=rows,
                columns=columns,
                to_patient=matrix if placed else None,
                spacing=spacing,
                window=window,
            )
            for k, matrix in enumerate(matrices)
        ),
        read_plane=values or (lambda k: np.full((rows, columns), k, np.float32)),
        study=Study(modality=modality, study_instance_uid="1.2", series_instance_uid="1.2.3"),
        unit=unit,
        inverted=inverted,
    )


def a_moved(volume: Volume, heights: Sequence[float]) -> Volume:
    """The volume with its planes at these places, mm along their normal from the first; a shear stays."""
    first, last = (volume.planes[k].to_patient for k in (0, -1))
    assert first is not None
    assert last is not None
    way = last[:3, 3] - first[:3, 3]
    way = way / (way @ first[:3, 2]) if len(volume) > 1 else first[:3, 2]
    planes = []
    for plane, height in zip(volume.planes, heights, strict=True):
        matrix = first.copy()
        matrix[:3, 3] = first[:3, 3] + height * way
        planes.append(replace(plane, to_patient=matrix))
    return replace(volume, planes=tuple(planes))


def a_slice_set(slices: int = 3, *, size: int = 56, **volume: Any) -> SliceSet:
    """All slices of `a_volume` as pictures whose longer side is `size`, brighter from left to right."""
    columns = np.arange(volume.get("columns", 56), dtype=np.float32)
    plane = np.broadcast_to(8 * columns - 200, (volume.get("rows", 56), len(columns)))
    volume.setdefault("values", lambda k: plane + k)
    return SlicePlan(count=slices, size=size).apply(a_volume(slices, **volume))


def a_said_finding(**said: Any) -> dict[str, Any]:
    """A finding as a model says it."""
    return {
        "finding": "nodule",
        "site": "lung",
        "side": "left",
        "status": "present",
        "severity": None,
        "pictures": [1],
        "box": None,
        "sentence": "A nodule.",
        **said,
    }


def a_said_reply(*findings: dict[str, Any], **said: Any) -> dict[str, Any]:
    """A reply as a model says it."""
    return {
        "abnormal_pictures": sorted({n for one in findings for n in one["pictures"]}),
        "findings": list(findings),
        "impression": ["As above."],
        **said,
    }


def a_said_answer(*findings: dict[str, Any], **said: Any) -> dict[str, Any]:
    """A reply to a question as a model says it."""
    answer = {"pictures": [1], "choice": "yes", "text": "There is a nodule.", **said}
    return {"abnormal_pictures": [], "findings": list(findings), "answer": answer}


def a_request(task: str = "report", slices: SliceSet | None = None, **asked: Any) -> Request:
    """A whole request: with three pictures, and a question and a prior where the task needs them."""
    chosen, shown = TASKS[task], a_slice_set(3) if slices is None else slices
    needed: dict[str, Any] = {}
    if chosen.takes_question:
        needed["question"] = "Is there a nodule?"
    if chosen.needs_priors:
        needed["priors"] = (replace(a_slice_set(2), days_before=400),)
    if not chosen.needs_pictures:
        shown = replace(shown, slices=())
    return Request(task=chosen, slices=shown, **{**needed, **asked})


OBLIQUE_SET = a_slice_set(
    3, rows=56, columns=224, spacing=(2.0, 0.5), orientation=THREE_FOUR_FIVE, position=(10, 20, 30)
)
"""Pictures of 56 x 56 px of images of 56 x 224 px, 2 mm between rows and 0.5 mm between columns."""
