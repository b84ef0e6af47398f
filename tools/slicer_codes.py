"""Writes the table of codes that the 3D Slicer extension offers for correcting a finding, from `codes.toml`.

Run it after a change of `codes.toml`: python -m tools.slicer_codes
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medmllm_plugin import codes

TARGET = Path(__file__).parents[1] / "slicer_module" / "MedMLLM" / "Resources" / "codes.json"


def table() -> dict[str, Any]:
    """Findings and sites by key: code, words, and what may go with what."""
    findings: dict[str, Any] = {}
    for key, finding in codes.findings().items():
        findings[key] = {"code": _triple(finding.code), "words": finding.words}
        if finding.sites:
            findings[key]["sites"] = list(finding.sites)
    sites = {
        key: {"code": _triple(site.code), "words": site.words, "sides": list(site.allowed_sides)}
        for key, site in codes.sites().items()
    }
    return {"findings": findings, "sites": sites}


def text() -> str:
    """The file's content, a row to a line."""
    parts = []
    for kind, rows in table().items():
        lines = (f"    {json.dumps(key)}: {json.dumps(row)}" for key, row in rows.items())
        parts.append(f'  "{kind}": {{\n' + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _triple(code: codes.Code) -> list[str]:
    return [code.value, code.scheme, code.meaning]


if __name__ == "__main__":
    TARGET.write_text(text(), "utf-8")
