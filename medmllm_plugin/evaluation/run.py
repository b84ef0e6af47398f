"""A model put to a benchmark through the engine's own code; each item is on disk, so it can be killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from medmllm_plugin import __version__, engine
from medmllm_plugin.errors import (
    CancelledError,
    MedMLLMError,
    ModelError,
    ReplyError,
    SettingsError,
    TooManyPicturesError,
    TooManyTokensError,
)
from medmllm_plugin.evaluation.benchmark import Benchmark, Item, Marks, Nothing, ShownAgain, Verdict
from medmllm_plugin.evaluation.pictures import Pictures
from medmllm_plugin.evaluation.records import (
    SCHEMA,
    Record,
    append,
    file_of,
    mend,
    read_lines,
    record_of,
    write_whole,
)
from medmllm_plugin.evaluation.scored import marks_of
from medmllm_plugin.models import Cancel, Model
from medmllm_plugin.request import Request
from medmllm_plugin.strategies import View
from medmllm_plugin.tasks import task

BATCH = 8
"""Items put to a model together."""

HEAD = "run.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is run: two runs of equal plans give the same."""

    benchmark: str
    model: str
    """As it was named."""
    weights_sha256: str
    items: int
    items_sha256: str
    """Over the items with what is right: another file, another run."""
    seed: int
    only: Mapping[str, str] = field(default_factory=dict)
    """As of `items_of`."""
    data: str = ""
    """The folder, for who looks at the pictures again."""
    code_version: str = __version__

    def to_json(self) -> dict[str, Any]:
        """The content of `run.json`."""
        return {
            "schema": SCHEMA,
            "benchmark": self.benchmark,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "items": self.items,
            "items_sha256": self.items_sha256,
            "seed": self.seed,
            "only": dict(self.only),
            "data": self.data,
            "code_version": self.code_version,
        }


def items_of(
    benchmark: Benchmark, folder: Path, *, most: int | None = None, only: Mapping[str, str] | None = None
) -> list[Item]:
    """The first items of a benchmark, all if `most` is None.

    Args:
        benchmark: Whose.
        folder: Where its files lie.
        most: How many.
        only: Values of groups that items must have, such as a modality.

    Raises:
        SettingsError: If a file is missing or broken, there is no item, or two have one name.
    """
    wanted = (only or {}).items()
    held = (one for one in benchmark.read(folder) if wanted <= one.groups.items())
    found = list(islice(held, most))
    names = [one.name for one in found]
    if not found:
        which = "".join(f" with {name}={value}" for name, value in wanted)
        raise SettingsError(
            f"{folder}: found no item of {benchmark.name}{which}, expected some; see medmllm eval list"
        )
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingsError(
            f"{folder}: found the item {twice!r} twice, expected each once; fetch the file again"
        )
    return found


def plan_of(
    benchmark: Benchmark,
    items: Sequence[Item],
    model: Model,
    *,
    name: str,
    folder: Path,
    seed: int,
    only: Mapping[str, str] | None = None,
) -> Plan:
    """What is about to be run: items as `items_of` gave them, and the model by its name."""
    digest = hashlib.sha256()
    for one in items:
        line = [one.name, one.kind, one.task, one.question, one.choices, one.gold]
        digest.update(json.dumps(line, ensure_ascii=True).encode() + b"\n")
    return Plan(
        benchmark=benchmark.name,
        model=name,
        weights_sha256=model.weights_sha256,
        items=len(items),
        items_sha256=digest.hexdigest(),
        seed=seed,
        only=dict(only or {}),
        data=str(folder.resolve()) if benchmark.needs_folder else "",
    )


def begin(out: Path, plan: Plan) -> None:
    """Make a run's folder, or take up the run that it holds.

    Raises:
        SettingsError: If it holds another run, or something else.
        OutputError: If it can't be written.
    """
    head = out / HEAD
    if head.exists():
        before = head_of(out)
        other = [key for key, value in plan.to_json().items() if before.get(key) != value and key != "data"]
        if other:
            raise SettingsError(
                f"{out}: found another run (it differs in {', '.join(other)}), expected this one or none; "
                "name another -o"
            )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError(f"{out}: found something that is no run, expected nothing; name another -o")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{out}: can't be made ({error.strerror}); name another -o") from error
    write_whole(head, json.dumps(plan.to_json(), indent=1) + "\n")


