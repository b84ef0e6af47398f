"""Scripted models for the whole line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from tests.values import a_said_finding, a_said_reply

BOXED = a_said_finding(box={"picture": 1, "bbox_2d": [100, 50, 300, 150]})


def a_model(*findings: dict[str, Any], **capabilities: Any) -> ScriptedModel:
    return ScriptedModel([a_said_reply(*findings)], capabilities=replace(ANYTHING, **capabilities))


def an_answer(text: str) -> dict[str, Any]:
    answer = {"choice": None, "pictures": [1], "text": text}
    return {"abnormal_pictures": [], "findings": [], "answer": answer}
