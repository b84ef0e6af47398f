"""The JSON Schemas of `report.json`, `slices.json` and `truth.json`, made from the types written there.

They bind what stands in a file and allow more, as fields may be added within a schema's number. Findings and
sites are bound by their form and not to the keys of today, as `codes.toml` grows too.

`python -m medmllm_plugin.schemas FOLDER` writes them; those in `docs/schemas` are made so.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypedDict, Union, get_args, get_origin, get_type_hints

from medmllm_plugin.findings import Finding
from medmllm_plugin.report import (
    DISCLAIMER,
    SCHEMA,
    Answer,
    CheckResult,
    Coverage,
    Diagnosis,
    Heard,
    Outcome,
    Provenance,
    Sentence,
)
from medmllm_plugin.source import ImageRef
from medmllm_plugin.volume import Study

Json = dict[str, Any]

_PLAIN: dict[Any, Json] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
}
_KEY = {"type": "string", "pattern": "^[a-z][a-z0-9]*(_[a-z0-9]+)*$"}
_FROM_0, _FROM_1 = {"type": "integer", "minimum": 0}, {"type": "integer", "minimum": 1}
_SHARE = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]}
_BOUND: dict[str, Json] = {
    "finding": {**_KEY, "description": "a key of the findings of codes.toml"},
    "site": {**_KEY, "description": "a key of the sites of codes.toml"},
    "code": {**_KEY, "description": "a key of the measurements of codes.toml"},
    "picture": {**_FROM_1, "description": "number of the picture, in the order shown"},
    "index": _FROM_0,
    "volume": _FROM_0,
    "certainty": _SHARE,
    "frame": {"anyOf": [_FROM_1, {"type": "null"}]},
    "column_min": {"type": "number", "minimum": 0},
    "row_min": {"type": "number", "minimum": 0},
    "pictures": {"type": "array", "items": _FROM_1},
    "prior_pictures": {"type": "array", "items": _FROM_1},
    "agreement": _SHARE,
    "share": _SHARE,
}
"""What is said of a field by its name, where that is more than its type says."""
_ADDED = {
    *("pictures", "in_picture", "volume", "tiles", "question", "answer", "differential", "coverage"),
    *("checks", "heard", "trials", "probabilities", "agreement", "prior_images", "prior_pictures"),
    *("task_version", "language", "strategy", "parts", "days_before", "second"),
}
"""Fields that files of the same schema's number written before don't have, or that only montages, sets of
several series or prior studies have."""


class Computed(TypedDict):
    """The `source` of a picture that was computed from several images, as `Resampled.to_json` writes it."""

    resampled: str
    index: int
    first: ImageRef
    last: ImageRef


class Montaged(TypedDict):
    """The `source` of a picture of several slices side by side, as `Montage.to_json` writes it."""

    montage: str
    first: ImageRef | Computed
    last: ImageRef | Computed


def report_schema() -> Json:
    """The schema of `report.json`."""
    return _document(
        SCHEMA,
        "What was read in one study",
        {
            "disclaimer": {"const": DISCLAIMER},
            "outcome": Outcome,
            "study": Study,
            "findings": tuple[Finding, ...],
            "narrative": {"findings": tuple[Sentence, ...], "impression": tuple[str, ...]},
            "notes": tuple[str, ...],
            "question": str | None,
            "answer": Answer | None,
            "differential": tuple[Diagnosis, ...],
            "coverage": Coverage | None,
            "checks": tuple[CheckResult, ...],
            "heard": tuple[Heard, ...],
            "provenance": Provenance,
            "second": Provenance | None,
            "raw_reply": str,
        },
    )


def slices_schema() -> Json:
    """The schema of `slices.json`."""
    study = {name: kind for name, kind in get_type_hints(Study).items() if name != "phantom"}
    ways = {
        "rows": _FROM_1,
        "columns": _FROM_1,
        "to_patient": {"anyOf": [_matrix(4), _PLAIN[NoneType]]},
        "to_source": _matrix(3),
        "window": str,
    }
    picture = {
        "picture": {"type": "string", "pattern": r"^([^/\\]+/)*[0-9]{3,}\.png$"},
        "source": ImageRef | Computed | Montaged,
        **ways,
        "tiles": [{"column": _FROM_0, "row": _FROM_0, "source": ImageRef | Computed, **ways}],
    }
    part = {name: study[name] for name in ("modality", "series_instance_uid", "frame_of_reference_uid")}
    series = {
        **study,
        "plan": str,
        "notes": tuple[str, ...],
        "parts": [{"pictures": _FROM_1, **part, "words": str, "plan": str}],
        "days_before": int | None,
    }
    return _document(
        "medmllm-slices/1",
        "What a model was shown, and the way from each picture to its image and to the patient",
        {"series": series, "slices": [picture]},
    )


def truth_schema() -> Json:
    """The schema of `truth.json`."""
    study = dict.fromkeys(("study_instance_uid", "series_instance_uid", "modality"), str)
    return _document(
        "medmllm-truth/1",
        "What a phantom holds, as a perfect reader would report it",
        {"kind": str, "seed": int, "study": study, "findings": tuple[Finding, ...]},
    )


def texts() -> dict[str, str]:
    """The content of each schema's file by the file's name."""
    made = {"report": report_schema(), "slices": slices_schema(), "truth": truth_schema()}
    return {f"{name}.schema.json": json.dumps(schema, indent=2) + "\n" for name, schema in made.items()}


def _document(name: str, title: str, properties: Json) -> Json:
    defs: Json = {}
    body = _schema({"schema": {"const": name}, **properties}, defs)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        "description": title,
        **body,
        "$defs": dict(sorted(defs.items())),
    }


def _schema(kind: Any, defs: Json) -> Json:
    """The schema of a type, as its values are written to JSON.

    Args:
        kind: A type; or fields by name, which make an object, of which a list of one makes a list; or what
            already is a schema.
        defs: Gets the schemas of the dataclasses met, by their names.
    """
    if isinstance(kind, list):
        return {"type": "array", "items": _schema(kind[0], defs), "minItems": 1}
    if isinstance(kind, dict):
        if kind.keys() & {"type", "const", "anyOf"}:
            return kind
        return _object({name: _schema(one, defs) for name, one in kind.items()})
    if kind in _PLAIN:
        return _PLAIN[kind]
    inner = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return {"anyOf": [_schema(one, defs) for one in inner]}
    if get_origin(kind) is tuple:
        many = {"type": "array", "items": _schema(inner[0], defs)}
        return many if inner[-1] is ... else {**many, "minItems": len(inner), "maxItems": len(inner)}
    if issubclass(kind, StrEnum):
        return {"enum": [one.value for one in kind]}
    if kind.__name__ not in defs:
        fields = get_type_hints(kind).items()
        defs[kind.__name__] = _object(
            {name: _BOUND[name] if name in _BOUND else _schema(one, defs) for name, one in fields}
        )
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _object(properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": [one for one in properties if one not in _ADDED],
    }


def _matrix(size: int) -> Json:
    """Rows of numbers, as many as columns."""
    exactly = {"minItems": size, "maxItems": size}
    row = {"type": "array", "items": _PLAIN[float], **exactly}
    return {"type": "array", "items": row, **exactly}


if __name__ == "__main__":
    for file, text in texts().items():
        Path(sys.argv[1], file).write_text(text, encoding="utf-8")
