"""The same work through our public functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import Placed, chosen
from benchmarks.series import INTERCEPT, Series
from medmllm_plugin.transforms import compiled
from medmllm_plugin.transforms.patches import patches
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.scan import Scanner
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volume import Stored, Volume

WINDOW = "ct-soft-tissue"
WIDTH = 1176
"""Numbers in a patch of the Qwen2-VL family: 3 channels, 2 times, 14 x 14."""


def plan(series: Series) -> SlicePlan:
    """Evenly spaced slices in the soft-tissue window."""
    return SlicePlan(count=series.scale.shown, size=series.scale.picture, window=WINDOW)


def buffer(series: Series, kind: Any) -> NDArray[Any]:
    """Memory for all `pixel_values`, used again and again, as an engine does."""
    return np.zeros((series.scale.shown * (series.scale.picture // 14) ** 2, WIDTH), kind)


def pixel_values(series: Series, syntax: str, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Folder to uint8 `pixel_values`: read, plan, patches."""
    volume = read_volume([series.folder(syntax)])
    values, _ = patches(plan(series).apply(volume), kind="uint8", out=out)
    return values


def nifti(series: Series, path: Path, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """NIfTI file to uint8 `pixel_values`; a CT, as the file itself doesn't say."""
    values, _ = patches(plan(series).apply(read_volume([path], modality="CT")), kind="uint8", out=out)
    return values


def headers(files: Sequence[Path]) -> list[Placed]:
    """The place and intercept of each file, by the header scan alone."""
    scanner = Scanner()
    found: list[Placed] = []
    for path, _, scanned in scanner.scan_all(map(str, files)):
        assert scanned is not None, path
        place, intercept = scanned.numbers("ImagePositionPatient"), scanned.numbers("RescaleIntercept")
        assert place is not None, path
        assert intercept is not None, path
        found.append((place[0], place[1], place[2], intercept[0]))
    return found


def whole_stored(series: Series, syntax: str) -> Stored:
    """All planes as stored, with the table that makes Hounsfield units of them."""
    volume = read_volume([series.folder(syntax)])
    stored = volume.read_stored(range(len(volume)))
    assert stored is not None
    return stored


def whole_values(series: Series, syntax: str) -> NDArray[Any]:
    """All planes as float32 Hounsfield units."""
    return read_volume([series.folder(syntax)]).voxels()


def in_memory(series: Series) -> Volume:
    """The slices that are shown as a volume whose planes already lie in memory, as stored."""
    whole = read_volume([series.folder("uncompressed")])
    shown = chosen(len(whole), series.scale.shown)
    raw = (np.asarray(series.truth)[shown].astype(np.int32) - INTERCEPT).astype(np.uint16)
    table = (np.arange(1 << 16, dtype=np.float32) + INTERCEPT).astype(np.float32)

    def read_stored(ks: Sequence[int]) -> Stored:
        numbers = list(ks)
        same = numbers == list(range(len(raw)))
        return Stored(raw=raw if same else raw[numbers], tables=(table,) * len(numbers))

    return Volume(
        planes=[whole.planes[k] for k in shown],
        read_plane=lambda k: table[raw[k]],
        read_stored=read_stored,
        study=whole.study,
        unit="HU",
    )


def from_memory(
    series: Series, volume: Volume, kind: Literal["uint8", "float32"], out: NDArray[Any] | None
) -> NDArray[Any]:
    """Planes in memory to `pixel_values`: plan, patches."""
    values, _ = patches(plan(series).apply(volume), kind=kind, out=out)
    return values


def medgemma(series: Series) -> list[NDArray[np.uint8]]:
    """MedGemma's recipe as RGB pictures: nothing resized, nothing lost."""
    scale = series.scale
    recipe = SlicePlan(count=scale.recipe, size=scale.rows, window="ct-medgemma", multiple=32)
    slices = recipe.apply(read_volume([series.folder("uncompressed")])).slices
    return [one.pixels for one in slices]


@contextmanager
def without_compiler() -> Iterator[None]:
    """What runs within uses the compiled modules no more than where they were never built."""
    built = {name: value for name, value in vars(compiled).items() if _is_built(value)}
    for name in built:
        setattr(compiled, name, None)
    try:
        yield
    finally:
        for name, value in built.items():
            setattr(compiled, name, value)


def _is_built(value: object) -> bool:
    return isinstance(value, ModuleType) and value.__name__.startswith("medmllm_plugin.")
