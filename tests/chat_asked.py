"""A question to a chat-completions server, and ways in which a server may behave."""

from __future__ import annotations

from typing import Any

import numpy as np

from medmllm_plugin.models import Ask
from medmllm_plugin.models.chat_http import ChatModel, open_model
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart
from tests.chat_server import (
    Behaviour,
    ChatServer,
)

QUICK = "backoff=0.01&retries=3"

SCHEMA = {"type": "object", "properties": {"side": {"enum": ["left", "right"]}}}


def opened(*servers: ChatServer, options: str = QUICK) -> ChatModel:
    return open_model(f"{','.join(one.url for one in servers)}?{options}")


def a_picture(number: int = 1, *, grey: int = 0) -> PicturePart:
    pixels = np.random.default_rng(0).integers(0, 256, (56, 84, 3), dtype=np.uint8)
    return PicturePart(number=number, pixels=pixels ^ np.uint8(grey))


def a_question(text: str = "Report.", *, pictures: int = 1, study: int = 0, **settings: Any) -> Ask:
    shown = [a_picture(number, grey=study + number) for number in range(1, pictures + 1)]
    prompt = Prompt(system="You read pictures.", parts=(*shown, TextPart(text=text)))
    return Ask(prompt=prompt, **{"schema": SCHEMA, **settings})


def refusing(status: int, message: str = "not now", **headers: str) -> Behaviour:
    return lambda handler, _: handler.refuse(status, message, **headers)
