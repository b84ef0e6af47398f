"""Volumes in the views, from files that are in the DICOM database from then on."""

from __future__ import annotations

from typing import Any

import slicer
from harness.database import load_images


def load(files: list[str], *, name: str = "Chest CT") -> Any:
    """A series as a volume, shown in the views."""
    for file in files:
        slicer.dicomDatabase.insert(file, False)
    series = slicer.dicomDatabase.seriesForFile(files[0])
    volume = load_images(list(slicer.dicomDatabase.filesForSeries(series)), name=name)
    slicer.util.setSliceViewerLayers(background=volume)
    slicer.app.layoutManager().resetSliceViews()
    return volume
