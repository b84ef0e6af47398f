"""Looks after studies that arrive: gathers evidence, and moves on those that are complete, by the rules."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmllm_plugin.dicom_bridge import completion
from medmllm_plugin.dicom_bridge.cleaning import FORGOTTEN
from medmllm_plugin.dicom_bridge.completion import Evidence
from medmllm_plugin.dicom_bridge.jobs import Jobs
from medmllm_plugin.dicom_bridge.layout import lay_out
from medmllm_plugin.dicom_bridge.made_reports import AS_IT_CAME, PASSED_ON
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, Unmatched
from medmllm_plugin.dicom_bridge.rules import Action, Decision, Priority, Rule, Series, decide, keywords
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.steps import StepState, steps_of
from medmllm_plugin.dicom_bridge.store import Instance, Store, StudyRow, digest_of
from medmllm_plugin.dicom_bridge.stowing import CALLING
from medmllm_plugin.errors import MedMLLMError

log = logging.getLogger(__name__)

ALWAYS = Rule(name="", when={}, unless={})
"""For a study that no rule fits, where those are read."""

REMOVED = "images of it were removed by age; send the whole study again, then: medmllm retry"
"""Why a study is parked to which more came after its spool was cleaned."""

_MOST_ENDED = 10_000
"""Studies of which it is known when the last request that brought some of them was over."""

MOST_SENDERS = 1000
"""Senders whose last release is remembered; anybody may call by any title."""

Count = Callable[[str], int | None]
"""How many instances a PACS has of a study; None if it doesn't say."""


@dataclass(kw_only=True, slots=True)
class _Seen:
    """A study as it was looked at."""

    last_received: float
    since: float
    """When that was first seen, by a clock that never jumps."""
    evidence: Evidence | None = None


