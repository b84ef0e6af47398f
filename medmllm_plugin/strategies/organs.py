"""A study gone through organ by organ, as a checklist has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medmllm_plugin.asking import Answered, ask
from medmllm_plugin.checklists import Step, steps_for
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.findings import Finding, Status
from medmllm_plugin.models import Cancel, Model
from medmllm_plugin.parsing import Parsed
from medmllm_plugin.request import Request
from medmllm_plugin.strategies import Looked, Stages, View
from medmllm_plugin.strategies.merging import groups, medoid, narrative, told_apart
from medmllm_plugin.strategies.sentences import NOTHING, UNUSABLE, sentence, site_name
from medmllm_plugin.tasks import task


@dataclass(frozen=True, kw_only=True, slots=True)
class Organs:
    """Asks about the organs one by one, all on the same pictures, and puts the replies together."""

    region: str | None = None
    """The part of the body, as `checklists.regions` names it; None to ask the model for it first."""

    summary = "organ by organ through a checklist, on the same pictures"

    @property
    def name(self) -> str:
        """With the part of the body, if it was said."""
        return "organs" if self.region is None else f"organs:{self.region}"

    def read(
        self,
        request: Request,
        model: Model,
        *,
        view: View | None = None,
        progress: Stages | None = None,
        cancel: Cancel | None = None,
    ) -> Looked:
        """Ask about each organ; see `Strategy.read`.

        Raises:
            SettingsError: If the task is about one thing only, the model takes no words of ours, or there is
                no checklist for the modality or region.
        """
        if not request.task.whole:
            raise SettingsError(
                f"the task {request.task.name} asks one thing, so it isn't gone through organ by organ; "
                "leave out --strategy"
            )
        if model.capabilities.terse:
            raise SettingsError(
                f"{model.name} was trained on one short prompt and can't be asked about single organs; "
                "use --strategy single or consistency, or name another model"
            )
        modality, told = request.slices.study.modality, progress or (lambda number, passes, done, most: None)
        known = steps_for(modality, region=self.region, sites=model.capabilities.sites)
        if not known:
            raise SettingsError(
                f"there is no checklist for {modality} that {model.name} could be led through; "
                "use another --strategy"
            )
        passes, first, steps = 1, list[Answered](), known
        if len({step.region for step in known}) > 1:
            passes = 2
            first = ask(
                [replace(request, task=task("modality"), focus=(), question=None, priors=())],
                model,
                purpose="part of the body",
                progress=lambda done, most: told(1, 2, done, most),
                cancel=cancel,
            )
            steps = _of_region(known, first[0])
        answered = ask(
            [replace(request, focus=step.sites) for step in steps],
            model,
            purpose="organ",
            progress=lambda done, most: told(passes, passes, done, most),
            cancel=cancel,
        )
        return _together(request, steps, first, answered, model)


def _of_region(steps: tuple[Step, ...], first: Answered) -> tuple[Step, ...]:
    """The steps of the part of the body that the model names; all where it names none of them."""
    if first.parsed is None:
        return steps
    said = json.loads(first.heard[-1].text)["modality"]["region"]
    return tuple(step for step in steps if step.site == said) or steps


def _together(
    request: Request,
    steps: Sequence[Step],
    first: Sequence[Answered],
    answered: Sequence[Answered],
    model: Model,
) -> Looked:
    replies = [one.parsed for one in answered if one.parsed is not None]
    if not any(_found(one) for one in replies):
        # what was not assessed may not pass for what is not there
        replies = [one.usable(model) for one in answered]
    joined = groups([one.findings for one in replies])
    findings = told_apart(_one_of([one for _, one in group]) for group in joined)
    doubled, unusable = sum(len(group) > 1 for group in joined), len(answered) - len(replies)
    regions = dict.fromkeys(step.region for step in steps)
    gone = ", ".join(step.name for step in steps)
    notes = [f"read organ by organ ({', '.join(regions)}) in {len(steps)} steps: {gone}"]
    if doubled:
        notes.append(f"findings given in more than one step are stated once: {doubled}")
    if unusable:
        notes.append(f"{unusable} of {len(steps)} steps gave no usable reply: these organs were not assessed")
    return Looked(
        parsed=Parsed(
            findings=findings,
            narrative=narrative(findings),
            impression=_impression(steps, answered, language=request.language),
            notes=tuple(dict.fromkeys(note for one in replies for note in one.notes)),
        ),
        request=request,
        heard=tuple(one for each in [*first, *answered] for one in each.heard),
        notes=(*notes, *dict.fromkeys(note for one in answered for note in one.notes)),
    )


def _one_of(members: Sequence[Finding]) -> Finding:
    """Of the same finding in several steps the one that sees it, rather than one that doesn't."""
    for status in (Status.PRESENT, Status.INDETERMINATE):
        seen = [one for one in members if one.status is status]
        if seen:
            return medoid(seen)
    return members[0]


def _impression(steps: Sequence[Step], answered: Sequence[Answered], *, language: str) -> tuple[str, ...]:
    """What was concluded where something was found, then where nothing was, and what was not assessed."""
    found, nothing, unusable = list[str](), list[str](), list[str]()
    for step, one in zip(steps, answered, strict=True):
        name = site_name(step.sites[0], language=language)
        if one.parsed is None:
            unusable.append(name)
        elif _found(one.parsed):
            found += one.parsed.impression
        else:
            nothing.append(name)
    for words, names in ((NOTHING, nothing), (UNUSABLE, unusable)):
        if names:
            found.append(sentence(words, names, language=language))
    return tuple(dict.fromkeys(found))


def _found(one: Parsed) -> bool:
    return any(finding.status is not Status.ABSENT for finding in one.findings)
