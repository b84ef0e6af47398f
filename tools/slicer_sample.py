"""Makes the sample study of the Slicer extension: a synthetic chest CT and its structured report, in one zip.

    python -m tools.slicer_sample slicer_module/MedMLLM/Resources/SampleData/MedMLLMPhantomChestCT.zip

A thumbnail for Slicer's module Sample Data lies beside it. The report is what the embedded model reads of the
phantom; run it again when the model changes, and put the SHA-256 that it prints into `MedMLLMLib/samples.py`.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw

from medmllm_plugin import pipeline
from medmllm_plugin.phantoms import write_study

SEED, SLICES, MATRIX = 500_022, 48, 192
FINDINGS = ("mass", "pleural_effusion", "consolidation")
THUMBNAIL = 192
AMBER = "#ffb000"


def main() -> None:
    """Write the zip that is named and its thumbnail, and print its SHA-256."""
    out = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        study, read = Path(folder) / "study", Path(folder) / "read"
        read.mkdir()
        write_study(study, seed=SEED, findings=FINDINGS, slices=SLICES, matrix=MATRIX)
        reading = pipeline.read([study])
        written = pipeline.write(reading, read)
        pack(out, [*sorted(study.glob("*.dcm")), written["findings_sr"]])
        thumbnail(reading).save(out.with_suffix(".png"), optimize=True)
    print(hashlib.sha256(out.read_bytes()).hexdigest())


def pack(out: Path, files: Iterable[Path]) -> None:
    """Put files into a zip, without times, so that the same files make the same zip."""
    with zipfile.ZipFile(out, "w") as archive:
        for file in files:
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes(), zipfile.ZIP_DEFLATED, 9)


def thumbnail(reading: pipeline.Reading) -> Image.Image:
    """The picture of the first finding that has a box, in the first of its windows, with that box."""
    box = next(finding.box for finding in reading.report.findings if finding.box is not None)
    shown = reading.slices.slices[box.picture - 1]
    image = Image.fromarray(shown.pixels[..., 0]).convert("RGB")
    image = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    drawn = shown.box_from_source(
        column_min=box.column_min, row_min=box.row_min, column_max=box.column_max, row_max=box.row_max
    )
    corners = [edge * THUMBNAIL / shown.pixels.shape[1] for edge in drawn]
    ImageDraw.Draw(image).rectangle(corners, outline=AMBER, width=3)
    return image


if __name__ == "__main__":
    main()
