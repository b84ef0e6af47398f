"""Scripted looks at a study."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.request import Request
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.strategies import Looked, Strategy
from medmllm_plugin.tasks import TASKS
from tests.values import a_slice_set


def a_box(picture: int = 1, left: int = 10, top: int = 10, side: int = 20) -> dict[str, Any]:
    return {"picture": picture, "bbox_2d": [left, top, left + side, top + side]}


def a_model(*replies: Any, **capabilities: Any) -> ScriptedModel:
    return ScriptedModel(replies, capabilities=replace(ANYTHING, **capabilities))


def a_request(slices: SliceSet | None = None, *, task: str = "report", **asked: Any) -> Request:
    return Request(task=TASKS[task], slices=slices or a_slice_set(5), **asked)


def read(way: Strategy, model: ScriptedModel, request: Request | None = None, **given: Any) -> Looked:
    return way.read(request or a_request(), model, **given)


def keys(looked: Looked) -> list[tuple[str, str]]:
    return [(one.finding, one.status.value) for one in looked.parsed.findings]