class Watch:
    """The studies of one node that arrive."""

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        settings: NodeSettings,
        *,
        count: Count | None = None,
        completed: Callable[[], None] = lambda: None,
        forwarded: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what is needed.

        Args:
            store: Of the studies.
            jobs: Of this node.
            settings: Of this node.
            count: Asks a PACS how many instances a study has; it may raise what it likes of ours.
            completed: Called when a study is to be read.
            forwarded: Called when a study is to be sent on as it came.
            clock: Seconds, never back.
        """
        self._store, self._jobs, self._settings = store, jobs, settings
        self._count, self._clock = count, clock
        self._completed, self._forwarded = completed, forwarded
        self._seen: dict[str, _Seen] = {}
        self._released: dict[str, float] = {}
        self._on_the_web: Counter[str] = Counter()
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, settings: NodeSettings) -> None:
        """Go by other settings from the next look on."""
        self._settings = settings

    def released(self, calling_ae: str) -> None:
        """A sender ended its association in order."""
        with self._lock:
            self._released.pop(calling_ae, None)
            self._released[calling_ae] = time.time()
            if len(self._released) > MOST_SENDERS:
                del self._released[next(iter(self._released))]

    def sending(self, study_uid: str) -> None:
        """A request of STOW-RS begins to bring instances of a study."""
        with self._lock:
            self._on_the_web[study_uid] += 1

    def sent(self, studies: Iterable[str], *, whole: bool) -> None:
        """A request of STOW-RS that brought instances of these studies is over, whole or broken off."""
        with self._lock:
            for one in studies:
                self._on_the_web[one] -= 1
                if self._on_the_web[one] <= 0:
                    del self._on_the_web[one]
                if whole:
                    self._ended[one] = time.time()
                    self._ended.move_to_end(one)
            while len(self._ended) > _MOST_ENDED:
                self._ended.popitem(last=False)

    def look(self) -> float:
        """Move on what is complete.

        Returns:
            Seconds until there is something to look at again, unless something comes.
        """
        mine = [one for one in self._store.studies(State.ARRIVING) if one.owner == self._settings.node]
        for gone in self._seen.keys() - {one.study_uid for one in mine}:
            del self._seen[gone]
        return min((self._look_at(one) for one in mine), default=60.0)

    def _look_at(self, study: StudyRow) -> float:
        seen = self._seen.get(study.study_uid)
        if seen is None or seen.last_received != study.last_received:
            seen = _Seen(last_received=study.last_received, since=self._clock())
            self._seen[study.study_uid] = seen
        silent = self._clock() - seen.since
        first = min(self._settings.evidence_quiet_s, self._settings.quiet_s) / 2
        if silent < first:
            return first - silent
        if not study.study_uid:
            return self._left_alone(study, "its instances don't say which study they are of", silent)
        instances = self._store.instances(study.study_uid)
        images = completion.images_of(instances)
        if len(instances) > self._settings.study_instances:
            return self._left_alone(
                study, f"it has more than {self._settings.study_instances} instances", silent
            )
        if not images:
            return self._without_images(study, silent)
        if study.plan.get(FORGOTTEN):
            return self._left_alone(study, REMOVED, silent)
        if self._is_known(study, instances):
            return 0.0
        if not all((self._settings.folder / "spool" / one.node / one.segment).exists() for one in images):
            return self._left_alone(study, REMOVED, silent)
        try:
            if seen.evidence is not None and seen.evidence.instances != len(instances):
                seen.evidence = None
            return self._judge(study, seen, instances, silent)
        except MedMLLMError as error:
            log.error("study %s can't be looked at: %s", study.key, error)
            return 10.0

    def _left_alone(self, study: StudyRow, reason: str, silent: float, state: State = State.PARKED) -> float:
        wait = self._settings.quiet_s - silent
        if wait > 0:
            return wait
        self._store.move(study.study_uid, state, reason, at=State.ARRIVING, by=self._settings.node)
        return 0.0

    def _without_images(self, study: StudyRow, silent: float) -> float:
        """Go on with a study that there is nothing to read of: no rule is about it."""
        to = self._settings.forward_to
        if to is None or silent < self._settings.quiet_s:
            return self._left_alone(study, "there is no image in it", silent, State.KEPT)
        self._forward(study, [to], "there is no image in it, and it is forwarded")
        return 0.0

    def _is_known(self, study: StudyRow, instances: list[Instance]) -> bool:
        """Go on with a study whose report is about just these images already, such as when that came back."""
        report = self._jobs.report(study.study_uid, study.version) if study.version else None
        if report is None or report.digest != digest_of(completion.images_of(instances)):
            return False
        reason = "what came changes nothing of its report"
        to = study.plan.get(PASSED_ON)
        passed = self._jobs.report(study.study_uid, AS_IT_CAME) if to else None
        if to and (passed is None or passed.digest != digest_of(instances)):
            if self._jobs.forward(study, to, reason, plan=study.plan):
                self._forwarded()
        elif self._store.move(study.study_uid, State.DELIVERING, reason, at=State.ARRIVING):
            self._jobs.close_deliveries(study.study_uid)
        return True

    def _judge(self, study: StudyRow, seen: _Seen, instances: list[Instance], silent: float) -> float:
        settings, images = self._settings, completion.images_of(instances)
        files = lay_out(images, settings.folder / "spool", images_folder(settings, study.key))
        headers = completion.first_headers(images, files, keywords(settings.rules))
        if seen.evidence is None:
            counted = self._counted(study) or completion.counted_in(headers)
            seen.evidence = Evidence(
                instances=len(instances), counted=counted, missing=completion.missing_in(files)
            )
        verdict = completion.judge(
            Evidence(
                instances=seen.evidence.instances,
                counted=seen.evidence.counted,
                missing=seen.evidence.missing,
                released=self._are_done(study, images),
                silent_s=silent,
                **self._listed(study.study_uid, instances),
            ),
            quiet_s=settings.quiet_s,
            evidence_quiet_s=settings.evidence_quiet_s,
        )
        if verdict.reason is None:
            return min(verdict.wait_s, 1.0)
        first = {one.series_uid: one for one in reversed(images)}
        firsts = [first[uid] for uid in dict.fromkeys(one.series_uid for one in images)]
        series = [completion.said_by(header, one) for header, one in zip(headers, firsts, strict=True)]
        self._complete(study, images, series, verdict.reason)
        return 0.0

    def _counted(self, study: StudyRow) -> int | None:
        if self._count is None:
            return None
        try:
            return self._count(study.study_uid)
        except MedMLLMError as error:
            log.warning("study %s can't be counted: %s", study.key, error)
            return None

    def _listed(self, study_uid: str, instances: Iterable[Instance]) -> dict[str, Any]:
        """What modalities and archives say of a study, as evidence."""
        said = steps_of(self._store, study_uid)
        here = {one.sop_instance_uid for one in instances}
        listed = {uid for one in said for uid in one.instances}
        return {
            "in_progress": any(one.state is StepState.IN_PROGRESS for one in said),
            "listed": len(listed) if listed else None,
            "lacking": len(listed - here),
        }

    def _are_done(self, study: StudyRow, images: Iterable[Instance]) -> bool:
        with self._lock:
            web = 0.0 if self._on_the_web[study.study_uid] else self._ended.get(study.study_uid, 0.0)
            return all(
                (web if one.calling_ae == CALLING else self._released.get(one.calling_ae, 0.0))
                >= study.last_received
                for one in images
            )

    def _complete(self, study: StudyRow, images: list[Instance], series: list[Series], reason: str) -> None:
        settings = self._settings
        decision = decide(settings.rules, series, settings.matching)
        if decision is None and settings.forward_to is not None:
            self._forward(study, [settings.forward_to], f"no rule fits it, and it is forwarded; {reason}")
            return
        if decision is None and settings.unmatched == Unmatched.READ:
            decision = Decision(rules=(ALWAYS,), read=ALWAYS)
        if decision is None or decision.action is Action.KEEP:
            plan = {} if decision is None else plan_of(decision.rules[0])
            why = "no rule fits it" if decision is None else f"{decision.names} keeps it"
            self._move_on(study, images, State.KEPT, why, {"completed": reason, **plan})
        elif decision.read is None:
            why = f"{decision.names} forward{'s' * (len(decision.rules) == 1)} it; {reason}"
            self._forward(study, decision.forwards, why, decision)
        else:
            plan = {"completed": reason, **plan_of(decision.read), **_named(decision)}
            priority = int(decision.read.priority is not Priority.STAT)
            if decision.forwards:
                plan[PASSED_ON] = list(decision.forwards)
                reason = f"{reason}; its images go to {', '.join(decision.forwards)}"
            self._move_on(study, images, State.COMPLETE, reason, plan, priority=priority)

    def _move_on(
        self,
        study: StudyRow,
        images: list[Instance],
        to: State,
        reason: str,
        plan: dict[str, Any],
        **values: Any,
    ) -> None:
        """Have a study kept or read, and passed on beside that."""
        values = {**values, "owner": "", "digest": digest_of(images)}
        forwards = plan.get(PASSED_ON)
        if forwards:
            moved = self._jobs.forward(study, forwards, reason, plan=plan, to=to, **values)
            self._forwarded()
        else:
            moved = self._store.move(
                study.study_uid, to, reason, at=State.ARRIVING, by=self._settings.node, plan=plan, **values
            )
        if moved and to is State.COMPLETE:
            self._completed()

    def _forward(
        self, study: StudyRow, destinations: Sequence[str], reason: str, decision: Decision | None = None
    ) -> None:
        plan = {"completed": reason, **_named(decision), "forward": True}
        if self._jobs.forward(study, destinations, reason, plan=plan):
            self._forwarded()


def _named(decision: Decision | None) -> dict[str, Any]:
    """What is kept of the rules that count."""
    if decision is None:
        return {}
    names = [one.name for one in decision.rules]
    return {"rule": (decision.read or decision.rules[0]).name, **({"rules": names} if names[1:] else {})}


def plan_of(rule: Rule) -> dict[str, Any]:
    """What is kept of a rule with a study that it fits."""
    return {
        "rule": rule.name,
        "task": rule.task,
        "model": rule.model,
        "second": rule.second,
        "strategy": rule.strategy,
        "evidence": rule.evidence,
        "language": rule.language,
        "prior": rule.prior,
        "outputs": None if rule.outputs is None else list(rule.outputs),
    }


def images_folder(settings: NodeSettings, key: str) -> Path:
    """Where a node lays out the images of a study."""
    return settings.folder / "work" / settings.node / key
