"""Several samples of one question, and what most of them agree on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medmllm_plugin.asking import Answered, ask
from medmllm_plugin.errors import ReplyError, SettingsError
from medmllm_plugin.findings import Finding, Side, Status
from medmllm_plugin.models import Cancel, Model
from medmllm_plugin.parsing import Parsed
from medmllm_plugin.report import Answer, Heard
from medmllm_plugin.request import Request
from medmllm_plugin.strategies import Looked, Stages, View
from medmllm_plugin.strategies.merging import groups, medoid, narrative, told_apart, what, words

MOST = 32
"""Most samples."""

_Group = list[tuple[int, Finding]]
"""The same finding in several samples, each with the number of its sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Consistency:
    """Asks several times with drawn tokens and keeps what more than half of the samples say.

    Raises:
        SettingsError: If the number of samples or the temperature is out of range.
    """

    samples: int = 5
    temperature: float = 0.7
    """How freely tokens are drawn, see `Ask.temperature`."""

    summary = "several samples; what most of them agree on is kept, with the share that did"

    @property
    def name(self) -> str:
        """With the number of samples."""
        return f"consistency:{self.samples}"

    def __post_init__(self) -> None:
        if not 2 <= self.samples <= MOST:
            raise SettingsError(f"{self.samples} samples were asked for, expected 2 to {MOST}")
        if not 0 < self.temperature <= 2:
            raise SettingsError(
                f"samples are drawn at temperature {self.temperature:g}, expected above 0 to 2: "
                "at 0 all are the same"
            )

    def read(
        self,
        request: Request,
        model: Model,
        *,
        view: View | None = None,
        progress: Stages | None = None,
        cancel: Cancel | None = None,
    ) -> Looked:
        """Ask the same several times; see `Strategy.read`.

        Samples whose reply can't be used don't count; if none or one can be used, there is nothing to agree.
        """
        tell = None if progress is None else lambda done, most: progress(1, 1, done, most)
        answered = ask(
            [replace(request, seed=request.seed + k) for k in range(self.samples)],
            model,
            purpose="sample",
            temperature=self.temperature,
            progress=tell,
            cancel=cancel,
        )
        heard = tuple(one for each in answered for one in each.heard)
        usable = [one for one in answered if one.parsed is not None]
        if len(usable) < 2:
            raise ReplyError(
                f"{model.name}: {len(usable)} of {self.samples} samples can be used, expected 2 at least; "
                f"{next(one.problem for one in answered if one.parsed is None)}",
                raw_replies=tuple(one.text for one in heard),
            )
        return self._together(request, usable, heard)

    def _together(self, request: Request, usable: Sequence[Answered], heard: tuple[Heard, ...]) -> Looked:
        samples = [one.parsed for one in usable if one.parsed is not None]
        findings, notes = _majority([one.findings for one in samples])
        speaker = _speaker(samples, findings)
        answer = _answer([one.answer for one in samples], notes)
        if len(samples) < self.samples:
            unusable = self.samples - len(samples)
            notes.append(f"{unusable} of {self.samples} samples could not be used and don't count")
        said, number = usable[speaker].heard[-1], usable[speaker].request.seed - request.seed + 1
        return Looked(
            parsed=Parsed(
                findings=findings,
                narrative=narrative(findings),
                impression=samples[speaker].impression,
                notes=tuple(dict.fromkeys(note for one in samples for note in one.notes)),
                answer=answer,
                differential=samples[speaker].differential,
            ),
            request=request,
            heard=(*(one for one in heard if one is not said), said),
            notes=(
                f"read {len(samples)} times at temperature {self.temperature:g}: what most samples agree on "
                f"was kept, and the impression is that of sample {number}, which comes nearest to it",
                *notes,
                *dict.fromkeys(note for one in usable for note in one.notes),
            ),
        )


def _majority(samples: Sequence[Sequence[Finding]]) -> tuple[tuple[Finding, ...], list[str]]:
    """What more than half of the samples say, and what was said by fewer, in words.

    What most saw, but fewer than half as surely present, is indeterminate. What most say, but no half of them
    at one place, is kept once: they agree on it and not on where it is.
    """
    kept, notes, few = list[Finding](), list[str](), list[_Group]()
    for group in groups(samples):
        agreed = _agreed(group, total=len(samples), notes=notes)
        if agreed is None:
            few.append(group)
        else:
            kept.append(agreed)
    for group in _by_kind(few):
        agreed = _agreed(group, total=len(samples), notes=notes)
        if agreed is not None:
            kept.append(agreed)
            notes.append(f"{words(agreed)}: most samples say it, but not at one place")
            continue
        seen = [one for _, one in group if one.status is not Status.ABSENT]
        if seen:
            count = len({number for number, one in group if one.status is not Status.ABSENT})
            notes.append(f"left out {words(seen[0])}: {count} of {len(samples)} samples saw it")
    return told_apart(kept), notes


def _by_kind(few: Sequence[_Group]) -> list[_Group]:
    """Groups of one kind of finding together, wherever they are; of each sample the first."""
    joined: dict[tuple[str, str, Side], dict[int, Finding]] = {}
    for group in few:
        for number, one in group:
            joined.setdefault(what(one), {}).setdefault(number, one)
    return [list(members.items()) for members in joined.values()]


def _agreed(group: _Group, *, total: int, notes: list[str]) -> Finding | None:
    """The finding as more than half of the samples have it; None if no more than half have."""
    by_status = {status: [one for _, one in group if one.status is status] for status in Status}
    for status in (Status.PRESENT, Status.ABSENT):
        if 2 * len(by_status[status]) > total:
            share = len(by_status[status]) / total
            return replace(medoid(by_status[status]), agreement=round(share, 4))
    seen = [*by_status[Status.INDETERMINATE], *by_status[Status.PRESENT]]
    if 2 * len(seen) <= total:
        return None
    best = replace(medoid(seen), status=Status.INDETERMINATE, agreement=round(len(seen) / total, 4))
    sure = len(by_status[Status.PRESENT])
    notes.append(f"{words(best)} is indeterminate: {len(seen)} of {total} samples saw it, {sure} surely")
    return best


def _speaker(samples: Sequence[Parsed], kept: Sequence[Finding]) -> int:
    """The sample whose findings are nearest to what was kept: the fewest missing and the fewest more."""

    def off(sample: Parsed) -> int:
        said = Counter((one.finding, one.site, one.side, one.status) for one in sample.findings)
        agreed = Counter((one.finding, one.site, one.side, one.status) for one in kept)
        return ((said - agreed) + (agreed - said)).total()

    return min(range(len(samples)), key=lambda number: off(samples[number]))


def _answer(answers: Sequence[Answer | None], notes: list[str]) -> Answer | None:
    """The answer that most samples give; of an open question, in the same words."""
    given = [one for one in answers if one is not None]
    if not given:
        return None
    keys = [one.choice or " ".join(one.text.casefold().split()) for one in given]
    key, count = Counter(keys).most_common(1)[0]
    notes.append(f"the answer was given by {count} of {len(answers)} samples")
    return given[keys.index(key)]
