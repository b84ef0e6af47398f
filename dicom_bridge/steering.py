"""What a person may ask for a study: to be read first, read again, or held; each is an event with its why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from medmllm_plugin import codes, tasks
from medmllm_plugin.config import Settings
from medmllm_plugin.dicom_bridge.cleaning import FORGOTTEN
from medmllm_plugin.dicom_bridge.completion import images_of
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
from medmllm_plugin.dicom_bridge.rules import Priority
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Store, StudyRow, digest_of
from medmllm_plugin.dicom_bridge.tables import studies
from medmllm_plugin.errors import CodeError, SettingsError

WAITING = (State.ARRIVING, State.COMPLETE)
AT_REST = (State.KEPT, State.PARKED, State.DELIVERED)
"""States of a study that nothing is done with by itself."""

WISHES = ("task", "model", "second", "strategy", "evidence", "language", "outputs")
"""What of a study's plan a person may choose."""


def model_names(settings: NodeSettings, config: Settings) -> tuple[str, ...]:
    """The models that a person may choose: those of the settings, and no path or address of their own."""
    of_rules = (name for rule in settings.rules for name in rule.models)
    return tuple(dict.fromkeys((settings.model, *of_rules, *config.models, "embedded")))


def check_wishes(wishes: Mapping[str, Any], settings: NodeSettings, models: tuple[str, ...]) -> None:
    """See that what a person chooses is there.

    Raises:
        SettingsError: If a task, model or output isn't.
    """
    if wishes.get("task"):
        tasks.task(str(wishes["task"]))
    for field in ("model", "second"):
        name = wishes.get(field)
        if name and name not in models:
            raise SettingsError(
                f"{field}: found {str(name)[:100]!r}, expected one of {', '.join(models)}; others must be "
                "named in the node's settings first"
            )
    for key in wishes.get("focus") or ():
        try:
            codes.site(str(key))
        except CodeError:
            raise SettingsError(
                f"focus: found {str(key)[:100]!r}, expected keys of sites in codes.toml, such as lung"
            ) from None
    for name in wishes.get("outputs") or ():
        if name not in settings.outputs:
            raise SettingsError(
                f"outputs: found {str(name)[:100]!r}, expected one of {', '.join(settings.outputs) or 'none'}"
            )


def prioritise(store: Store, study: StudyRow, priority: Priority) -> bool:
    """Have a study read before others, or no longer so; False if it isn't waiting to be read."""
    value = int(priority is not Priority.STAT)
    with store.engine.begin() as connection:
        waiting = (studies.c.study_uid == study.study_uid) & (studies.c.state == State.COMPLETE.value)
        if connection.execute(select(studies.c.key).where(waiting).with_for_update()).first() is None:
            return False
        connection.execute(studies.update().where(waiting).values(priority=value))
        store.record(connection, study.study_uid, "asked", {"priority": priority.value})
    return True


def hold(store: Store, study: StudyRow) -> bool:
    """Have nothing done with a study until a person asks for it; False if it isn't waiting or parked."""
    return any(
        store.move(study.study_uid, State.KEPT, "a person holds it", at=at, owner="")
        for at in (State.COMPLETE, State.PARKED)
    )


def read_again(store: Store, study: StudyRow, wishes: Mapping[str, Any]) -> bool:
    """Have a study read, first of all that wait; a report on it is amended.

    Args:
        store: Of the studies.
        study: One at rest.
        wishes: Values of `WISHES`, checked; what isn't in it stays as it was.

    Returns:
        False if the study isn't at rest, or has no images.
    """
    images = images_of(store.instances(study.study_uid))
    if not images:
        return False
    chosen = {name: wishes[name] for name in WISHES if wishes.get(name) is not None}
    for at in AT_REST:
        with store.engine.begin() as connection:
            moved = store.moved(
                connection,
                study.study_uid,
                State.COMPLETE,
                "a person asked for it",
                at=at,
                owner="",
                attempts=0,
                not_before=0.0,
                priority=0,
                digest=digest_of(images),
                plan={**{name: said for name, said in study.plan.items() if name != FORGOTTEN}, **chosen},
            )
            if moved:
                store.record(connection, study.study_uid, "asked", {"read": chosen})
                return True
    return False
