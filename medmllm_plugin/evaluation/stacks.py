"""Image stacks as NumPy files, which RadFM's tables name: (images, 3, rows, columns, depth) or less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Preview
from medmllm_plugin.evaluation.pictures import PREVIEWS
from medmllm_plugin.models import Model
from medmllm_plugin.sliceset import Slice, SliceSet
from medmllm_plugin.source import FileImage
from medmllm_plugin.volume import Study

MOST = 32
"""Pictures of a stack that are shown at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """A NumPy file of one or more colour volumes, depth last."""

    file: Path

    def show(self, model: Model) -> tuple[SliceSet, tuple[SliceSet, ...]]:
        """As many of its planes as suit the model, spread evenly.

        Raises:
            SettingsError: If the file is no such stack.
        """
        planes = self._planes()
        count = min(len(planes), model.capabilities.pictures, MOST)
        chosen = np.unique(np.linspace(0, len(planes) - 1, count).round().astype(int)).tolist()
        slices = tuple(
            Slice(
                pixels=planes[k],
                source=FileImage(file=self.file.name, index=k),
                source_shape=(planes[k].shape[0], planes[k].shape[1]),
                to_source=np.eye(3),
                to_patient=None,
                window="from the least to the largest value",
            )
            for k in chosen
        )
        plan = f"{len(slices)} of {len(planes)} planes, evenly"
        return SliceSet(slices=slices, study=Study(modality="OT"), plan=plan), ()

    def preview(self, details: Mapping[str, Any]) -> tuple[Preview, ...]:
        """A few planes, spread evenly."""
        planes = self._planes()
        chosen = np.unique(np.linspace(0, len(planes) - 1, PREVIEWS + 2).round().astype(int))[1:-1].tolist()
        return tuple(
            Preview(pixels=planes[k], words=f"Plane {k + 1} of {len(planes)}") for k in chosen or [0]
        )

    def _planes(self) -> list[NDArray[np.uint8]]:
        """All planes, uint8 (rows, columns, 3), image by image."""
        try:
            values = np.load(self.file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"{self.file}: found no NumPy file ({type(error).__name__}), expected a stack; fetch it again"
            ) from error
        if values.ndim == 4:
            values = values[None]
        if values.ndim != 5 or values.shape[1] != 3 or not values.size:
            raise SettingsError(
                f"{self.file}: found shape {values.shape}, expected (images, 3, rows, columns, depth)"
            )
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        grey = np.nan_to_num((values - low) * (255 / max(high - low, 1e-9)))
        turned = np.rint(grey).astype(np.uint8).transpose(0, 4, 2, 3, 1)
        return [np.ascontiguousarray(plane) for plane in turned.reshape(-1, *turned.shape[2:])]
