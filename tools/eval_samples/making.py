"""What samples are made of: phantoms as pictures, plain facts, and files in each form."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

from medmllm_plugin.phantoms.study import PhantomStudy, sample_study
from medmllm_plugin.transforms.window import apply_window

SAMPLES = Path(__file__).parents[2] / "medmllm_plugin" / "evaluation" / "samples"

SIDE = 96

LETTERS = "ABCDEFGHIJ"

PICTURES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("xr-chest", ("pleural_effusion",), "pleural effusion"),
    ("xr-chest", (), "none"),
    ("xr-chest", ("pneumothorax",), "pneumothorax"),
    ("xr-chest", ("cardiomegaly",), "cardiomegaly"),
    ("xr-chest", ("nodule",), "nodule"),
)
"""(kind, findings, the finding in words) of each."""

FACTS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    (
        "Which chamber of the heart pumps blood into the aorta?",
        ("Left ventricle", "Right ventricle", "Left atrium", "Right atrium", "Coronary sinus"),
        0,
    ),
    (
        "Which imaging modality uses no ionising radiation?",
        ("Computed tomography", "Radiography", "Magnetic resonance imaging", "Fluoroscopy", "Scintigraphy"),
        2,
    ),
    (
        "Where does bile enter the bowel?",
        ("Stomach", "Duodenum", "Ileum", "Colon", "Oesophagus"),
        1,
    ),
    (
        "What does a fluid level in the pleural space on an upright radiograph point to?",
        ("Pneumothorax alone", "Atelectasis", "Emphysema", "Hydropneumothorax", "Cardiomegaly"),
        3,
    ),
    (
        "Which structure crosses the midline between the hemispheres of the brain?",
        ("Corpus callosum", "Thalamus", "Caudate nucleus", "Insula", "Hippocampus"),
        0,
    ),
)
"""(question, five choices, which is right)."""


def study(k: int) -> PhantomStudy:
    """The phantom of picture k."""
    kind, findings, _ = PICTURES[k]
    return sample_study(kind=kind, seed=700 + k, findings=findings, matrix=256)


def pixels(k: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Picture k, shape (rows, columns)."""
    one = study(k)
    center, width = one.scan.window
    grey = apply_window(one.values(0), center=center, width=width)
    scale = SIDE / max(grey.shape)
    size = (round(grey.shape[1] * scale), round(grey.shape[0] * scale))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX))


def encoded(k: int, form: str) -> bytes:
    """Picture k as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels(k)).save(file, form, **({"quality": 80} if form == "JPEG" else {}))
    return file.getvalue()


def put(path: Path, k: int) -> None:
    """Write picture k."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(k, "PNG" if path.suffix == ".png" else "JPEG"))


def put_text(path: Path, text: str) -> None:
    """Write a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def put_json(path: Path, content: object) -> None:
    """Write JSON."""
    put_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def put_lines(path: Path, rows: Sequence[object]) -> None:
    """Write JSON lines."""
    put_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def put_csv(path: Path, rows: Sequence[dict[str, Any]], *, head: bool = True) -> None:
    """Write a table."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(rows)
    if path.suffix == ".gz":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(file.getvalue().encode(), mtime=0))
    else:
        put_text(path, file.getvalue())


def put_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a Parquet file as the hub has them: a picture is its bytes and its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


def inside(k: int) -> dict[str, Any]:
    """Picture k as it lies in a row of a Parquet file."""
    return {"bytes": encoded(k, "JPEG"), "path": f"{k}.jpg"}


def questions() -> list[tuple[int, str, str]]:
    """(picture, question, answer): two to be answered by yes or no, and three open ones."""
    return [
        (0, "Is there a pleural effusion?", "Yes"),
        (1, "Is there a pneumothorax?", "No"),
        (2, "What is in the pleural space?", "pneumothorax"),
        (3, "Which organ is enlarged?", "heart"),
        (4, "Which imaging modality is this?", "X-ray"),
    ]


def choices(k: int) -> tuple[str, list[str], int]:
    """(question, four choices, which is right) of picture k."""
    words = [one for _, _, one in PICTURES]
    listed = [words[(k + step) % len(words)] for step in range(4)]
    turned = listed[k % 4 :] + listed[: k % 4]
    return "Which finding does this image show?", turned, turned.index(words[k])


def report(k: int) -> tuple[str, str]:
    """(findings, impression) of picture k."""
    true = " ".join(one.sentence for one in study(k).truth())
    return (true or "The lungs are clear. No pleural effusion or pneumothorax."), (true or "No abnormality.")
