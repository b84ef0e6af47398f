"""What is told of the places of a stack."""

from __future__ import annotations

import numpy as np
import pytest

from medmllm_plugin.geometry import Matrix
from medmllm_plugin.transforms.gaps import spacing_notes


def planes(*heights: float, shift: float = 0.0) -> list[Matrix]:
    """Axial planes at those heights, moved along x by `shift` mm for each mm."""
    matrices = []
    for height in heights:
        matrix = np.eye(4)
        matrix[:3, 3] = (shift * height, 0, height)
        matrices.append(matrix)
    return matrices


@pytest.mark.parametrize(
    ("heights", "told"),
    [
        ((0, 2, 4, 8, 10), "gaps 2.00 to 4.00 mm, as if 1 slice were missing"),
        ((0, 2, 4, 10, 12, 14), "gaps 2.00 to 6.00 mm, as if 2 slices were missing"),
        ((0, 4, 11), "gaps 4.00 to 7.00 mm"),
        ((0, 2, 4, 500), "gaps 2.00 to 496.00 mm"),
    ],
)
def test_missing_slices_are_counted_where_the_gaps_show_them(heights: tuple[float, ...], told: str) -> None:
    notes = spacing_notes(planes(*heights))

    assert notes == (f"the slices are unevenly spaced: {told}",)


@pytest.mark.parametrize(("shift", "why"), [(0.3, "gantry tilt"), (2.0, "more than a gantry tilts")])
def test_a_shear_that_no_gantry_makes_is_doubted(shift: float, why: str) -> None:
    notes = spacing_notes(planes(0, 2, 4, 6, shift=shift))

    assert len(notes) == 1
    assert why in notes[0]