def head_of(out: Path) -> dict[str, Any]:
    """What `run.json` holds.

    Raises:
        SettingsError: If the folder holds no run.
    """
    try:
        content = json.loads((out / HEAD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{out}: found no run ({HEAD}), expected the folder of medmllm eval; name that"
        ) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise SettingsError(f"{out}: found a {HEAD} that is no {SCHEMA}; run the benchmark again")
    return content


def run(
    items: Sequence[Item],
    model: Model,
    *,
    out: Path,
    seed: int = 0,
    shard: tuple[int, int] = (1, 1),
    batch: int = BATCH,
    progress: Callable[[int, int, float], None] | None = None,
    cancel: Cancel | None = None,
) -> list[Record]:
    """Put the items of one shard to a model, those that its file holds already excepted.

    Args:
        items: All items of the run.
        model: Who is asked.
        out: The run's folder, see `begin`.
        seed: For models that draw their tokens.
        shard: Which share of the items, (number from 1, shares): every so many-th.
        batch: How many are put to the model together.
        progress: Called with (items done, of the shard, seconds of the model for those of this call).
        cancel: Says when to stop.

    Returns:
        The records of the shard, in the order of the items.

    Raises:
        ModelError: If the model can't answer at all; what was done is kept.
        CancelledError: If `cancel` said so; the same.
        OutputError: If a record can't be written.
    """
    number, shards = shard
    mine = list(items[number - 1 :: shards])
    path = file_of(out, shard)
    known = read_lines(path)
    mend(path, known)
    done = {one.item: one for one in known}
    left = [one for one in mine if one.name not in done]
    spent = 0.0
    if progress is not None:
        progress(len(done), len(mine), spent)
    for start in range(0, len(left), batch):
        if cancel is not None and cancel():
            raise CancelledError("stopped between two items; the same command goes on")
        part = left[start : start + batch]
        made = _records(part, model, seed=seed, cancel=cancel)
        append(path, made)
        done |= {one.item: one for one in made}
        spent += sum(one.seconds for one in made)
        if progress is not None:
            progress(len(done), len(mine), spent)
    return [done[one.name] for one in mine]


def all_records(out: Path) -> list[Record]:
    """The records of all shards in a run's folder, by the names of their files.

    Raises:
        SettingsError: If there are fewer than the run has items, or more.
    """
    wanted = int(head_of(out)["items"])
    found = {one.item: one for path in sorted(out.glob("items*.jsonl")) for one in read_lines(path)}
    if len(found) != wanted:
        raise SettingsError(
            f"{out}: found {len(found)} items, expected {wanted}; run the shards that are missing"
        )
    return list(found.values())


def _records(items: Sequence[Item], model: Model, *, seed: int, cancel: Cancel | None) -> list[Record]:
    requests: dict[int, Request] = {}
    views: dict[int, View] = {}
    found: dict[int, Record] = {}
    for number, item in enumerate(items):
        why = unable(item, model)
        if why is not None:
            found[number] = record_of(item, Marks(verdict=Verdict.ABSTAINED, answer=why))
            continue
        try:
            requests[number] = _request(item, model, seed)
            if isinstance(item.shown, ShownAgain):
                views[len(requests) - 1] = item.shown.view(model)
        except MedMLLMError as error:
            found[number] = record_of(item, _failed(error))
    results = engine.read_several(list(requests.values()), model, views=views, cancel=cancel)
    errors = [one for one in results if isinstance(one, MedMLLMError)]
    down = [one for one in errors if isinstance(one, ModelError) and not isinstance(one, _OF_ITS_ITEM)]
    if down and len(down) == len(results):
        raise down[0]
    for number, result in zip(requests, results, strict=True):
        item = items[number]
        if isinstance(result, MedMLLMError):
            said = result.raw_replies if isinstance(result, ReplyError) else ()
            found[number] = record_of(item, _failed(result), reply=said[-1] if said else "")
            continue
        report = result.report
        found[number] = record_of(
            item,
            marks_of(item, report, result.slices),
            reply=report.raw_reply,
            prompt_sha256=report.provenance.prompt_sha256,
            seconds=report.provenance.seconds,
        )
    return [found[number] for number in range(len(items))]


_OF_ITS_ITEM = (ReplyError, TooManyPicturesError, TooManyTokensError)
"""Errors of a model that say something of one item, and nothing of the next."""


def unable(item: Item, model: Model) -> str | None:
    """Why a model was not made for an item, so that it abstains; None if it was."""
    able, asked = model.capabilities, task(item.task)
    if able.tasks is not None and asked.name not in able.tasks:
        return f"{model.name} was made for {', '.join(able.tasks)}, not for the task {asked.name}"
    if asked.needs_boxes and not able.boxes:
        return f"{model.name} can't point with boxes"
    if isinstance(item.shown, Nothing) and not able.text_only:
        return f"{model.name} answers about pictures only"
    if item.language not in able.languages:
        return f"{model.name} speaks {', '.join(able.languages)}, not {item.language}"
    shown = len(item.shown.files) if isinstance(item.shown, Pictures) else 0
    if shown > able.pictures:
        return f"{model.name} looks at {able.pictures} pictures at most, not at {shown}"
    return None


def _request(item: Item, model: Model, seed: int) -> Request:
    slices, priors = item.shown.show(model)
    return Request(
        task=task(item.task),
        slices=slices,
        priors=priors,
        question=item.question,
        choices=item.choices,
        history=item.history,
        language=item.language,
        seed=seed,
    )


def _failed(error: MedMLLMError) -> Marks:
    return Marks(verdict=Verdict.FAILED, answer=" ".join(str(error).split()))
