"""Put requests to a model: ask, parse, ask once more those whose reply can't be used, stop.

A model that can't be expected to write JSON is asked for prose first, and then to put its own words, without
the pictures, into the task's form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from medmllm_plugin.capabilities import Capabilities
from medmllm_plugin.errors import ReplyError, SettingsError
from medmllm_plugin.models import Ask, Cancel, Model, Progress, Reply
from medmllm_plugin.parsing import Parsed, UnusableReplyError, parse
from medmllm_plugin.prompting import coding_prompt, prompt_for
from medmllm_plugin.reply_forms import ROOM_FOR_KEYS, schema_for
from medmllm_plugin.report import Heard
from medmllm_plugin.request import Request
from medmllm_plugin.thoughts import answer_of

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
        SettingsError: If the task can't be put to this model, or its prose is refused.
        ModelError: If the model can't answer.
        CancelledError: If `cancel` said so.
    """
    able = model.capabilities
    answered = [Answered(request=one, parsed=None, problem=None, heard=(), notes=()) for one in requests]
    prose = _prose(answered, model, purpose, temperature, progress, cancel) if able.free_text else None
    for again in range(asks):
        open_ones = [number for number, one in enumerate(answered) if one.parsed is None]
        put: dict[int, Ask] = {}
        for number in open_ones:
            one = answered[number]
            try:
                put[number] = _ask(one, able, None if prose is None else prose[number], temperature)
            except UnusableReplyError as error:
                answered[number] = replace(one, problem=str(error))
        if not put:
            break
        replies = model.replies(list(put.values()), progress=progress, cancel=cancel)
        for (number, asked), reply in zip(put.items(), replies, strict=True):
            said = f"{purpose}, coded" if prose else purpose
            answered[number] = _heard(
                answered[number], asked, reply, purpose=f"{said}, asked again" if again else said
            )
            answered[number] = _parsed(answered[number], asked, reply, model)
    return answered


def _ask(one: Answered, able: Capabilities, prose: str | None, temperature: float) -> Ask:
    """What is put to the model: the request, or what it said to that in prose.

    Raises:
        UnusableReplyError: If the prose says nothing.
    """
    request = one.request
    if prose is None:
        prompt = prompt_for(request, able, correction=one.problem)
    else:
        prompt = coding_prompt(request, prose, able, correction=one.problem)
    return Ask(
        prompt=prompt,
        schema=schema_for(request, able, prose=prose),
        seed=request.seed,
        max_tokens=MAX_TOKENS,
        temperature=temperature if prose is None else 0.0,
    )


def _prose(
    answered: list[Answered],
    model: Model,
    purpose: str,
    temperature: float,
    progress: Progress | None,
    cancel: Cancel | None,
) -> list[str]:
    """What a model that can't write JSON says in its own words; kept in `answered`.

    Raises:
        SettingsError: If a request refuses that.
    """
    if not all(one.request.second_pass for one in answered):
        raise SettingsError(
            f"{model.name}: found a model that answers in prose, expected one that writes JSON; name another "
            "model, or allow a second pass that turns its words into findings"
        )
    put = [
        Ask(
            prompt=prompt_for(one.request, model.capabilities),
            schema=None,
            seed=one.request.seed,
            max_tokens=_prose_tokens(model.capabilities),
            temperature=temperature,
        )
        for one in answered
    ]
    replies = model.replies(put, progress=progress, cancel=cancel)
    for number, (asked, reply) in enumerate(zip(put, replies, strict=True)):
        answered[number] = _heard(answered[number], asked, reply, purpose=f"{purpose}, in prose")
    return [answer_of(reply).text for reply in replies]


def _prose_tokens(able: Capabilities) -> int:
    """Most tokens of prose: so many that a short context has room to put them into form."""
    short = able.context_tokens is not None and able.context_tokens < ROOM_FOR_KEYS
    return min(MAX_TOKENS, able.context_tokens // 6) if short and able.context_tokens else MAX_TOKENS


def _heard(before: Answered, put: Ask, reply: Reply, *, purpose: str) -> Answered:
    heard = Heard(
        purpose=purpose,
        prompt_sha256=put.prompt.sha256,
        text=reply.text,
        seconds=round(reply.seconds, 3),
    )
    notes = dict.fromkeys((*before.notes, *reply.notes))
    return replace(before, heard=(*before.heard, heard), notes=tuple(notes))


def _parsed(before: Answered, put: Ask, reply: Reply, model: Model) -> Answered:
    assert put.schema is not None
    try:
        parsed = parse(answer_of(reply), request=before.request, schema=put.schema, model=model)
    except UnusableReplyError as error:
        cut = "" if reply.finished else f" It was cut short at {put.max_tokens} tokens."
        return replace(before, problem=f"{error}{cut}")
    return replace(before, parsed=parsed, problem=None)
