"""Routes about the studies of a node: what is where, why, its reports, and what a person asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from medmllm_plugin.dicom_bridge import http_files, listing, steering
from medmllm_plugin.dicom_bridge.jobs import ReportRow
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.rules import Priority
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import StudyRow

Version = Annotated[int | None, Query(ge=1, description="of the report; the newest if not given")]


class Wishes(BaseModel):
    """How a study is to be read; what isn't given stays as its rule has it."""

    model_config = ConfigDict(extra="forbid")

    task: str | None = Field(None, max_length=64)
    model: str | None = Field(None, max_length=200, description="one of `models` of GET /api/node")
    second: str | None = Field(
        None, max_length=200, description="a model of the same list that reads it too: two eyes"
    )
    strategy: str | None = Field(None, max_length=64)
    evidence: bool | None = None
    language: str | None = Field(None, max_length=16)
    outputs: list[str] | None = Field(None, max_length=64, description="names of destinations")


class Named(BaseModel):
    """A study by its UID."""

    model_config = ConfigDict(extra="forbid")

    study: str = Field(max_length=64, description="its Study Instance UID")


class Urgency(BaseModel):
    """How urgent a study is."""

    model_config = ConfigDict(extra="forbid")

    priority: Priority


def router(node: Node) -> APIRouter:
    """The routes, for a node."""
    routes = APIRouter(prefix="/api/studies", tags=["studies"])
    store = node.store

    def study_of(key: str) -> StudyRow:
        study = listing.keyed(store, key)
        if study is None:
            raise HTTPException(404, "found no study of that key; see GET /api/studies")
        return study

    def folder_of(key: str, version: int | None) -> tuple[ReportRow, Path]:
        for row in listing.report_rows(store, study_of(key).study_uid):
            if version in (None, row.version):
                return row, node.settings.folder / row.folder
        raise HTTPException(404, "found no report of that version on the study")

    @routes.get("", summary="List studies, those that changed last first")
    def studies(
        state: Annotated[list[State] | None, Query(description="only those in these states")] = None,
        limit: Annotated[int, Query(ge=1, le=listing.MOST)] = 50,
        after: Annotated[str | None, Query(max_length=80, description="`next` of the page before")] = None,
    ) -> dict[str, Any]:
        """`studies`, `next` (None on the last page), and `counts` of all studies by state."""
        try:
            found = listing.page(store, states=state or (), limit=limit, after=after)
        except (ValueError, OverflowError) as error:
            raise HTTPException(400, "found another `after` than a page gave; leave it out") from error
        return {**found, "counts": listing.counts(store)}

    @routes.post("/find", summary="The key of a study by its UID, which no address shall hold")
    def find(asked: Named) -> dict[str, str]:
        """`key`, by which all else is asked; 404 if there is no such study here."""
        found = store.study(asked.study)
        if found is None:
            raise HTTPException(404, "found no such study here")
        return {"key": found.key}

    @routes.get("/{key}", summary="A study: reports, deliveries, findings, and all that happened to it")
    def study(key: str) -> dict[str, Any]:
        """As in the list, and more; `report` is the newest report in short, None before there is one."""
        found = study_of(key)
        rows = listing.report_rows(store, found.study_uid)
        said = http_files.brief(node.settings.folder / rows[0].folder) if rows else None
        return {**listing.whole(store, found), "report": said}

    @routes.get("/{key}/report", summary="A report as JSON", response_class=Response)
    def report(key: str, version: Version = None) -> Response:
        """`report.json`, as docs/reading.md has it."""
        return http_files.report(folder_of(key, version)[1])

    @routes.get("/{key}/report.html", summary="A report as a page with its pictures", response_class=Response)
    def page(key: str, version: Version = None) -> Response:
        """One page that loads nothing and runs nothing."""
        return http_files.page(folder_of(key, version)[1])

    @routes.get("/{key}/objects/{name:path}", summary="A DICOM object", response_class=Response)
    def dicom_object(key: str, name: str, version: Version = None) -> Response:
        """By its `file` in `reports` of the study, such as `findings.dcm`."""
        row, folder = folder_of(key, version)
        return http_files.dicom_object(folder, name, [one.file for one in row.objects])

    @routes.get("/{key}/pictures/{number}", summary="A picture that the model saw", response_class=Response)
    def picture(key: str, number: int, version: Version = None) -> Response:
        """PNG, by its number from 1."""
        return http_files.picture(folder_of(key, version)[1], number)

    @routes.post("/{key}/retry", summary="Another try at a study that is parked, waits, or is delivered")
    def retry(key: str) -> dict[str, str]:
        """What was refused is delivered again; else it is read again."""
        found = study_of(key)
        if found.state is State.DELIVERED:
            raise _not_now(found, "it is delivered; POST .../read has it read again")
        return {"done": node.jobs.retry(found)}

    @routes.post("/{key}/priority", summary="Have it read first, or no longer so")
    def priority(key: str, urgency: Urgency) -> dict[str, str]:
        """Of a study that waits to be read."""
        found = study_of(key)
        if not steering.prioritise(store, found, urgency.priority):
            raise _not_now(found, "only one that waits to be read (complete) has a place in the line")
        return {"done": f"its priority is {urgency.priority.value}"}

    @routes.post("/{key}/hold", summary="Do nothing with it until a person asks for it")
    def hold(key: str) -> dict[str, str]:
        """Of a study that waits to be read, or is parked."""
        found = study_of(key)
        if not steering.hold(store, found):
            raise _not_now(found, "only one that waits to be read or is parked can be held")
        return {"done": "it is kept, and nothing is done with it"}

    @routes.post("/{key}/read", summary="Have it read, also with another task or model")
    def read(key: str, wishes: Wishes) -> dict[str, str]:
        """Of a study that is kept, parked or delivered; a report on it is amended by a new version."""
        found, said = study_of(key), wishes.model_dump(exclude_none=True)
        steering.check_wishes(said, node.settings, steering.model_names(node.settings, node.config))
        if not steering.read_again(store, found, said):
            raise _not_now(found, "only one with images that is kept, parked or delivered can be read again")
        return {"done": "it is read as soon as may be"}

    return routes


def _not_now(study: StudyRow, words: str) -> HTTPException:
    return HTTPException(409, f"found the study {study.state.value}: {words}")
