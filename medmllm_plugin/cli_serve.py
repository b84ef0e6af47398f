"""The commands of the node: `medmllm serve`, `medmllm studies`, `medmllm retry`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medmllm_plugin.cli_common import config_option, json_option, print_json, print_lines
from medmllm_plugin.config import Settings, load
from medmllm_plugin.errors import SettingsError

if TYPE_CHECKING:
    from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
    from medmllm_plugin.dicom_bridge.store import Store, StudyRow

STATES = (*("arriving", "kept", "complete", "reading", "reported", "delivering", "delivered", "parked"),)
"""Values of `dicom_bridge.states.State`, which is imported late."""


@click.command("serve")
@config_option
@click.argument("study", required=False, type=click.Path(path_type=Path))
@click.option("--check", "check_only", is_flag=True, help="Check the settings, and start nothing.")
@click.option("--peers", is_flag=True, help="With --check: ask other systems for an echo, too.")
@click.option(
    "--reload", "reload_only", is_flag=True, help="Have the node that runs read its settings again."
)
@click.option("--calling-ae", metavar="AE", default="", help="With STUDY: as whom its sender would call.")
@json_option
def serve_command(
    study: Path | None,
    config: Path | None,
    check_only: bool,
    peers: bool,
    reload_only: bool,
    calling_ae: str,
    as_json: bool,
) -> None:
    """Run the PACS node: studies in by DICOM, reports out.

    What it is told stands in the tables node, peers, outputs, rules and pulls of the settings file. What it
    has acknowledged is on disk, whatever happens; it goes on where it was when it is started again. It stops
    when it is interrupted or terminated, and gives back what it is reading.

    --check looks at all that it needs and starts nothing; with STUDY, a folder, it tells which rule would
    fire for that study, and why.

    --reload, or the signal SIGHUP, has a node that runs go by the file as it is now: rules, outputs, peers,
    models, who may send. A file that is wrong is refused as a whole, and nothing changes.

    \b
    Examples:
      medmllm serve --config medmllm.toml --check --peers
      medmllm serve --config medmllm.toml --check STUDY
      medmllm serve --config medmllm.toml
      medmllm serve --config medmllm.toml --reload
    """  # noqa: D301
    settings, node = _settings(config)
    if check_only:
        from medmllm_plugin.cli_serve_check import tell

        sys.exit(tell(settings, node, study, calling_ae=calling_ae, peers=peers, as_json=as_json))
    if study is not None or peers or calling_ae or as_json:
        raise click.UsageError("STUDY, --peers, --calling-ae and --json go with --check.")
    if reload_only:
        from medmllm_plugin.dicom_bridge.reloading import reload

        print_lines([f"The node {node.node} goes by its settings as they are now: {reload(node)}."])
        return
    from medmllm_plugin.dicom_bridge.allocator import share_arenas
    from medmllm_plugin.dicom_bridge.auditing import audit_trail
    from medmllm_plugin.dicom_bridge.node import Node
    from medmllm_plugin.dicom_bridge.node_logging import log_to
    from medmllm_plugin.dicom_bridge.signals import Signals

    share_arenas()
    log_to(sys.stderr, node.log)
    with ExitStack() as opened:  # all of it is opened before any of it starts
        told = opened.enter_context(Signals([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
        running = opened.enter_context(closing(Node(node, settings)))
        opened.enter_context(audit_trail(node, running.store))
        page = None
        if node.http_port is not None:
            from medmllm_plugin.dicom_bridge.http_server import HttpServer

            page = opened.enter_context(closing(HttpServer(running)))
        running.start()
        print_lines([f"{node.ae_title} listens on {node.host}:{running.port}, node {node.node}"])
        if page is not None:
            page.start()
            print_lines([f"its status page: {page.url}"])
        sys.stdout.flush()
        while told.next() == signal.SIGHUP:
            with suppress(SettingsError):  # which the log tells, and whoever asked for it
                running.reload()
        print_lines(["stopping"])


@click.command("studies")
@config_option
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@json_option
def studies_command(config: Path | None, state: str | None, as_json: bool) -> None:
    """List the studies of the node: where each is, since when, and why.

    A study is called by a key that names nobody; where it is, the node need not run.
    """
    from medmllm_plugin.dicom_bridge.states import State

    with _store(config) as (_, store):
        found = store.studies(*([] if state is None else [State(state)]))
    if as_json:
        print_json([asdict(one) for one in found])
        return
    print_lines(map(_line, found))


@click.command("retry")
@config_option
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@json_option
def retry_command(config: Path | None, names: tuple[str, ...], as_json: bool) -> None:
    """Have another try at studies: read again, or delivered again, whatever it is that failed.

    NAME is a study's key or UID, or the end of either; `parked` means all that are parked.
    """
    from medmllm_plugin.dicom_bridge.jobs import Jobs
    from medmllm_plugin.dicom_bridge.states import State

    with _store(config) as (node, store):
        jobs = Jobs(store, node=node.node, reachable=lambda: ())
        meant = [
            one
            for name in names
            for one in (store.studies(State.PARKED) if name == "parked" else [store.named(name)])
        ]
        done = {one.key: jobs.retry(one) for one in meant}
    if as_json:
        print_json(done)
    else:
        print_lines([f"{key}: {said}" for key, said in done.items()])


def _settings(config: Path | None) -> tuple[Settings, NodeSettings]:
    from medmllm_plugin.dicom_bridge.node_settings import node_settings

    settings = load(config)
    return settings, node_settings(settings)


@contextmanager
def _store(config: Path | None) -> Iterator[tuple[NodeSettings, Store]]:
    from medmllm_plugin.dicom_bridge.salt import salt_of
    from medmllm_plugin.dicom_bridge.store import Store
    from medmllm_plugin.dicom_bridge.tables import open_database

    _, node = _settings(config)
    engine = open_database(node.database_url)
    try:
        yield node, Store(engine, salt=salt_of(node))
    finally:
        engine.dispose()


def _line(one: StudyRow) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.since))
    return f"{one.key}  {one.state.value:<10}  {since}  {one.reason}"
