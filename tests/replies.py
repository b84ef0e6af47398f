"""Replies as models give them, and what is parsed from them."""

from __future__ import annotations

import json
from typing import Any

from medmllm_plugin.findings import reply_schema
from medmllm_plugin.models import Reply
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.parsing import Parsed, parse
from medmllm_plugin.request import Request
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.tasks import TASKS
from tests.values import (
    THREE_FOUR_FIVE,
    a_slice_set,
)


def parsed(
    reply: dict[str, Any] | str | Reply,
    *,
    slices: SliceSet | None = None,
    model: ScriptedModel | None = None,
) -> Parsed:
    shown = slices or a_slice_set(3)
    if not isinstance(reply, Reply):
        reply = Reply(text=reply if isinstance(reply, str) else json.dumps(reply), seconds=0.0)
    schema = reply_schema(pictures=len(shown))
    request = Request(task=TASKS["report"], slices=shown)
    return parse(reply, request=request, schema=schema, model=model or ScriptedModel([]))


def an_oblique_set() -> SliceSet:
    """One picture of 56 x 56 px of an image of 56 x 224 px, 2 mm between rows and 0.5 mm between columns."""
    return a_slice_set(
        1, rows=56, columns=224, spacing=(2.0, 0.5), orientation=THREE_FOUR_FIVE, position=(10, 20, 30)
    )
