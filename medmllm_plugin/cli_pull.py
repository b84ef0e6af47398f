"""The command `medmllm pull`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medmllm_plugin.cli_common import config_option, counted, json_option, print_json, print_lines
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.outputs import check, whole_folder

if TYPE_CHECKING:
    from medmllm_plugin.dicom_bridge.retrieve import Archive, Came


@click.command("pull")
@click.argument("study_uid", metavar="UID")
@click.option(
    "--from",
    "source",
    required=True,
    metavar="PACS",
    help="AE@host:port, the address of a DICOMweb service, or a name of [peers] in the settings.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FOLDER", default=Path("study"), show_default=True
)
@click.option(
    "--priors",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    help="Earlier studies of the same patient to fetch as well, into FOLDER/prior-1 and so on.",
)
@click.option("--ae-title", metavar="AE", default="MEDMLLM", show_default=True, help="Our own title.")
@click.option(
    "--listen",
    metavar="AE@HOST:PORT",
    help="Have the PACS send by C-MOVE to this title of ours, where it must know us, rather than by C-GET.",
)
@click.option("--token-env", metavar="NAME", help="Environment variable with a DICOMweb service's token.")
@config_option
@json_option
def pull_command(
    study_uid: str,
    source: str,
    out: Path,
    priors: int,
    ae_title: str,
    listen: str | None,
    token_env: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Fetch a study from a PACS into a folder.

    The folder is there only when all of the study is: as many instances as the PACS counts, and none of
    another study. With --priors, the study itself lies in FOLDER/study.

    \b
    Examples:
      medmllm pull 1.2.840.113619.2.55.3 --from PACS@10.0.0.5:104 -o study
      medmllm pull 1.2.840.113619.2.55.3 --from https://pacs.example/dicom-web --priors 1
    """  # noqa: D301
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)+", study_uid) or len(study_uid) > 64:
        raise SettingsError("UID: found what is no UID, expected a Study Instance UID: digits and dots")
    check(out, kind="study")
    from medmllm_plugin.dicom_bridge.retrieve import priors_of

    with _opened(source, ae_title=ae_title, token_env=token_env, config=config) as archive:
        earlier = priors_of(archive, study_uid, most=priors) if priors else []
        wanted = {"study": study_uid}
        wanted |= {f"prior-{number}": one.study_uid for number, one in enumerate(earlier, start=1)}
        found: dict[str, int] = {}
        with whole_folder(out, kind="study") as part:
            for name, uid in wanted.items():
                folder = part / name if priors else part
                folder.mkdir(exist_ok=True)
                found[name] = _fetched(archive, uid, folder, listen=listen, hidden=as_json)
    if as_json:
        print_json({"folder": str(out), "instances": found})
        return
    print_lines(
        f"Written to {out / name if priors else out}: {counted(number, 'instance')}"
        for name, number in found.items()
    )
    if priors > len(earlier):
        print_lines([f"Found {counted(len(earlier), 'prior')}."])


@contextmanager
def _opened(source: str, *, ae_title: str, token_env: str | None, config: Path | None) -> Iterator[Archive]:
    from medmllm_plugin.config import load
    from medmllm_plugin.dicom_bridge.node_settings import peers_of
    from medmllm_plugin.dicom_bridge.retrieve import archive

    opened = archive(source, calling_ae=ae_title, peers=peers_of(load(config)), token_env=token_env)
    try:
        yield opened
    finally:
        opened.close()


def _fetched(archive: Archive, study_uid: str, folder: Path, *, listen: str | None, hidden: bool) -> int:
    """Write a study; how many instances it has."""
    from medmllm_plugin.console import shown_progress
    from medmllm_plugin.dicom_bridge.retrieve import peer_named
    from medmllm_plugin.dicom_bridge.retrieve.dimse import DimseArchive
    from medmllm_plugin.dicom_bridge.retrieve.moving import fetch_by_move

    with shown_progress(hidden=hidden) as progress:
        came: Came = lambda done, total: progress("pull", done, total or 0)  # noqa: E731
        if listen is None:
            return len(archive.fetch(study_uid, folder, came=came))
        if not isinstance(archive, DimseArchive):
            raise SettingsError(
                "--listen: found a DICOMweb service in --from, expected a PACS with C-MOVE; leave it out"
            )
        return len(fetch_by_move(archive, study_uid, folder, listen=peer_named(listen), came=came))
