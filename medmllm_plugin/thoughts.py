"""The answer in a reply: without what the model thought aloud before it, and without the fence around it."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import accumulate

from medmllm_plugin.models import Reply

_THOUGHT = re.compile(r"\s*(?:<think>)?.*?</think>\s*", re.S)
"""Many chat templates open the thought in the prompt, so that only its end is in the reply."""
_ENDLESS = re.compile(r"\s*<think>.*", re.S)
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.S)


def answer_of(reply: Reply) -> Reply:
    r"""A reply with its answer only; its tokens stay beside the text.

    Args:
        reply: As the model gave it. One whose thought has no end has no answer: its text becomes empty.

    >>> answer_of(Reply(text='<think>A nodule?</think>\n{"findings":[]}', seconds=1.0)).text
    '{"findings":[]}'
    """
    text = reply.text
    thought = _THOUGHT.match(text) or _ENDLESS.fullmatch(text)
    start = thought.end() if thought is not None else 0
    fenced = _FENCED.fullmatch(text, start)
    first, last = fenced.span(1) if fenced is not None else (start, len(text))
    if (first, last) == (0, len(text)):
        return reply
    starts = list(accumulate((len(one) for one in reply.token_texts), initial=0))
    kept = [
        number
        for number, one in enumerate(reply.token_texts)
        if starts[number] < last and starts[number] + len(one) > first
    ]
    low, high = (kept[0], kept[-1] + 1) if kept else (0, 0)
    texts = tuple(
        text[max(starts[number], first) : min(starts[number + 1], last)] for number in range(low, high)
    )
    whole = all(part == one for part, one in zip(texts, reply.token_texts[low:high], strict=True))
    return replace(
        reply,
        text=text[first:last],
        token_texts=texts,
        token_probabilities=reply.token_probabilities[low:high],
        # a token cut in two has alternatives of its whole only
        token_alternatives=reply.token_alternatives[low:high] if whole else (),
    )
