"""Rows that end in `pixel_values`: what is compared with what, and the bars that ours must reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks import ours, peers
from benchmarks.jobs import FLOOR, OURS, PURE, Job, same_patches, threads_in_words, threads_now
from benchmarks.series import Series
from benchmarks.timing import Bar, Table, Way, compare, evict, warm
from medmllm_plugin.volume import Volume

MONAI_BARS = {"HTJ2K": 75, "JPEG Lossless": 55, "JPEG-LS": 33, "JPEG 2000": 12, "RLE": 200}


def careful(job: Job) -> Iterator[Table]:
    """Folder to `pixel_values` by those who decode only what they show, and the floor."""
    series = job.series
    out, pure_out = ours.buffer(series, np.uint8), ours.buffer(series, np.uint8)
    warm(series.files())
    ways = [
        Way(name=OURS, run=lambda: ours.pixel_values(series, "uncompressed", out)),
        Way(
            name=PURE,
            run=lambda: ours.pixel_values(series, "uncompressed", pure_out),
            switch=ours.without_compiler,
        ),
        Way(name="ours, new memory each time", run=lambda: ours.pixel_values(series, "uncompressed")),
        Way(name=FLOOR, run=_floor(series)),
        Way(
            name="dicomsdl headers and slices → processor",
            run=lambda: peers.careful_dicomsdl(series, "uncompressed"),
            needs=("dicomsdl",),
        ),
        Way(
            name="SimpleITK names and slices → processor",
            run=lambda: peers.careful_simpleitk(series, "uncompressed"),
            needs=("SimpleITK",),
        ),
        Way(
            name="pydicom headers and slices → processor",
            run=lambda: peers.careful_pydicom(series, "uncompressed"),
        ),
    ]
    bars = [
        Bar(what="dicomsdl headers + decodes → processor", ours=OURS, other=ways[4].name, limit=5),
        Bar(what="SimpleITK names + files → processor", ours=OURS, other=ways[5].name, limit=12),
        Bar(what="pydicom headers + reads → processor", ours=OURS, other=ways[6].name, limit=13),
        Bar(what="floor, compiled", ours=OURS, other=FLOOR, limit=2.5, floor=True),
        Bar(what="floor, compiled (moonshot)", ours=OURS, other=FLOOR, limit=1.8, floor=True),
        Bar(what="floor, without a compiler", ours=PURE, other=FLOOR, limit=6, floor=True),
    ]
    truth = peers.careful_pydicom(series, "uncompressed")
    yield compare(
        f"{_shown(series)}, against careful users, {threads_in_words()}",
        "Everyone reads headers first, decodes only the slices shown, and ends in the same uint8 "
        "`pixel_values`. The floor opens each file, reads 8 KB of it and the shown slices' bytes, and fills "
        "the output.",
        ways,
        check=same_patches(truth),
        rounds=job.rounds,
        base=OURS,
        bars=bars if threads_now() == 1 else (),
    )


def folder(job: Job) -> Iterator[Table]:
    """Folder to `pixel_values` by those who load the whole series."""
    series = job.series
    out = ours.buffer(series, np.uint8)
    warm(series.files())
    ways = [
        Way(name=OURS, run=lambda: ours.pixel_values(series, "uncompressed", out)),
        Way(
            name="MONAI → qwen_vl_utils → processor",
            run=lambda: peers.monai(series, "uncompressed"),
            needs=("monai", "qwen_vl_utils"),
            slow=True,
        ),
        Way(
            name="MONAI, its pydicom reader → qwen_vl_utils → processor",
            run=lambda: peers.monai(series, "uncompressed", reader="PydicomReader"),
            needs=("monai", "qwen_vl_utils", "itk"),
            slow=True,
        ),
        Way(
            name="SimpleITK → qwen_vl_utils → processor",
            run=lambda: peers.simpleitk(series, "uncompressed"),
            needs=("SimpleITK", "qwen_vl_utils"),
            slow=True,
        ),
        Way(
            name="pydicom → qwen_vl_utils → processor",
            run=lambda: peers.pydicom(series, "uncompressed"),
            needs=("qwen_vl_utils",),
            slow=True,
        ),
        Way(
            name="pydicom → PNG, base64, JSON → processor",
            run=lambda: peers.over_http(series, "uncompressed"),
            slow=True,
        ),
    ]
    yield compare(
        f"{_shown(series)}, against those who load it all, {threads_in_words()}",
        "The same uint8 `pixel_values` for everyone. MONAI is used as it comes: `LoadImage` takes its ITK "
        "reader where itk is installed. Where qwen_vl_utils stands between, pictures are resized by Pillow "
        "instead of torch, which differs in the last bit of few pixels.",
        ways,
        check=same_patches(peers.careful_pydicom(series, "uncompressed")),
        rounds=job.rounds,
        base=OURS,
        bars=[
            Bar(what="MONAI LoadImage → qwen_vl_utils → processor", ours=OURS, other=ways[1].name, limit=120),
            Bar(what="SimpleITK series → same", ours=OURS, other=ways[3].name, limit=35),
            Bar(what="pydicom loop → same", ours=OURS, other=ways[4].name, limit=32),
            Bar(what="PNG/base64 request path", ours=OURS, other=ways[5].name, limit=55),
        ],
    )


def compressed(job: Job) -> Iterator[Table]:
    """Compressed folders to `pixel_values`."""
    series = job.series
    out = ours.buffer(series, np.uint8)
    truth = peers.careful_pydicom(series, "uncompressed")
    for syntax, limit in MONAI_BARS.items():
        warm(series.files(syntax))
        ways = [
            Way(name=OURS, run=partial(ours.pixel_values, series, syntax, out)),
            Way(
                name="pydicom headers and slices → processor",
                run=partial(peers.careful_pydicom, series, syntax),
                slow=True,
            ),
            Way(
                name="MONAI → qwen_vl_utils → processor",
                run=partial(peers.monai, series, syntax),
                needs=("monai", "qwen_vl_utils"),
                slow=True,
            ),
        ]
        yield compare(
            f"{_shown(series, syntax + ' folder')}, {threads_in_words()}",
            "As above.",
            ways,
            check=same_patches(truth),
            rounds=job.rounds,
            base=OURS,
            bars=[Bar(what=f"{syntax}: MONAI path", ours=OURS, other=ways[2].name, limit=limit)],
        )


def nifti(job: Job) -> Iterator[Table]:
    """NIfTI files to `pixel_values`."""
    series = job.series
    out = ours.buffer(series, np.uint8)
    truth = peers.careful_pydicom(series, "uncompressed")
    for suffix in (".nii", ".nii.gz"):
        path = series.nifti(suffix)
        warm([path])
        ways = [
            Way(name=OURS, run=partial(ours.nifti, series, path, out)),
            Way(
                name="nibabel, whole → processor",
                run=partial(peers.nifti_nibabel, series, path),
                needs=("nibabel",),
                slow=True,
            ),
            Way(
                name="MONAI → qwen_vl_utils → processor",
                run=partial(peers.nifti_monai, series, path),
                needs=("monai", "qwen_vl_utils", "nibabel"),
                slow=True,
            ),
        ]
        if suffix == ".nii":  # nibabel would unpack a packed file anew for each slice
            ways.append(
                Way(
                    name="nibabel, slices shown → processor",
                    run=partial(peers.nifti_careful, series, path),
                    needs=("nibabel",),
                )
            )
        yield compare(
            f"{_shown(series, suffix + ' file')}, {threads_in_words()}",
            "The same slices and the same output as from the DICOM folder. What is packed by gzip must be "
            "unpacked up to the last slice shown.",
            ways,
            check=same_patches(truth),
            rounds=job.rounds,
            base=OURS,
        )


def memory(job: Job) -> Iterator[Table]:
    """Slices in memory to `pixel_values`."""
    series = job.series
    held = ours.in_memory(series)
    planes = [np.asarray(held.read_plane(k), np.int16) for k in range(len(held))]
    yield _from_memory(job, held, planes, "uint8", peers.processed, 8)
    yield _from_memory(job, held, planes, "float32", peers.processed_float, 7)


def _from_memory(
    job: Job,
    held: Volume,
    planes: list[NDArray[np.int16]],
    kind: Literal["uint8", "float32"],
    process: Callable[[list[Any]], NDArray[Any]],
    limit: float,
) -> Table:
    series = job.series
    out, pure_out = ours.buffer(series, kind), ours.buffer(series, kind)
    other = "torchvision processor on Pillow images"

    def on_images() -> NDArray[Any]:
        return process([peers.rgb(peers.window(one)) for one in planes])

    ways = [
        Way(name=OURS, run=lambda: ours.from_memory(series, held, kind, out)),
        Way(
            name=PURE,
            run=lambda: ours.from_memory(series, held, kind, pure_out),
            switch=ours.without_compiler,
        ),
        Way(name="ours, new memory each time", run=lambda: ours.from_memory(series, held, kind, None)),
        Way(name=other, run=on_images),
        Way(
            name="torchvision processor on tensors",
            run=lambda: process([peers.tensor(peers.window(one)) for one in planes]),
        ),
    ]
    return compare(
        f"{len(planes)} slices in memory → {kind} `pixel_values`, {threads_in_words()}",
        "From int16 planes: the window, the resize, the patches.",
        ways,
        check=same_patches(on_images()),
        rounds=job.rounds,
        base=OURS,
        bars=[Bar(what=f"in memory → {kind}: torchvision processor", ours=OURS, other=other, limit=limit)],
    )


def cold(job: Job) -> Iterator[Table]:
    """Nothing in the page cache."""
    series = job.series
    files = series.files()
    out = ours.buffer(series, np.uint8)
    buffer = bytearray(1 << 20)
    every = "reading every byte"
    drop = partial(evict, files)
    truth = peers.careful_pydicom(series, "uncompressed")
    same = same_patches(truth)
    yield compare(
        f"{_shown(series)}, cold cache, {threads_in_words()}",
        "Before each round the files are dropped from the page cache. Reading every byte makes nothing of "
        "them.",
        [
            Way(name=OURS, run=lambda: ours.pixel_values(series, "uncompressed", out), before=drop),
            Way(name=every, run=lambda: peers.all_bytes(files, buffer), before=drop),
        ],
        check=lambda name, result: "none" if name == every else same(name, result),
        rounds=job.rounds,
        base=OURS,
        bars=[Bar(what="cold cache: reading every byte", ours=OURS, other=every, limit=3)],
    )


def _shown(series: Series, files: str = "uncompressed folder") -> str:
    scale = series.scale
    return f"{files} → `pixel_values`, {scale.shown} of {scale.slices} slices at {scale.picture} px"


def _floor(series: Series) -> Callable[[], object]:
    files = series.files()
    offsets = peers.pixel_offsets(series)
    shown = [offsets[k] for k in peers.chosen(len(offsets), series.scale.shown)]
    planes = np.empty((len(shown), series.scale.rows, series.scale.rows), np.uint16)
    out = ours.buffer(series, np.uint8)

    def floor() -> None:
        peers.first_bytes(files)
        for plane, (file, offset) in zip(planes, shown, strict=True):
            peers.read_at(file, offset, plane)
        out.fill(1)

    return floor
