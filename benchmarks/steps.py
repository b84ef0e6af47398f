"""Rows of single steps: headers, whole volumes, pictures, and what a fresh process costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import children, ours, peers
from benchmarks.jobs import FLOOR, OURS, PURE, Job
from benchmarks.timing import Bar, Table, Way, compare, warm


def headers(job: Job) -> Iterator[Table]:
    """The header scan of a folder."""
    files = job.series.files()
    warm(files)
    ways = [
        Way(name=OURS, run=lambda: ours.headers(files)),
        Way(name=PURE, run=lambda: ours.headers(files), switch=ours.without_compiler),
        Way(name=FLOOR, run=lambda: peers.first_bytes(files)),
        Way(name="pydicom stop_before_pixels", run=lambda: peers.pydicom_headers(files)),
        Way(name="dicomsdl", run=lambda: peers.dicomsdl_headers(files), needs=("dicomsdl",)),
    ]
    truth = peers.pydicom_headers(files)

    def check(name: str, result: Any) -> str:
        if name == FLOOR:
            return "none"
        assert result == truth, name
        return "equal"

    yield compare(
        f"Header scan of {len(files)} files",
        "From paths to Image Position (Patient) and Rescale Intercept as numbers. The floor opens each file "
        "and reads 8 KB.",
        ways,
        check=check,
        rounds=job.rounds,
        base=OURS,
        bars=[
            Bar(what="header scan, pure Python", ours=PURE, other=ways[3].name, limit=14),
            Bar(what="header scan, compiled", ours=OURS, other=ways[3].name, limit=45),
        ],
    )


def volume(job: Job) -> Iterator[Table]:
    """The whole volume."""
    series = job.series
    path = series.folder("uncompressed")
    offsets = peers.pixel_offsets(series)
    rows = series.scale.rows

    def floor() -> NDArray[np.int16]:
        whole = np.empty((len(offsets), rows, rows), np.int16)
        for plane, (file, offset) in zip(whole, offsets, strict=True):
            peers.read_at(file, offset, plane)
        return whole

    warm(series.files())
    stored, values = "ours, as stored with its table", "ours, float32"
    ways = [
        Way(name=stored, run=lambda: ours.whole_stored(series, "uncompressed")),
        Way(name=values, run=lambda: ours.whole_values(series, "uncompressed")),
        Way(name=FLOOR, run=floor),
        Way(name="dicomsdl, int16", run=lambda: peers.dicomsdl_volume(path), needs=("dicomsdl",)),
        Way(
            name="SimpleITK, int16", run=lambda: peers.simpleitk_volume(path), needs=("SimpleITK",), slow=True
        ),
        Way(name="pydicom, float32", run=lambda: peers.pydicom_volume(path), slow=True),
        Way(
            name="highdicom, float64",
            run=lambda: peers.highdicom_volume(path),
            needs=("highdicom",),
            slow=True,
        ),
        Way(name="MONAI, float32", run=lambda: peers.monai_volume(path), needs=("monai",), slow=True),
    ]

    def check(name: str, result: Any) -> str:
        if name == FLOOR:
            assert (result == series.truth + 1024).all()
            return "stored values"
        if name == stored:
            assert all((result.values(n) == plane).all() for n, plane in enumerate(series.truth))
        else:
            array = np.asarray(result).transpose(2, 1, 0) if name.startswith("MONAI") else result
            assert (array == series.truth).all(), name
        return "equal"

    yield compare(
        f"Whole volume, {series.scale.slices} x {rows} x {rows}, uncompressed",
        "Every value equal to the truth. The floor knows order and offsets and reads the pixels into a new "
        "int16 array. Ours gives stored values with the table that makes Hounsfield units of them, or these "
        "as float32.",
        ways,
        check=check,
        rounds=job.rounds,
        base=stored,
        bars=[
            Bar(
                what="whole volume: reading into an int16 array",
                ours=stored,
                other=FLOOR,
                limit=2,
                floor=True,
            ),
            Bar(what="whole volume: SimpleITK", ours=stored, other=ways[4].name, limit=9),
            Bar(what="whole volume: MONAI", ours=stored, other=ways[7].name, limit=35),
            Bar(what="whole volume as float32: MONAI", ours=values, other=ways[7].name, limit=35),
        ],
    )


def medgemma(job: Job) -> Iterator[Table]:
    """MedGemma's recipe."""
    series = job.series
    expected = list(peers.medgemma_pictures(series))
    notebook = "the notebook's steps, JPEG"

    def check(name: str, result: Any) -> str:
        if name == notebook:
            assert len(result) == len(expected)
            return "JPEG, damaged by its compression"
        apart = np.abs(np.stack(result).astype(np.int16) - np.stack(expected))
        assert apart.max() <= 1, name
        return f"{(apart > 0).mean():.2%} of levels 1 apart (rounding)"

    warm(series.files())
    yield compare(
        f"MedGemma's recipe: {series.scale.recipe} of {series.scale.slices} slices, three windows as RGB",
        "The notebook's steps, written again from its description: sort headers, dcmread, apply_rescale, "
        "three windows, JPEG data URLs. Ours gives the pictures themselves, without loss.",
        [
            Way(name=OURS, run=lambda: ours.medgemma(series)),
            Way(name=PURE, run=lambda: ours.medgemma(series), switch=ours.without_compiler),
            Way(name=notebook, run=lambda: peers.medgemma(series), slow=True),
        ],
        check=check,
        rounds=job.rounds,
        base=OURS,
        bars=[Bar(what="MedGemma's recipe, lossless: its notebook", ours=OURS, other=notebook, limit=10)],
    )


def start(job: Job) -> Iterator[Table]:
    """What a fresh process costs: imports, the first call, and memory."""
    yield children.imports(rounds=min(job.rounds, 5))
    yield children.first_calls(job.series)
