"""The commands of the node: `medmllm serve`, `medmllm studies`, `medmllm retry`."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medmllm_plugin.cli_common import config_option, json_option, print_json, print_lines
from medmllm_plugin.config import Settings, load

if TYPE_CHECKING:
    from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
    from medmllm_plugin.dicom_bridge.store import Store, StudyRow

STATES = (*("arriving", "kept", "complete", "reading", "reported", "delivering", "delivered", "parked"),)
"""Values of `dicom_bridge.states.State`, which is imported late."""


@click.command("serve")
@config_option
@click.option("--check", "check_only", is_flag=True, help="Check the settings, and start nothing.")
def serve_command(config: Path | None, check_only: bool) -> None:
    """Run the PACS node: studies in by DICOM, reports out.

    What it is told stands in the tables node, peers, outputs and rules of the settings file. What it has
    acknowledged is on disk, whatever happens; it goes on where it was when it is started again. It stops
    when it is interrupted or terminated, and gives back what it is reading.

    \b
    Examples:
      medmllm serve --config medmllm.toml --check
      medmllm serve --config medmllm.toml
    """  # noqa: D301
    settings, node = _settings(config)
    if check_only:
        print_lines(_described(node))
        return
    from medmllm_plugin.dicom_bridge.node import Node

    _log_to_stderr()
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with Node(node, settings) as running:
        print_lines([f"{node.ae_title} listens on {node.host}:{running.port}, node {node.node}"])
        sys.stdout.flush()
        while not stopping.wait(3600.0):
            pass
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
def retry_command(config: Path | None, names: tuple[str, ...]) -> None:
    """Have another try at studies: read again, or delivered again, whatever it is that failed.

    NAME is a study's key or UID, or the end of either; `parked` means all that are parked.
    """
    from medmllm_plugin.dicom_bridge.jobs import Jobs
    from medmllm_plugin.dicom_bridge.states import State

    with _store(config) as (node, store):
        jobs = Jobs(store, node=node.node, reachable=lambda: ())
        for name in names:
            for one in store.studies(State.PARKED) if name == "parked" else [store.named(name)]:
                print_lines([f"{one.key}: {jobs.retry(one)}"])


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


def _described(node: NodeSettings) -> list[str]:
    outputs = ", ".join(node.outputs) or "none: reports stay in the node's folder"
    rules = ", ".join(rule.name for rule in node.rules) or f"none: every study is {node.unmatched.value}"
    return [
        f"node {node.node} in {node.folder}, database {node.database_url.rpartition('@')[2]}",
        f"receives as {node.ae_title} on {node.host}:{node.port}",
        f"reads with {node.model}; rules: {rules}",
        f"outputs: {outputs}",
    ]


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("medmllm_plugin")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
