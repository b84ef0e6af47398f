"""How long things take: `make bench`, or `python -m benchmarks.run`.

Imports and help are timed as whole processes, the steps of a reading in this one, on a synthetic chest CT.
Each line is the best and the median of its rounds, so a busy machine shows as a gap between the two.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import click


def timed(function: Callable[[], object], *, rounds: int) -> list[float]:
    """Seconds that each round took."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return seconds


def process(*arguments: str) -> Callable[[], object]:
    """A function that runs this Python with these arguments and fails if it fails."""
    return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def show(name: str, seconds: list[float]) -> None:
    """Print a line of the table."""
    click.echo(f"{name:<44}{min(seconds) * 1000:>10.0f}{median(seconds) * 1000:>10.0f}{len(seconds):>8}")


def main() -> None:
    """Print the table."""
    click.echo(f"{'':<44}{'best ms':>10}{'median ms':>10}{'rounds':>8}")
    show("python -c pass", timed(process("-c", "pass"), rounds=5))
    show("import medmllm_plugin", timed(process("-c", "import medmllm_plugin"), rounds=5))
    show("medmllm --help", timed(process("-m", "medmllm_plugin", "--help"), rounds=5))
    with tempfile.TemporaryDirectory() as folder:
        _reading(Path(folder))


def _reading(folder: Path) -> None:
    """Time each step of reading a phantom."""
    from medmllm_plugin import engine, page, pipeline, registry
    from medmllm_plugin.dicom_bridge import sr_writer
    from medmllm_plugin.phantoms import write_study
    from medmllm_plugin.tasks import TASKS
    from medmllm_plugin.transforms.reading import read_volume

    study = folder / "study"
    study.mkdir()
    show("phantom, 64 slices of 256 x 256", timed(lambda: write_study(study, seed=4), rounds=1))
    show("headers of 64 files to a volume", timed(lambda: read_volume([study]), rounds=5))
    volume = read_volume([study])
    show("all 64 planes decoded", timed(volume.voxels, rounds=3))
    show("the embedded model, first opened", timed(lambda: registry.open_model("embedded"), rounds=1))
    model = registry.open_model("embedded")
    plan = pipeline.plan_for(model, volume)
    show(f"slice set of {plan.count} pictures, {plan.size} px", timed(lambda: plan.apply(volume), rounds=5))
    slices = plan.apply(volume)
    show("prompt, model, parsing", timed(lambda: engine.run(TASKS["report"], slices, model), rounds=3))
    report = engine.run(TASKS["report"], slices, model)
    headers = volume.headers
    show("SR of the findings (TID 1500)", timed(lambda: sr_writer.findings_sr(report, headers), rounds=3))
    show("SR of the narrative (TID 2000)", timed(lambda: sr_writer.text_sr(report, headers), rounds=3))
    show("the page", timed(lambda: page.render(report, slices), rounds=3))


if __name__ == "__main__":
    main()
