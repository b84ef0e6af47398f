"""Checks what is in a wheel: `python check_wheel.py WHEEL OTHER_WHEEL`, which must hold the same."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

EXPECTED = (
    "medmllm_plugin/__init__.py",
    "medmllm_plugin/py.typed",
    "medmllm_plugin/codes.toml",
    "medmllm_plugin/page.css",
    "medmllm_plugin/models/weights/ct-chest/config.json",
    "medmllm_plugin/models/weights/medmllm.json",
    "medmllm_plugin/models/weights/ct-chest/model.safetensors",
    "medmllm_plugin/models/weights/ct-chest/tokenizer.json",
    "medmllm_plugin/models/weights/ct-chest/closer/model.safetensors",
    "medmllm_plugin/transforms/slices.py",
    "medmllm_plugin/dicom_bridge/sr_writer.py",
)


def content(wheel: Path) -> dict[str, int]:
    """The checksum of each file in a wheel by its name."""
    with zipfile.ZipFile(wheel) as archive:
        return {one.filename: one.CRC for one in archive.infolist() if not one.is_dir()}


def faults(wheel: Path, other: Path) -> list[str]:
    """What is wrong with a wheel, in words."""
    files = content(wheel)
    sources = Path(__file__).parents[1]
    places = {"transforms": "transforms", "dicom_bridge": "dicom_bridge", "": "medmllm_plugin"}
    modules = {
        "/".join(filter(None, ("medmllm_plugin", inner, path.relative_to(sources / folder).as_posix())))
        for inner, folder in places.items()
        for path in (sources / folder).rglob("*.py")
        if inner or path.relative_to(sources / folder).parts[0] not in places
    }
    missing = [f"{name} is missing" for name in sorted({*EXPECTED, *modules} - files.keys())]
    inside = ("medmllm_plugin/", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/")
    strange = [f"{name} does not belong there" for name in files if not name.startswith(inside)]
    license_file = [name for name in files if name.endswith("/licenses/LICENSE")]
    different = [] if content(other) == files else ["it differs from the one that the sdist makes"]
    return [*missing, *strange, *([] if license_file else ["LICENSE is missing"]), *different]


if __name__ == "__main__":
    first, second = map(Path, sys.argv[1:])
    found = faults(first, second)
    sys.stdout.write("\n".join(found or [f"{first.name}: {len(content(first))} files, as expected"]) + "\n")
    sys.exit(bool(found))
