"""The series of a study as a model is shown them: at first, with fewer pictures, and once more from near."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise
from typing import Any

from medmllm_plugin.errors import GeometryError, SettingsError
from medmllm_plugin.models import Model
from medmllm_plugin.place import Place
from medmllm_plugin.resampled import Source, layers
from medmllm_plugin.sliceset import SliceSet, joined
from medmllm_plugin.transforms.attributes import text
from medmllm_plugin.transforms.looks import window_names
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.transforms.study import share
from medmllm_plugin.transforms.study_plan import PlannedSeries
from medmllm_plugin.transforms.window import PRESETS
from medmllm_plugin.volume import Volume

Progress = Callable[[int, int], None]
"""Called with (slices read, slices in all)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shown:
    """One series as it is shown."""

    volume: Volume
    plan: SlicePlan
    slices: SliceSet
    words: str = ""
    """What sets it apart from other series of the study, see `sliceset.Part.words`."""
    prior: bool = False
    """Whether it is of an earlier study."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Views:
    """All series that are shown, those of the study before those of its prior."""

    series: tuple[Shown, ...]
    most: int | None = None
    """How many pictures the model turned out to take, a prior's included; None while it took all."""

    @property
    def current(self) -> tuple[Shown, ...]:
        """The series of the study itself."""
        return tuple(one for one in self.series if not one.prior)

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """Those of the study itself."""
        return tuple(one.volume for one in self.current)

    @property
    def slices(self) -> SliceSet:
        """The pictures of the study itself."""
        return _joined(self.current)

    @property
    def priors(self) -> tuple[SliceSet, ...]:
        """The pictures of the earlier study, if there is one."""
        before = [one for one in self.series if one.prior]
        if not before:
            return ()
        days = _days_between(before[0].volume, self.current[0].volume)
        return (replace(_joined(before), days_before=days),)

    @property
    def pictures(self) -> int:
        """How many pictures there are in all."""
        return sum(len(one.slices) for one in self.series)

    def again(self, settings: Mapping[str, Any]) -> SliceSet:
        """Other pictures of the study itself.

        Args:
            settings: Of `SlicePlan`, in place of those of the series' own plans; `count` is for all series
                together. Three more: `sources`, the slices to show (`Slice.source` of pictures shown before;
                of a slab all that it is made of); `neighbours`, how many beside each on both sides; and
                `between`, to show in place of each source the slice half way to the next, where there is one.
                Where these are more than `count`, the first sources are shown.

        Raises:
            SettingsError: If the settings can't be joined to a plan.
            ValueError: If none of the sources is a slice of the study.
        """
        asked = dict(settings)
        sources, beside = asked.pop("sources", None), asked.pop("neighbours", 0)
        between = asked.pop("between", False)
        if self.most is not None:
            room = self.most - sum(map(len, self.priors))
            asked["count"] = min(asked.get("count") or room, room)
        made = []
        for one, count in zip(self.current, _shares(asked.get("count"), self.current), strict=True):
            plan = changed(one.plan, one.volume, {**asked, "count": count})
            if sources is not None:
                wide = asked.get("count") or plan.usual_count
                chosen = _numbers(plan, one.volume, sources, beside=beside, most=wide)
                if not chosen:
                    continue
                chosen = _half_way(chosen) if between else chosen
                pictures = len(chosen) * len(window_names(plan.window, one.volume)[0])
                plan = replace(
                    plan,
                    select="numbers:" + "/".join(map(str, chosen)),
                    count=pictures,
                    zoom=None if plan.zoom_count >= pictures else plan.zoom,
                )
            made.append(replace(one, plan=plan, slices=plan.apply(one.volume)))
        if not made:
            raise ValueError("none of the slices asked for is of the study")
        return _joined(made)

    def at(self, place: Place) -> Views:
        """A place in the study itself, with what surrounds it, by the series' own plans.

        Args:
            place: In millimetres of the patient; a series that doesn't show it isn't shown.

        Raises:
            GeometryError: If no series shows it.
        """
        made, why = [], list[GeometryError]()
        for one in self.current:
            plan = replace(
                one.plan, select=place.selector, part=place.part, crop=False, zoom=None, montage=None
            )
            try:
                made.append(replace(one, plan=plan, slices=plan.apply(one.volume)))
            except GeometryError as error:
                why.append(error)
        if not made:
            raise why[0]
        return Views(series=tuple(made), most=self.most)

    def fewer(self, pictures: int) -> Views:
        """The same series with so many pictures in all at most, by their plans.

        Raises:
            SettingsError: If not every series can have a picture.
        """
        if pictures < len(self.series):
            raise SettingsError(
                f"{len(self.series)} series are to be shown, but {pictures} pictures are allowed; show fewer"
            )
        counts = [1] * len(self.series)
        for _ in range(min(pictures, self.pictures) - len(counts)):
            shares = [len(one.slices) / count for one, count in zip(self.series, counts, strict=True)]
            counts[shares.index(max(shares))] += 1
        plans = [
            changed(one.plan, one.volume, {"count": count})
            for one, count in zip(self.series, counts, strict=True)
        ]
        return Views(
            series=tuple(
                replace(one, plan=plan, slices=plan.apply(one.volume))
                for one, plan in zip(self.series, plans, strict=True)
            ),
            most=pictures,
        )


