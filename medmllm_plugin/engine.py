"""Ask a model about a slice set: ask, parse, ask once more, stop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

from medmllm_plugin import __version__, codes
from medmllm_plugin.errors import ReplyError, SettingsError
from medmllm_plugin.findings import Status, reply_schema
from medmllm_plugin.models import Model, Reply
from medmllm_plugin.parsing import Parsed, UnusableReplyError, parse
from medmllm_plugin.prompts import build_prompt
from medmllm_plugin.report import Outcome, Provenance, Report, Sentence
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.tasks import Task

MAX_TOKENS = 3072
"""Most tokens of a reply."""

ASKS = 2
"""How often a model is asked before its reply is given up."""


def run(
    task: Task,
    slices: SliceSet,
    model: Model,
    *,
    question: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """The report of a model on a slice set.

    Images outside the model's domain are shown to it all the same and its reply is kept, but nothing that it
    says of them becomes a finding.

    Args:
        task: What is asked.
        slices: The pictures.
        model: Who is asked.
        question: The user's own question, for a task that takes one.
        seed: For models that sample.
        progress: Called with (tokens written, tokens at most).

    Raises:
        SettingsError: If the model can't do the task, or can't look at so many pictures.
        ModelError: If the model can't answer.
        ReplyError: If its reply can't be used, twice.
    """
    able = model.capabilities
    _check(task, slices, model, question)
    outside = model.outside_domain(slices)
    schema = reply_schema(
        pictures=len(slices),
        findings=able.findings,
        sites=able.sites,
        boxes=able.boxes,
        box_limit=able.box_limit,
    )
    replies: list[Reply] = []
    correction: str | None = None
    while True:
        prompt = build_prompt(
            task,
            slices,
            terse=able.terse,
            findings=able.findings or tuple(codes.findings()),
            sites=able.sites or tuple(codes.sites()),
            question=question,
            correction=correction,
        )
        replies.append(
            model.reply(prompt, schema=schema, seed=seed, max_tokens=MAX_TOKENS, progress=progress)
        )
        try:
            parsed = parse(replies[-1], schema=schema, slices=slices, model=model)
            break
        except UnusableReplyError as error:
            correction = str(error)
        if outside is not None:
            parsed = Parsed(findings=(), narrative=(), impression=(), notes=())
            break
        if len(replies) == ASKS:
            raise ReplyError(
                f"{model.name}: its reply can't be used, also when asked again: {correction}",
                raw_replies=tuple(reply.text for reply in replies),
            )
    report = Report(
        outcome=_outcome(task, parsed),
        study=slices.study,
        findings=parsed.findings,
        narrative=parsed.narrative,
        impression=parsed.impression,
        provenance=Provenance(
            model=model.name,
            model_version=model.version,
            weights_sha256=model.weights_sha256,
            prompt_sha256=prompt.sha256,
            schema_sha256=hashlib.sha256(json.dumps(schema).encode()).hexdigest(),
            code_version=__version__,
            task=task.name,
            slice_plan=slices.plan,
            seed=seed,
            dtype=model.dtype,
            seconds=round(sum(reply.seconds for reply in replies), 3),
        ),
        raw_reply=replies[-1].text,
        notes=(f"Model's domain: {able.domain}.", *parsed.notes, *slices.notes),
    )
    return report if outside is None else _outside(report, outside)


def _check(task: Task, slices: SliceSet, model: Model, question: str | None) -> None:
    able = model.capabilities
    if able.tasks is not None and task.name not in able.tasks:
        raise SettingsError(
            f"{model.name} was made for {', '.join(able.tasks)}, not for the task {task.name}; "
            "name another model with --model"
        )
    if task.takes_question != (question is not None):
        need = "needs a question: --ask" if task.takes_question else "takes no question"
        raise SettingsError(f"the task {task.name} {need}")
    if len(slices) > able.pictures:
        raise SettingsError(
            f"{model.name} looks at {able.pictures} pictures at most, found {len(slices)}; "
            "ask for fewer: --slices, or count in the plan"
        )


def _outcome(task: Task, parsed: Parsed) -> Outcome:
    if any(one.status is not Status.ABSENT for one in parsed.findings):
        return Outcome.FINDINGS
    # an answer to one question says nothing of the rest of the study
    return Outcome.NOT_ASSESSED if task.takes_question else Outcome.NO_FINDINGS


def _outside(report: Report, reason: str) -> Report:
    """The report of a model that was never made for such images: its words are kept, but not as findings."""
    sentence = f"Outside the model's domain: {reason}"
    return replace(
        report,
        outcome=Outcome.OUTSIDE_DOMAIN,
        findings=(),
        narrative=(Sentence(sentence=sentence),),
        impression=("Not assessed: these images are outside what the model was made for.",),
    )
