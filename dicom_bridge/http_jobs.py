"""Routes about readings on request: submit, follow, cancel, and fetch what was read."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from medmllm_plugin.dicom_bridge import http_files, listing, steering
from medmllm_plugin.dicom_bridge.http_stow import IDLE_S
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.on_request import ENDED, FILES, Desk, Job, JobState, file_end
from medmllm_plugin.dicom_bridge.wishes import Wish
from medmllm_plugin.place import Place, Triple

EVENT_S = 0.2
"""How often the progress of a job is looked at while somebody follows it, seconds."""
ALIVE_S = 10.0
"""How often a stream says something, so that nobody takes it for dead, seconds."""


class Exchanged(BaseModel):
    """A question before, and its answer."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(max_length=4000)
    answer: str = Field(max_length=20_000)


class Where(BaseModel):
    """A place in the patient, such as a mark that somebody put into the images."""

    model_config = ConfigDict(extra="forbid")

    center_mm: Triple = Field(description="LPS millimetres: x to the left, y to the back, z to the head")
    size_mm: Triple = Field((30.0, 30.0, 30.0), description="along the same axes")


class How(BaseModel):
    """How something is read; everything has a default."""

    model_config = ConfigDict(extra="forbid")

    task: str | None = Field(None, max_length=64, description="one of `tasks` of GET /api/node")
    question: str | None = Field(None, max_length=4000, description="the user's own, if the task takes one")
    history: list[Exchanged] = Field(default=[], max_length=50, description="questions before on the same")
    model: str | None = Field(None, max_length=200, description="one of `models` of GET /api/node")
    second: str | None = Field(
        None, max_length=200, description="a model of the same list that reads it too: two eyes"
    )
    series: str | None = Field(None, max_length=64, description="Series Instance UID, its end, or its number")
    modality: str | None = Field(None, max_length=16, description="what a file that isn't DICOM shows: CT")
    strategy: str = Field("single", max_length=64)
    evidence: bool = Field(False, description="whether each finding is put to the test with changed pictures")
    language: str = Field("en", max_length=16)
    seed: int = Field(0, ge=0, lt=2**31)
    focus: list[str] = Field(default=[], max_length=50, description="keys of sites: nothing else is asked")
    place: Where | None = Field(None, description="what is asked about; `series` says in which frame it is")


class OfStudy(How):
    """A reading of a study that is here."""

    study: str = Field(max_length=64, description="its Study Instance UID or its key")
    prior: str | None = Field(None, max_length=64, description="an earlier one, to compare with: UID or key")


