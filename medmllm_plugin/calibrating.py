"""Measures what a model's certainties are worth: phantoms whose truth is known, read, and each finding judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medmllm_plugin.evidence import examine
from medmllm_plugin.models import Model
from medmllm_plugin.phantoms.study import PhantomStudy
from medmllm_plugin.request import Request
from medmllm_plugin.scoring import compare
from medmllm_plugin.strategies.single import Single
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.views import views_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A finding that a model said to be present, and whether it is."""

    finding: str
    score: float
    """Its raw certainty."""
    right: bool
    supported: bool | None = None
    """The verdict of the evidence pass; None if there was none."""
    trials: tuple[tuple[str, str], ...] = ()


def scored(study: PhantomStudy, model: Model, *, evidence: bool) -> tuple[Scored, ...]:
    """The findings of a phantom as a model gives them, before any calibration."""
    views = views_of(model, study.volume())
    looked = Single().read(Request(task=TASKS["report"], slices=views.slices), model)
    said = looked.parsed.findings
    comparison = compare(study, said)
    right = {id(pair.said) for pair in comparison.pairs}
    after = examine(looked, model, view=views.again).parsed.findings if evidence else said
    present = {id(one) for one in (*(pair.said for pair in comparison.pairs), *comparison.false)}
    return tuple(
        Scored(
            finding=one.finding,
            score=one.certainty,
            right=id(one) in right,
            supported=tried.image_supported,
            trials=tuple((t.trial.value, t.effect.value) for t in tried.trials),
        )
        for one, tried in zip(said, after, strict=True)
        if id(one) in present and one.certainty is not None
    )