def views_of(
    model: Model,
    volume: Volume,
    *,
    count: int | None = None,
    asked: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Views:
    """One series as it suits a model; arguments and errors as of `plans_for`."""
    plans = plans_for(model, volume, count=count, asked=asked)
    plan, slices = _suiting(model, volume, plans, progress)
    return Views(series=(Shown(volume=volume, plan=plan, slices=slices),))


def views_of_study(
    model: Model,
    taken: Sequence[tuple[PlannedSeries, Volume]],
    *,
    count: int | None = None,
    asked: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Views:
    """Several series, each with its share of what suits a model.

    Args:
        model: Who is shown them.
        taken: The series, as `transforms.study.read_study` gives them.
        count: As `plans_for`.
        asked: As `plans_for`.
        progress: Called as slices are read.

    Raises:
        SettingsError: As `plans_for`, or if the model was trained on one series only.
    """
    if len(taken) == 1:
        return views_of(model, taken[0][1], count=count, asked=asked, progress=progress)
    if model.capabilities.terse:
        raise SettingsError(
            f"{model.name} was trained on one series and can't be shown {len(taken)}; leave out --study and "
            "--prior, or name another model"
        )
    total, done, made = sum(one.pictures for one, _ in taken), 0, []
    for one, volume in taken:
        plans = [
            share(plan, one, volume, total) for plan in plans_for(model, volume, count=count, asked=asked)
        ]
        plan, slices = _suiting(model, volume, plans, _from(progress, done, total))
        done += len(slices)
        made.append(Shown(volume=volume, plan=plan, slices=slices, words=_words(one), prior=one.prior))
    return Views(series=tuple(made))


def budget_of(model: Model, *, count: int | None = None, asked: Mapping[str, Any] | None = None) -> int:
    """How many pictures of a study suit a model, all series together; arguments as of `plans_for`."""
    return _plan(model, model.capabilities.plan, "", count, asked or {}).usual_count


def plan_for(
    model: Model, volume: Volume, *, count: int | None = None, asked: Mapping[str, Any] | None = None
) -> SlicePlan:
    """The slice plan that suits a model, as far as the volume allows it: the first of `plans_for`."""
    return plans_for(model, volume, count=count, asked=asked)[0]


def plans_for(
    model: Model, volume: Volume, *, count: int | None = None, asked: Mapping[str, Any] | None = None
) -> tuple[SlicePlan, ...]:
    """The slice plans that may suit a model, as far as the volume allows them.

    Several where the model has plans of its own for kinds of studies of this modality and nothing says which
    kind the volume is.

    Args:
        model: The model; its own plans and its limits of pictures and tokens count.
        volume: What is shown.
        count: Most pictures; None for what suits the model.
        asked: Settings of `SlicePlan` that a user asked for; they stand before the model's own.

    Raises:
        SettingsError: If the model's own plan is not one, or the settings can't be joined to one.
    """
    plans = [
        _plan(model, own, volume.unit, count, asked or {})
        for own in model.capabilities.plans_for(volume.study)
    ]
    return tuple(dict.fromkeys(plans))


def changed(plan: SlicePlan, volume: Volume, settings: Mapping[str, Any]) -> SlicePlan:
    """A plan with some settings changed; what can't go with them or the volume's values is left out."""
    asked = {"zoom": None, "montage": None, **settings} if set(settings) - {"count"} else dict(settings)
    if asked.get("window") in PRESETS and volume.unit != "HU":
        del asked["window"]
    if asked.get("count", plan.count) is None:
        asked["count"] = plan.count
    if plan.zoom is not None and "zoom" not in asked and plan.zoom_count >= asked["count"]:
        asked["zoom"] = None
    return replace(plan, **asked)


def shown_to(
    model: Model, volume: Volume, *, plans: Sequence[SlicePlan], progress: Progress | None = None
) -> SliceSet:
    """A volume as the first plan shows it that keeps it in the model's domain; if none does, as the first."""
    return _suiting(model, volume, plans, progress)[1]


def _suiting(
    model: Model, volume: Volume, plans: Sequence[SlicePlan], progress: Progress | None
) -> tuple[SlicePlan, SliceSet]:
    first: tuple[SlicePlan, SliceSet] | None = None
    for plan in plans:
        slices = plan.apply(volume, progress=progress)
        if len(plans) == 1 or model.outside_domain(slices) is None:
            return plan, slices
        first = first or (plan, slices)
    if first is None:
        raise ValueError("to show a volume needs a plan")
    return first


def _plan(
    model: Model, settings: Mapping[str, Any], unit: str, count: int | None, asked: Mapping[str, Any]
) -> SlicePlan:
    able, own = model.capabilities, dict(settings)
    if own.get("window") in PRESETS and unit != "HU":
        del own["window"]
    if able.tokens is not None:
        own.setdefault("tokens", able.tokens)
    joined: dict[str, Any] = {**own, **asked}
    joined.setdefault("count", min(SlicePlan().usual_count, able.pictures))
    if count is not None:
        joined["count"] = count
    try:
        plan = SlicePlan(**joined)
    except TypeError as error:
        raise SettingsError(f"{model.name}: its slice plan {joined} is not one ({error})") from error
    return plan if plan.count is not None else replace(plan, count=min(plan.usual_count, able.pictures))


def _shares(count: int | None, series: Sequence[Shown]) -> Iterator[int | None]:
    """How many pictures each series may have, by how many slices it has."""
    total = sum(len(one.volume) for one in series)
    for one in series:
        yield None if count is None else max(1, count * len(one.volume) // total)


def _numbers(
    plan: SlicePlan, volume: Volume, sources: Sequence[Source], *, beside: int, most: int
) -> list[int]:
    """Numbers of the slices of a volume, from 1, that sources are, with their neighbours."""
    numbers = {plane.source: k for k, plane in enumerate(plan.cut(volume).planes, 1)}
    parts = (part for source in sources for part in (source, *layers(source)))
    wanted = [numbers[part] for part in parts if part in numbers]
    near = [k + side * step for step in range(1, beside + 1) for k in wanted for side in (-1, 1)]
    chosen = list(dict.fromkeys([*wanted, *(k for k in near if 1 <= k <= len(numbers))]))
    return sorted(chosen[: max(1, most // len(window_names(plan.window, volume)[0]))])


def _half_way(numbers: Sequence[int]) -> list[int]:
    """Each of rising numbers moved half way to the next; the last stays, as do those with none between.

    >>> _half_way([1, 5, 6, 9])
    [3, 5, 7, 9]
    """
    return [*(k + (after - k) // 2 for k, after in pairwise(numbers)), numbers[-1]]


def _joined(series: Sequence[Shown]) -> SliceSet:
    return joined([one.slices for one in series], words=[one.words for one in series])


def _words(one: PlannedSeries) -> str:
    """What sets a series apart: weighting, contrast and phase, never free text."""
    facts = one.facts
    known = [facts.weighting.upper() if len(facts.weighting) <= 5 else facts.weighting]
    if facts.phase:
        known.append(facts.phase if facts.phase == "native" else f"{facts.phase} phase")
    elif facts.contrast:
        known.append("with contrast")
    return " ".join(filter(None, known))


def _from(progress: Progress | None, done: int, total: int) -> Progress | None:
    return None if progress is None else lambda read, _: progress(done + read, total)


def _days_between(before: Volume, after: Volume) -> int | None:
    """Days from one study to a later one by Study Date (0008,0020); None if either has none."""
    dates = []
    for volume in (before, after):
        try:
            dates.append(date.fromisoformat(text(volume.headers[0], "StudyDate")))
        except (IndexError, ValueError):
            return None
    return (dates[1] - dates[0]).days
