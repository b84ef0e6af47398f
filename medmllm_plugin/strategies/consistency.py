"""Several samples of one question, and what most of them agree on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from medmllm_plugin.asking import Answered, ask
from medmllm_plugin.errors import ReplyError, SettingsError
from medmllm_plugin.findings import Finding, Status
from medmllm_plugin.models import Cancel, Model
from medmllm_plugin.parsing import Parsed
from medmllm_plugin.report import Answer, Heard
from medmllm_plugin.request import Request
from medmllm_plugin.strategies import Looked, Stages, View
from medmllm_plugin.strategies.merging import groups, medoid, narrative, told_apart, words

MOST = 32
"""Most samples."""


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
        return self._agreed(request, usable, heard)

    def _agreed(self, request: Request, usable: Sequence[Answered], heard: tuple[Heard, ...]) -> Looked:
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

    What most saw, but fewer than half as surely present, is indeterminate.
    """
    kept, notes, total = [], [], len(samples)
    for group in groups(samples):
        by_status = {status: [one for _, one in group if one.status is status] for status in Status}
        seen = [*by_status[Status.INDETERMINATE], *by_status[Status.PRESENT]]
        for status in (Status.PRESENT, Status.ABSENT):
            if 2 * len(by_status[status]) > total:
                share = len(by_status[status]) / total
                kept.append(replace(medoid(by_status[status]), agreement=round(share, 4)))
                break
        else:
            if 2 * len(seen) > total:
                best = replace(medoid(seen), status=Status.INDETERMINATE)
                kept.append(replace(best, agreement=round(len(seen) / total, 4)))
                notes.append(
                    f"{words(best)} is indeterminate: {len(seen)} of {total} samples saw it, "
                    f"{len(by_status[Status.PRESENT])} of them surely"
                )
            elif seen:
                notes.append(f"left out {words(seen[0])}: {len(seen)} of {total} samples saw it")
    return told_apart(kept), notes


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
