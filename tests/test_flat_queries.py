"""What a node asks of its database for a study is found by an index, however many came before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.states import State
from tests.chat_server import serving
from tests.node_runner import SENDER, a_study, one_in, send, settings_for, wait_for

SMALL = ("medmllm_nodes", "medmllm_steps")
"""Tables of as many rows as there are nodes, and one that is looked through once an hour."""


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
def test_no_step_of_a_study_looks_through_a_whole_table(tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def hear(connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "FROM medmllm_" in statement:
            asked.setdefault(statement, values)

    with serving(pictures=64) as server:
        settings = settings_for(tmp_path, model=f"chat:{server.url}")
        with Node(settings) as node:
            wait_for(lambda: node.store.studies() == [])
            event.listen(node.engine, "before_cursor_execute", hear)
            send(node.port, a_study(tmp_path / "study"))
            wait_for(lambda: one_in(node.store, State.DELIVERED))
            event.remove(node.engine, "before_cursor_execute", hear)
            with node.engine.connect() as connection:
                plans = {
                    statement: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
                    for statement, values in asked.items()
                }

    through_all = {
        statement: step.detail
        for statement, steps in plans.items()
        for step in steps
        if step.detail.startswith("SCAN medmllm_") and not step.detail.endswith(SMALL)
    }
    assert len(plans) > 10
    assert through_all == {}
