"""What a person wants read on request, and the reading of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medmllm_plugin import pipeline
from medmllm_plugin.dicom_bridge.opened_models import Models
from medmllm_plugin.errors import LostDeviceError, ModelError
from medmllm_plugin.models import Cancel
from medmllm_plugin.opening import Progress, open_study
from medmllm_plugin.place import Place
from medmllm_plugin.request import Exchange

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What is to be read, and how."""

    study_uid: str = ""
    """Of a study that is here; empty where a file was sent along."""
    prior_uid: str = ""
    """Of an earlier study that is here, to compare with."""
    file: str = ""
    """The name that the file has with us, which is ours."""
    series: str | None = None
    """Series Instance UID, its end, or its number."""
    modality: str | None = None
    """What a file that isn't DICOM shows, such as CT."""
    task: str | None = None
    question: str | None = None
    history: tuple[tuple[str, str], ...] = ()
    """Questions before, each with its answer."""
    model: str | None = None
    second: str | None = None
    """A second model that reads it too, see `two_eyes`."""
    strategy: str = "single"
    evidence: bool = False
    language: str = "en"
    seed: int = 0
    focus: tuple[str, ...] = ()
    """Keys of sites that alone are asked about."""
    place: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None
    """A place in the patient that is asked about, as `place.Place` has it: centre and size."""


def read_wish(
    wish: Wish,
    paths: Sequence[Path],
    *,
    prior: Path | None,
    models: Models,
    usual: str,
    progress: Progress,
    cancel: Cancel,
) -> pipeline.Reading:
    """Read what was wished for; once more, with the model opened again, where its GPU was lost over it.

    Args:
        wish: How it is read.
        paths: Where its images lie.
        prior: Where those of the earlier study lie.
        models: Of the node.
        usual: Which of them reads if the wish names none.
        progress: Called as the work goes on.
        cancel: Says when to stop.

    Returns:
        Without the second model's say where that fails, also the second time; its report says so.

    Raises:
        MedMLLMError: As `pipeline.read`.
    """
    once = partial(_read, wish, paths, prior, models, usual, progress, cancel)
    try:
        reading = once()
    except LostDeviceError as error:
        log.warning("%s; the model is opened again", error)
        return once()
    if not isinstance(reading.missed, LostDeviceError):
        return reading
    log.warning("%s; the second model is opened again", reading.missed)
    try:
        return once()
    except ModelError as error:
        log.warning("%s; the report goes out without the second model", error)
        return reading


def _read(
    wish: Wish,
    paths: Sequence[Path],
    prior: Path | None,
    models: Models,
    usual: str,
    progress: Progress,
    cancel: Cancel,
) -> pipeline.Reading:
    """Read it once; whatever model was lost over it is opened anew by whoever needs it next."""
    progress("model", 0, 0)
    name = wish.model or usual
    model = models.opened(name)
    second = models.opened(wish.second) if wish.second else None
    opened = open_study(
        paths,
        model=model,
        second=second,
        series=wish.series,
        modality=wish.modality,
        prior=prior,
        progress=progress,
    )
    try:
        reading = pipeline.ask(
            opened,
            task=wish.task,
            question=wish.question,
            history=[Exchange(question=one, answer=other) for one, other in wish.history],
            language=wish.language,
            strategy=wish.strategy,
            evidence=wish.evidence,
            focus=wish.focus,
            place=None if wish.place is None else Place(center_mm=wish.place[0], size_mm=wish.place[1]),
            seed=wish.seed,
            progress=progress,
            cancel=cancel,
        )
    except LostDeviceError:
        models.drop(name, model)
        raise
    if wish.second and second is not None and isinstance(reading.missed, LostDeviceError):
        models.drop(wish.second, second)
    return reading
