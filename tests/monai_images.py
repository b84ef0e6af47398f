"""Studies as MONAI's images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medmllm_plugin.sliceset import SliceSet
from tests.builders import write_ct_series


def a_study(folder: Path, **options: Any) -> Path:
    """A CT of 12 slices of 32 x 40 pixels."""
    write_ct_series(folder, **({"slices": 12, "rows": 32, "columns": 40, "spacing": (1.5, 1.2)} | options))
    return folder


def same_pictures(one: SliceSet, other: SliceSet) -> bool:
    """Whether pictures, sources and places are the same."""
    return len(one) == len(other) and all(
        np.array_equal(a.pixels, b.pixels)
        and a.source == b.source
        and a.to_patient is not None
        and b.to_patient is not None
        and np.allclose(a.to_patient, b.to_patient, atol=1e-6)
        for a, b in zip(one.slices, other.slices, strict=True)
    )