def router(node: Node, desk: Desk, ending: threading.Event) -> APIRouter:
    """The routes, for a node and its desk, until it ends."""
    routes = APIRouter(prefix="/api/jobs", tags=["jobs"])

    def job_of(name: str) -> Job:
        job = desk.job(name)
        if job is None:
            raise HTTPException(404, "found no job of that id; it may be too old, or be deleted")
        return job

    def done(name: str) -> Job:
        job = job_of(name)
        if job.state is not JobState.DONE:
            raise HTTPException(409, f"found the job {job.state.value}, expected done; {job.error or 'wait'}")
        return job

    def study_uid(name: str) -> str:
        study = listing.keyed(node.store, name) or node.store.study(name)
        if study is None:
            raise HTTPException(404, "found no such study here; send it first, by DICOM or STOW-RS")
        return study.study_uid

    def checked(how: How) -> dict[str, Any]:
        if not desk.has_room():
            raise HTTPException(503, "too many jobs wait; try again later", {"Retry-After": "30"})
        said = how.model_dump(exclude={"study", "prior", "history", "place"})
        steering.check_wishes(said, node.settings, steering.model_names(node.settings, node.config))
        place = None
        if how.place is not None:
            checked = Place(center_mm=how.place.center_mm, size_mm=how.place.size_mm)
            place = checked.center_mm, checked.size_mm
        history = tuple((one.question, one.answer) for one in how.history)
        return {**said, "focus": tuple(how.focus), "place": place, "history": history}

    @routes.get("", summary="List jobs, the newest first")
    def jobs() -> dict[str, Any]:
        """`jobs`, as GET /api/jobs/{id} tells each."""
        return {"jobs": [told(one) for one in desk.jobs()]}

    @routes.post("", status_code=202, summary="Have a study read that is here")
    def submit(asked: OfStudy) -> dict[str, Any]:
        """Answers with the job. The study's own way through the node, by its rules, goes on beside it."""
        values = checked(asked)
        uid = study_uid(asked.study)
        prior = study_uid(asked.prior) if asked.prior else ""
        return told(desk.submit(Wish(**values, study_uid=uid, prior_uid=prior)))

    @routes.post(
        "/upload",
        status_code=202,
        summary="Have a file read that is sent along",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def upload(
        request: Request,
        name: Annotated[str, Query(max_length=300, description=f"the file's name, for its end: {FILES}")],
        how: Annotated[str, Query(max_length=30_000, description="JSON of `How`")] = "{}",
    ) -> dict[str, Any]:
        """The body is the file as it is: NIfTI, NRRD, MetaImage, a zip of DICOM, or a DICOM file.

        Only DICOM can be answered with DICOM objects; the others name no patient and study to make them for.
        """
        end = file_end(name)
        if end is None:
            raise HTTPException(415, f"name: found another end of it, expected one of {', '.join(FILES)}")
        try:
            asked = How.model_validate_json(how)
        except ValidationError as error:
            raise HTTPException(400, f"how: {one_line(error)}") from error
        values = checked(asked)
        if not node.room():
            raise HTTPException(503, "there is no room on the disk; try again later", {"Retry-After": "60"})
        folder, file = desk.new_folder(), f"upload{end}"
        try:
            size = 0
            with (folder / file).open("xb") as target:
                async for piece in _pieces(request):
                    size += len(piece)
                    if size > node.settings.instance_bytes:
                        raise HTTPException(
                            413, f"found more than {node.settings.instance_bytes} bytes; send a smaller file"
                        )
                    await anyio.to_thread.run_sync(target.write, piece)
            if not size:
                raise HTTPException(400, "found an empty body, expected the file")
            return told(desk.submit(Wish(**values, file=file), folder))
        except OSError as error:
            desk.drop(folder)
            raise HTTPException(503, f"the file can't be kept ({error.strerror}); try again later") from error
        except BaseException:
            desk.drop(folder)
            raise

    @routes.get("/{name}", summary="How far a job is")
    def job(name: str) -> dict[str, Any]:
        """`state` is waiting, reading, done, failed (with `error`) or cancelled; `stage` what is done now."""
        return told(job_of(name))

    @routes.get("/{name}/events", summary="Follow a job (SSE)", response_class=StreamingResponse)
    async def events(name: str) -> StreamingResponse:
        """Events `progress` whenever something changed, then one `end`, each with the job as its data."""
        found = job_of(name)
        return StreamingResponse(_followed(found, ending), media_type="text/event-stream")

    @routes.delete("/{name}", summary="Cancel a job; of one that ended, delete it")
    def cancel(name: str) -> dict[str, Any]:
        """The model is stopped between two tokens; nothing is left of the reading."""
        found = job_of(name)
        if found.state in ENDED:
            desk.forget(found)
        else:
            desk.cancel(found)
        return told(found)

    @routes.get("/{name}/report", summary="The report as JSON", response_class=Response)
    def report(name: str) -> Response:
        """`report.json`, as docs/reading.md has it."""
        return http_files.report(desk.result(done(name)))

    @routes.get("/{name}/report.html", summary="The report as a page", response_class=Response)
    def page(name: str) -> Response:
        """One page that loads nothing and runs nothing."""
        return http_files.page(desk.result(done(name)))

    @routes.get("/{name}/objects/{file:path}", summary="A DICOM object", response_class=Response)
    def dicom_object(name: str, file: str) -> Response:
        """By its name in `objects` of the job, such as `findings.dcm`."""
        found = done(name)
        return http_files.dicom_object(desk.result(found), file, found.objects)

    @routes.get("/{name}/pictures/{number}", summary="A picture that the model saw", response_class=Response)
    def picture(name: str, number: int) -> Response:
        """PNG, by its number from 1; there are `pictures` of them."""
        return http_files.picture(desk.result(done(name)), number)

    return routes


def told(job: Job) -> dict[str, Any]:
    """A job as the API tells it."""
    return {
        "id": job.id,
        "state": job.state.value,
        "stage": job.stage,
        "done": job.done,
        "total": job.total,
        "error": job.error,
        "created": job.created,
        "finished": job.finished or None,
        "task": job.wish.task,
        "model": job.wish.model,
        "second": job.wish.second,
        "outcome": job.outcome or None,
        "objects": list(job.objects),
        "pictures": job.pictures,
    }


def one_line(error: ValidationError) -> str:
    """What is wrong with a value, each with the path of its field."""
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg']}" for one in error.errors()[:5]
    )


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            yield await asyncio.wait_for(anext(stream), IDLE_S)
        except StopAsyncIteration:
            return
        except (TimeoutError, ClientDisconnect) as error:
            raise HTTPException(400, "found a body cut short; send it again") from error


async def _followed(job: Job, ending: threading.Event) -> AsyncIterator[str]:
    shown, quiet = "", 0.0
    while not ending.is_set():
        ended = job.state in ENDED
        now = json.dumps(told(job))
        if now != shown or ended:
            yield f"event: {'end' if ended else 'progress'}\ndata: {now}\n\n"
            shown, quiet = now, 0.0
        elif quiet >= ALIVE_S:
            yield ": still here\n\n"
            quiet = 0.0
        if ended:
            return
        await asyncio.sleep(EVENT_S)
        quiet += EVENT_S
