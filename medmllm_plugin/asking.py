"""Put requests to a model: ask, parse, ask once more those whose reply can't be used, stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from medmllm_plugin.errors import ReplyError
from medmllm_plugin.models import Ask, Cancel, Model, Progress, Reply
from medmllm_plugin.parsing import Parsed, UnusableReplyError, parse
from medmllm_plugin.prompting import prompt_for
from medmllm_plugin.reply_forms import schema_for
from medmllm_plugin.report import Heard
from medmllm_plugin.request import Request

MAX_TOKENS = 3072
"""Most tokens of a reply."""

ASKS = 2
"""How often a model is asked before its reply is given up."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answered:
    """What a model said to a request."""

    request: Request
    parsed: Parsed | None
    """What its reply says; None if that can't be used."""
    problem: str | None
    """Why the last reply can't be used."""
    heard: tuple[Heard, ...]
    """Its replies, each as it came."""
    notes: tuple[str, ...]
    """What the model said of how it was asked."""

    def usable(self, model: Model) -> Parsed:
        """What its reply says.

        Raises:
            ReplyError: If that can't be used.
        """
        if self.parsed is None:
            again = ", also when asked again" if len(self.heard) > 1 else ""
            raise ReplyError(
                f"{model.name}: its reply can't be used{again}: {self.problem}",
                raw_replies=tuple(one.text for one in self.heard),
            )
        return self.parsed


def ask(
    requests: Sequence[Request],
    model: Model,
    *,
    purpose: str,
    temperature: float = 0.0,
    asks: int = ASKS,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> list[Answered]:
    """What a model says to requests, in their order.

    Args:
        requests: What is asked, all at once.
        model: Who is asked.
        purpose: Why, for `Report.heard`.
        temperature: As `Ask.temperature`.
        asks: How often each is asked before its reply is given up.
        progress: Called with (tokens written, tokens at most).
        cancel: Says when to stop.

    Raises:
        ModelError: If the model can't answer.
        CancelledError: If `cancel` said so.
    """
    able = model.capabilities
    answered = [Answered(request=one, parsed=None, problem=None, heard=(), notes=()) for one in requests]
    for again in range(asks):
        open_ones = [number for number, one in enumerate(answered) if one.parsed is None]
        if not open_ones:
            break
        put = []
        for number in open_ones:
            request = answered[number].request
            put.append(
                Ask(
                    prompt=prompt_for(request, able, correction=answered[number].problem),
                    schema=schema_for(request, able),
                    seed=request.seed,
                    max_tokens=MAX_TOKENS,
                    temperature=temperature,
                )
            )
        replies = model.replies(put, progress=progress, cancel=cancel)
        for number, one, reply in zip(open_ones, put, replies, strict=True):
            said = f"{purpose}, asked again" if again else purpose
            answered[number] = _heard(answered[number], one, reply, model, purpose=said)
    return answered


def _heard(before: Answered, put: Ask, reply: Reply, model: Model, *, purpose: str) -> Answered:
    heard = Heard(
        purpose=purpose,
        prompt_sha256=put.prompt.sha256,
        text=reply.text,
        seconds=round(reply.seconds, 3),
    )
    after = replace(
        before,
        heard=(*before.heard, heard),
        notes=tuple(dict.fromkeys((*before.notes, *reply.notes))),
    )
    assert put.schema is not None
    try:
        parsed = parse(reply, request=before.request, schema=put.schema, model=model)
    except UnusableReplyError as error:
        return replace(after, problem=str(error))
    return replace(after, parsed=parsed, problem=None)
