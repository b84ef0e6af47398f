"""The commands `medmllm slices` and `medmllm series`: what a model would see, without a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from medmllm_plugin.cli_common import (
    counted,
    json_option,
    modality_option,
    moved,
    paths_argument,
    plan_option,
    print_json,
    print_lines,
    series_option,
    volume_option,
)
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.outputs import check, whole_folder


@click.command("slices")
@paths_argument
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="OUT_DIR", required=True)
@plan_option
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Most pictures.")
@click.option("--size", type=click.IntRange(min=1), metavar="PX", help="Longer side of a picture.")
@click.option("--window", metavar="NAME", help="Such as ct-lung, ct-brain, percentile or header.")
@series_option
@volume_option
@modality_option
@json_option
def slices_command(
    paths: tuple[Path, ...],
    out: Path,
    plan: str | None,
    count: int | None,
    size: int | None,
    window: str | None,
    series: str | None,
    volume: str | None,
    modality: str | None,
    as_json: bool,
) -> None:
    """Write the pictures that a model would see.

    OUT_DIR gets 001.png and so on, 24 of 448 px unless told, and slices.json: for each picture its source
    image and the matrix from its pixels to millimetres in the patient (LPS). PLAN names a recipe (see --plan
    list) or settings of SlicePlan, such as select=every:5 (mm), select=around:X/Y/Z, select=body,
    plane=coronal, slab_mm=10, crop=yes, square=yes, labels=yes, tokens=8192; docs/python-api.md has them all.
    A place X/Y/Z is in LPS millimetres of the patient, such as center_mm of a finding in report.json.

    \b
    Examples:
      medmllm slices study -o pictures
      medmllm slices study -o pictures --count 32 --size 560 --window ct-lung
      medmllm slices study -o pictures --plan select=every:5,count=160,crop=yes,window=ct-lung+ct-bone
      medmllm slices study -o pictures --plan plane=coronal,slab_mm=10,select=body,labels=yes
      medmllm slices study -o pictures --plan overview+zoom
      medmllm slices --plan list
    """  # noqa: D301
    check(out, kind="slices", inputs=paths)
    from medmllm_plugin import pipeline
    from medmllm_plugin.console import shown_progress
    from medmllm_plugin.transforms.reading import read_volume
    from medmllm_plugin.transforms.recipes import settings_of
    from medmllm_plugin.transforms.slices import SlicePlan

    chosen: dict[str, Any] = {"count": count, "size": size, "window": window}
    asked = settings_of(plan) if plan is not None else {}
    made = SlicePlan(**asked | {name: value for name, value in chosen.items() if value is not None})
    with shown_progress(hidden=as_json) as progress:
        progress("reading", 0, 0)
        whole = read_volume(paths, series=series, modality=modality, volume=volume)
        slices = made.apply(whole, progress=lambda done, total: progress("pictures", done, total))
    with whole_folder(out, kind="slices") as part:
        files = moved(pipeline.write_slices(slices, part), part, out)
    if as_json:
        print_json({**slices.to_json(), "files": files})
    else:
        print_lines(
            [
                f"{slices.study.modality}: {slices.plan}",
                *(f"  - {note}" for note in slices.notes),
                f"Written to {out}: {counted(len(slices), 'picture')}, and slices.json",
            ]
        )


@click.command("series")
@paths_argument
@click.option("--pictures", type=click.IntRange(min=1), metavar="N", help="Most pictures of the study.")
@click.option(
    "--prior", multiple=True, metavar="PATH", type=click.Path(path_type=Path), help="An earlier study."
)
@click.option("--take", multiple=True, metavar="NAME", help="A series to show whatever the rules say.")
@click.option("--leave", multiple=True, metavar="NAME", help="A series to leave out.")
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="OUT_DIR", help="Write pictures there.")
@plan_option
@json_option
def series_command(
    paths: tuple[Path, ...],
    pictures: int | None,
    prior: tuple[Path, ...],
    take: tuple[str, ...],
    leave: tuple[str, ...],
    out: Path | None,
    plan: str | None,
    as_json: bool,
) -> None:
    """List a study's series: which to show, and why.

    It also says how many pictures each gets, 64 in all unless told; only headers are read. A series is named
    by its UID, the beginning or end of it, or its number. With -o the pictures of those to show are written
    as medmllm slices writes them, one folder for each series; PLAN says how, and its count and tokens are
    those of the whole study.

    \b
    Examples:
      medmllm series study
      medmllm series study --prior last_year --pictures 48
      medmllm series study --take 5 --leave 3 --json
      medmllm series study --prior last_year -o pictures --plan lingshu
    """  # noqa: D301
    from medmllm_plugin.transforms.study import PICTURES, plan_of

    if out is None:
        if plan is not None:
            raise SettingsError("--plan says how pictures are made, but none are written; add -o OUT_DIR")
        found = plan_of(paths, pictures=pictures or PICTURES, prior=prior, take=take, leave=leave)
        if as_json:
            print_json(found.to_json())
        else:
            print_lines(found.lines())
        return
    _write_study(paths, out, plan, pictures, {"prior": prior, "take": take, "leave": leave}, as_json=as_json)


def _write_study(
    paths: Iterable[Path],
    out: Path,
    plan: str | None,
    pictures: int | None,
    chosen: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """The pictures of a study, each series in a folder of its own."""
    check(out, kind="slices", inputs=paths)
    from medmllm_plugin import pipeline
    from medmllm_plugin.console import shown_progress
    from medmllm_plugin.transforms.recipes import settings_of
    from medmllm_plugin.transforms.slices import SlicePlan
    from medmllm_plugin.transforms.study import PICTURES, study_slices

    asked = {"count": PICTURES} | (settings_of(plan) if plan is not None else {})
    made = SlicePlan(**asked | ({} if pictures is None else {"count": pictures}))
    with shown_progress(hidden=as_json) as progress:
        sets = study_slices(
            list(paths), plan=made, progress=lambda done, total: progress("pictures", done, total), **chosen
        )
    if not sets:
        raise SettingsError("no series of this study is shown; medmllm series says why, and --take takes one")
    names = [
        f"{n}-{'prior-' * one.prior}{slices.study.modality.lower()}"
        for n, (one, slices) in enumerate(sets, 1)
    ]
    with whole_folder(out, kind="slices") as part:
        for name, (_, slices) in zip(names, sets, strict=True):
            (part / name).mkdir()
            pipeline.write_slices(slices, part / name)
    if as_json:
        series = [
            {"folder": str(out / n), **slices.to_json()} for n, (_, slices) in zip(names, sets, strict=True)
        ]
        print_json({"schema": "medmllm-study-slices/1", "series": series})
        return
    for name, (one, slices) in zip(names, sets, strict=True):
        pictures_of = f"{counted(len(slices), 'picture')} of {one.facts.label}"
        print_lines([f"{name}: {pictures_of}, {one.why}", f"  {slices.plan}"])
    total = sum(len(slices) for _, slices in sets)
    print_lines([f"Written to {out}: {counted(total, 'picture')}, and slices.json in each folder"])
