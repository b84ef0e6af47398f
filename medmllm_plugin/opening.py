"""A study opened for a model: read, chosen from, and made into pictures; nothing is asked yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from medmllm_plugin import registry
from medmllm_plugin.config import Settings
from medmllm_plugin.errors import (
    SettingsError,
    TooLittleMemoryError,
    TooManyPicturesError,
    TooManyTokensError,
)
from medmllm_plugin.models import Model
from medmllm_plugin.priors import Earlier, earlier_findings
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.recipes import settings_of
from medmllm_plugin.transforms.study import read_study
from medmllm_plugin.views import Views, budget_of, views_of, views_of_study

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); stages are `reading`, `pictures`, `model`, `thinking`, `report`. Where a
model is asked in several passes `thinking` is followed by which, such as `thinking 2/5`."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Opened:
    """A study as it is shown to a model, to be asked about once or often."""

    model: Model
    views: Views
    earlier: tuple[Earlier, ...] = ()
    """What the report of the prior study says."""
    planned: bool = False
    """Whether a user said how the pictures are to be made."""
    notes: tuple[str, ...] = ()
    """What a reader must know of how many pictures the model turned out to take."""
    second: Opened | None = None
    """The same study as it is shown to a second model, see `two_eyes`."""


def open_study(
    paths: Sequence[Path | str] | Path | str,
    *,
    model: str | Model = "embedded",
    second: str | Model | None = None,
    series: str | None = None,
    volume: int | str | None = None,
    modality: str | None = None,
    count: int | None = None,
    plan: str | None = None,
    study: bool = False,
    prior: Path | str | None = None,
    prior_report: Path | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Opened:
    """Read the images of a study and make the pictures that suit a model; nothing is asked yet.

    Args:
        paths: What to read, one study.
        model: A name that `registry.open_model` knows, or a model.
        second: A second one that reads the study too, shown what suits it; None for none.
        series: Which series: its UID, the end of it, or its number; None chooses and says why.
        volume: Of a series or file of several volumes which one, as `read_volume` takes it.
        modality: What a NIfTI, NRRD or MetaImage file shows, such as CT, since it doesn't say.
        count: Most pictures, all series and a prior together; None for what suits the model.
        plan: How pictures are chosen and made, as `transforms.recipes.settings_of` takes it; None for what
            suits the model.
        study: Whether all series worth showing are shown, not one only.
        prior: An earlier study of the same patient, to compare with.
        prior_report: Its `report.json` or findings SR: what is found again keeps its tracking UID.
        settings: Where models have names of the user's; None for the file that `config.load` finds.
        progress: Called as the work goes on.

    Raises:
        MedMLLMError: One of its branches, see `errors`.
    """
    tell = progress or (lambda stage, done, total: None)
    asked = settings_of(plan) if plan is not None else {}
    places = [Path(one) for one in ([paths] if isinstance(paths, Path | str) else paths)]
    if prior_report is not None and prior is None:
        raise SettingsError("an earlier report was given without the images of its study; give --prior too")
    if study and not (series is volume is modality is None):
        raise SettingsError("all series of a study are shown, so none can be named; leave out either")
    if prior is not None and volume is not None:
        raise SettingsError("beside a prior study a volume of a series can't be named; leave out either")
    tell("reading", 0, 1)
    if study or prior is not None:
        reader = open_model(model, settings, tell)
        taken = read_study(
            places,
            pictures=budget_of(reader, count=count, asked=asked),
            prior=[] if prior is None else [Path(prior)],
            single=not study,
            series=series,
            modality=modality,
        )
        tell("reading", 1, 1)
        show = partial(views_of_study, taken=taken, count=count, asked=asked, progress=_pictures(tell))
    else:
        whole = read_volume(places, series=series, modality=modality, volume=volume)
        tell("reading", 1, 1)
        reader = open_model(model, settings, tell)
        show = partial(views_of, volume=whole, count=count, asked=asked, progress=_pictures(tell))
    views = show(reader)
    tell("pictures", views.pictures, views.pictures)
    earlier: tuple[Earlier, ...] = ()
    if prior_report is not None:
        before = next((one.volume.study for one in views.series if one.prior), None)
        uid = None if before is None else before.study_instance_uid
        earlier = earlier_findings(prior_report, study_instance_uid=uid)
    planned = plan is not None or count is not None
    opened = Opened(model=reader, views=views, earlier=earlier, planned=planned)
    if second is None:
        return opened
    other = open_model(second, settings, tell)
    return replace(opened, second=Opened(model=other, views=show(other), planned=planned))


def open_model(model: str | Model, settings: Settings | None, tell: Progress) -> Model:
    """The model of a name, or the model itself, telling the stage `model`; errors as of `registry`."""
    tell("model", 0, 1)
    opened = registry.open_model(model, settings=settings) if isinstance(model, str) else model
    tell("model", 1, 1)
    return opened


def fewer(
    views: Views, error: TooManyPicturesError | TooManyTokensError | TooLittleMemoryError
) -> Views | None:
    """The pictures of a study by the same plans, as many as a model takes; None if that can't be.

    Args:
        views: What it was shown.
        error: What it says of it.
    """
    total = views.pictures
    if isinstance(error, TooManyPicturesError):
        pictures = min(error.limit, total - 1)
    elif isinstance(error, TooManyTokensError):
        pictures = _within_tokens(error, views)
    else:
        pictures = total // 2
    if pictures < max(1, len(views.series)):
        return None
    return views.fewer(pictures)


def _within_tokens(error: TooManyTokensError, views: Views) -> int:
    """How many pictures leave room for what is too much; half of them where that isn't told."""
    total = views.pictures
    if error.found is None:
        return total // 2
    squares = [
        one.pixels.shape[0] * one.pixels.shape[1] / each.plan.multiple**2
        for each in views.series
        for one in each.slices.slices
    ]
    left = 1 - 1.05 * (error.found - error.limit) / sum(squares)
    return min(total - 1, int(total * left))


def _pictures(tell: Progress) -> Callable[[int, int], None]:
    return lambda done, total: tell("pictures", done, total)
