"""What a fresh process costs: imports, the first call, and memory. Run as a module, this is that process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.series import Scale, Series
from benchmarks.timing import Table, judged, ms

ROOT = Path(__file__).parents[1]
MB = 1e6
ROOM_MB = 60
"""What reading may take beside the slices and the output."""

IMPORTS = {
    "Python, nothing imported": "pass",
    "numpy and pydicom": "import numpy, pydicom.pixels",
    "medmllm_plugin": "import medmllm_plugin",
    "ours: reading, plan, patches": (
        "import medmllm_plugin.transforms.reading, medmllm_plugin.transforms.slices, "
        "medmllm_plugin.transforms.patches"
    ),
    "SimpleITK": "import SimpleITK",
    "MONAI's transforms": "import monai.transforms",
    "transformers' processor": "from benchmarks.peers import processor; processor()",
}
"""What each process imports, by its name in the table."""

WAYS: dict[str, tuple[tuple[str, ...], str]] = {
    "ours": ((), "benchmarks.ours:pixel_values"),
    "dicomsdl headers and slices → processor": (("dicomsdl",), "benchmarks.peers:careful_dicomsdl"),
    "pydicom headers and slices → processor": ((), "benchmarks.peers:careful_pydicom"),
    "MONAI → qwen_vl_utils → processor": (("monai", "qwen_vl_utils"), "benchmarks.peers:monai"),
}
"""Packages needed and function, by the name in the table."""


def imports(*, rounds: int) -> Table:
    """How long processes take that import something and end."""
    lines, figures = [], {}
    for name, script in IMPORTS.items():
        seconds = [_seconds(script) for _ in range(rounds)]
        figures[name] = seconds
        lines.append((name, ms(median(seconds)), ms(min(seconds))))
    return Table(
        title="Imports, each in a fresh process",
        note="The whole process, from its start to its end.",
        columns=("imported", "median ms", "best ms"),
        lines=tuple(lines),
        figures=figures,
    )


def first_calls(series: Series) -> Table:
    """The first call in a fresh process, and how far its memory grows."""
    lines, figures = [], {}
    for name, (needs, _) in WAYS.items():
        if not all(map(find_spec, needs)):
            continue
        command = [sys.executable, "-m", "benchmarks.children", str(series.root), name, str(time.monotonic())]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        seen = figures[name] = json.loads(done.stdout.splitlines()[-1])
        lines.append(
            (
                name,
                *(ms(seen[key]) for key in ("start_s", "first_s", "second_s")),
                "not known" if seen["peak_mb"] is None else f"{seen['peak_mb']:.0f}",
            )
        )
    scale = series.scale
    slices = 2 * scale.shown * scale.rows**2 / MB
    output = scale.shown * (scale.picture // 14) ** 2 * 1176 / MB
    room = round(slices + output + ROOM_MB)
    return Table(
        title=f"The first call in a fresh process, {scale.shown} of {scale.slices} slices",
        note=(
            "The start of the process and its imports, then the call twice; memory is the peak of the first "
            "call above what the process held after its imports. "
            f"The slices shown are {slices:.0f} MB, the output {output:.0f} MB."
        ),
        columns=("way", "start ms", "first call ms", "second ms", "peak MB"),
        lines=tuple(lines),
        bars=(
            judged(
                "peak memory: slices, output and 60 MB",
                figures["ours"]["peak_mb"],
                room,
                at_most=True,
                unit=" MB",
            ),
        ),
        figures=figures,
    )


def _seconds(script: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def _child(root: Path, name: str, started: float) -> dict[str, Any]:
    needs, place = WAYS[name]
    module, _, function = place.partition(":")
    call: Callable[..., Any] = getattr(import_module(module), function)
    for package in needs:
        if package != "qwen_vl_utils":  # imported by the processor's own way, below
            import_module(package)
    if name != "ours":
        from benchmarks.peers import processor

        processor()
        if "qwen_vl_utils" in needs:
            import_module("qwen_vl_utils")
    imported = time.monotonic()
    whole = json.loads((root / "whole.json").read_text("utf-8"))
    series = Series(scale=Scale(**whole["scale"]), root=root)
    before = _reset_peak()
    seconds = []
    peak = None
    for _ in range(2):
        begun = time.perf_counter()
        result = call(series, "uncompressed")
        seconds.append(time.perf_counter() - begun)
        del result
        if before is not None and peak is None:
            peak = (_status("VmHWM") - before) / MB
    return {
        "start_s": imported - started,
        "first_s": seconds[0],
        "second_s": seconds[1],
        "peak_mb": peak,
    }


def _reset_peak() -> float | None:
    """Bytes held now, and the peak begins here; None where Linux's /proc is not there to tell."""
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
        return _status("VmRSS")
    except OSError:
        return None


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * float(line.split()[1])
    raise OSError(f"/proc/self/status has no {key}")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_child(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))) + "\n")
