"""A DICOMweb service that gives its answers in pages is asked for all of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from medmllm_plugin.dicom_bridge.retrieve import web
from medmllm_plugin.dicom_bridge.retrieve.web import WebArchive
from medmllm_plugin.errors import RetrieveError


class Service(ThreadingHTTPServer):
    """Has studies of one patient, and gives so many of them at once."""

    daemon_threads = True

    def __init__(self, *, studies: int, page: int, knows_offset: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.studies, self.page, self.knows_offset = studies, page, knows_offset
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        self.server.asked.append(self.path)
        start = int(query.get("offset", ["0"])[0]) if self.server.knows_offset else 0
        numbers = range(start, min(start + self.server.page, self.server.studies))
        found = [{"0020000D": {"vr": "UI", "Value": [f"1.2.{number + 1}"]}} for number in numbers]
        body = json.dumps(found).encode() if found else b""
        self.send_response(200 if found else 204)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    server = Service(**request.param)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("service", "requests"),
    [
        ({"studies": 7, "page": 3}, 4),
        ({"studies": 6, "page": 3}, 3),
        ({"studies": 5, "page": 9}, 2),
        ({"studies": 3, "page": 3, "knows_offset": False}, 2),
        ({"studies": 0, "page": 3}, 1),
    ],
    indirect=["service"],
)
def test_all_pages_are_asked_for_and_no_study_comes_twice(service: Service, requests: int) -> None:
    with closing(WebArchive(service.url)) as archive:
        found = archive.studies(patient_id="P")

    assert [one.study_uid for one in found] == [f"1.2.{number + 1}" for number in range(service.studies)]
    assert len(service.asked) == requests


@pytest.mark.parametrize("service", [{"studies": 9, "page": 3}], indirect=True)
def test_one_study_is_asked_for_once(service: Service) -> None:
    with closing(WebArchive(service.url)) as archive:
        archive.studies(study_uid="1.2.1")

    assert len(service.asked) == 1


@pytest.mark.parametrize("service", [{"studies": 99, "page": 3}], indirect=True)
def test_a_service_that_gives_without_end_is_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MOST_STUDIES", 10)

    with closing(WebArchive(service.url)) as archive, pytest.raises(RetrieveError, match="found over 10"):
        archive.studies(patient_id="P")
