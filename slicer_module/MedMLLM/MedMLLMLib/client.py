"""The engine over HTTP: `medmllm serve` on this or another machine, as docs/http-api.md has it.

Nothing of Slicer and nothing of Qt, so that all of it may run in a worker thread. `requests`, which Slicer
brings along, is imported when it is first needed.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

DEFAULT_URL = "http://127.0.0.1:8042"
CONNECT_S, ANSWER_S = 5.0, 60.0
"""How long a connection, and an answer, may take, seconds."""
QUIET_S = 25.0
"""How long a stream of events may say nothing; the engine says something every 10 s."""
OLDEST = (0, 1)
"""The first version of the engine that has what is needed here."""
FILE_ENDS = (".nii.gz", ".nrrd", ".zip")

_PIECE = 1 << 20


class EngineError(Exception):
    """The engine didn't do what was asked; the message is for people and says what to do."""

    def __init__(self, words: str, *, status: int = 0, details: str = "") -> None:
        """Take what to say.

        Args:
            words: For people.
            status: Of HTTP; 0 where none came.
            details: What else a person who mends it wants to know, without names.
        """
        super().__init__(words)
        self.status = status
        self.details = details or words


class UnreachableError(EngineError):
    """Nobody answered, so that a later try may go well."""


class CancelledError(Exception):
    """The reader asked to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the engine is, and how it knows us."""

    url: str = DEFAULT_URL
    token: str = field(default="", repr=False)
    authorities: str = ""
    """A file of certificates to trust, for an engine whose certificate is of the hospital's own authority."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        try:
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            known = False
        if not known or parts.query or parts.fragment or parts.username or parts.path not in ("", "/"):
            raise EngineError(
                f"found the address {self.url!r}, expected one such as {DEFAULT_URL} or "
                "https://engine.example"
            )
        if not self.is_here and parts.scheme != "https":
            raise EngineError(
                f"the engine at {parts.hostname} isn't on this machine, so it needs https: patient images "
                "don't "
                "travel without encryption; ask for its https address"
            )

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:  # a name, such as 127.example
            return False

    @property
    def host(self) -> str:
        """Such as `127.0.0.1:8042`."""
        return urlsplit(self.url).netloc

    @property
    def words(self) -> str:
        """For the line that is always visible."""
        return f"{self.url.rstrip('/')} ({'this machine' if self.is_here else 'another machine'})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What testing a connection found."""

    well: bool
    words: str
    node: dict[str, Any] = field(default_factory=dict)
    """As GET /api/node tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked of the engine."""

    task: str = "report"
    question: str = ""
    history: tuple[tuple[str, str], ...] = ()
    """Questions before on the same study, each with its answer."""
    model: str = ""
    series: str = ""
    """Series Instance UID; empty lets the engine choose."""
    modality: str = ""
    """Of a volume that isn't DICOM."""
    prior: str = ""
    """Study Instance UID of an earlier study."""
    center_mm: tuple[float, float, float] | None = None
    """LPS mm; the question is about what lies there."""
    size_mm: tuple[float, float, float] | None = None
    evidence: bool = False
    """Whether each finding is put to the test with changed pictures."""

    def how(self) -> dict[str, Any]:
        """As POST /api/jobs takes it; what isn't said is left out."""
        said: dict[str, Any] = {"task": self.task, "evidence": self.evidence}
        for name in ("question", "model", "series", "modality", "prior"):
            if getattr(self, name):
                said[name] = getattr(self, name)
        if self.history:
            said["history"] = [{"question": one, "answer": other} for one, other in self.history]
        if self.center_mm is not None:
            said["place"] = {"center_mm": list(self.center_mm)}
            if self.size_mm is not None:
                said["place"]["size_mm"] = list(self.size_mm)
        return said


class Engine:
    """One engine. An instance is used by one thread at a time."""

    def __init__(self, address: Address) -> None:
        """Take where it is; nothing is sent yet."""
        self.address = address
        self._session: Any = None

    def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            self._session.close()

    def about(self) -> dict[str, Any]:
        """Name, version, tasks, models.

        Raises:
            EngineError: If it isn't reachable, isn't one of ours, or is too old.
        """
        said = self._json("GET", "/api/node")
        if not isinstance(said, dict) or said.get("name") != "MedMLLM" or "tasks" not in said:
            raise EngineError(
                f"something else than MedMLLM answers at {self.address.url}; check the port (8042 by default)"
            )
        version = str(said.get("version", ""))
        numbers = tuple(int(one) if one.isdigit() else 0 for one in version.split(".")[:2])
        if numbers < OLDEST:
            raise EngineError(
                f"the engine is version {version or 'unknown'}, expected {'.'.join(map(str, OLDEST))} or "
                "newer; "
                "update it: pip install --upgrade medmllm-plugin"
            )
        return said

    def diagnose(self) -> Diagnosis:
        """Whether it can be used, in plain words."""
        try:
            node = self.about()
        except EngineError as error:
            return Diagnosis(well=False, words=str(error))
        try:
            ready = self._json("GET", "/health/ready", expected=(200, 503))
        except EngineError as error:
            return Diagnosis(well=False, words=str(error))
        version, model = node["version"], node.get("model") or "none"
        if not ready.get("ready"):
            parts = ready.get("parts") or []
            ill = [f"{one.get('part')}: {one.get('words')}" for one in parts if not one.get("ok", True)]
            return Diagnosis(
                well=False,
                words=f"MedMLLM {version} answers but isn't ready: {'; '.join(ill) or 'it says no more'}",
                node=node,
            )
        return Diagnosis(well=True, words=f"Connected to MedMLLM {version}; its model is {model}.", node=node)

    def send(
        self,
        files: Sequence[str],
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Send DICOM files by STOW-RS (PS3.18 10.5).

        Args:
            files: Paths.
            progress: Told (files sent, files) as they go.
            stopped: Asked before each piece.

        Raises:
            EngineError: If one is refused or can't be read.
            CancelledError: If `stopped` said so.
        """
        boundary = f"medmllm-{secrets.token_hex(12)}"

        def body() -> Iterator[bytes]:
            for number, path in enumerate(files):
                progress(number, len(files))
                yield f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
                with Path(path).open("rb") as file:
                    while piece := file.read(_PIECE):
                        if stopped():
                            raise CancelledError
                        yield piece
            progress(len(files), len(files))
            yield f"\r\n--{boundary}--\r\n".encode()

        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        said = self._json(
            "POST",
            "/dicom-web/studies",
            data=body(),
            headers={"Content-Type": kind},
            expected=(200, 202, 409),
        )
        refused = (said.get("00081198") or {}).get("Value") or []
        if refused:
            reason = (refused[0].get("00081197") or {}).get("Value") or ["unknown"]
            raise EngineError(
                f"the engine refused {len(refused)} of {len(files)} images (failure reason {reason[0]}); "
                "see the engine's log"
            )

    def submit(self, study_uid: str, wish: Wish) -> str:
        """Have a study read that the engine has; the job's id."""
        return str(
            self._json("POST", "/api/jobs", json={"study": study_uid, **wish.how()}, expected=(202,))["id"]
        )

    def upload(self, path: str, wish: Wish, *, stopped: Callable[[], bool] = lambda: False) -> str:
        """Have a file read that isn't DICOM; the job's id. The file's name isn't told."""
        end = next((one for one in FILE_ENDS if path.endswith(one)), None)
        if end is None:
            raise EngineError(f"found {Path(path).suffix or 'a file without an end'}, expected {FILE_ENDS}")
        query = f"?name=volume{end}&how={quote(json.dumps(wish.how()))}"

        def body() -> Iterator[bytes]:
            with Path(path).open("rb") as file:
                while piece := file.read(_PIECE):
                    if stopped():
                        raise CancelledError
                    yield piece

        headers = {"Content-Type": "application/octet-stream"}
        return str(
            self._json("POST", f"/api/jobs/upload{query}", data=body(), headers=headers, expected=(202,))[
                "id"
            ]
        )

    def job(self, name: str) -> dict[str, Any]:
        """How far a job is."""
        return dict(self._json("GET", f"/api/jobs/{quote(name)}"))

    def events(self, name: str) -> Iterator[dict[str, Any]]:
        """A job whenever something changed, to its end; None now and then where nothing did.

        Raises:
            UnreachableError: If the stream breaks off.
        """
        import requests

        answer = self._ask(
            "GET",
            f"/api/jobs/{quote(name)}/events",
            stream=True,
            timeout=(CONNECT_S, QUIET_S),
            expected=(200,),
        )
        try:
            # a piece may be one byte: an event must not wait until a larger one is full
            for line in answer.iter_lines(chunk_size=1):
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])
        except (requests.RequestException, ValueError) as error:
            raise self._unreachable(error) from error
        finally:
            answer.close()

    def cancel(self, name: str) -> None:
        """Stop a job; one that isn't there any more is as good as stopped."""
        self._ask("DELETE", f"/api/jobs/{quote(name)}", expected=(200, 404))

    def report(self, name: str) -> dict[str, Any]:
        """`report.json` of a job that is done."""
        return dict(self._json("GET", f"/api/jobs/{quote(name)}/report"))

    def object(self, name: str, file: str) -> bytes:
        """A DICOM object of a job that is done."""
        return bytes(self._ask("GET", f"/api/jobs/{quote(name)}/objects/{quote(file)}").content)

    def _json(self, method: str, path: str, **options: Any) -> Any:
        answer = self._ask(method, path, **options)
        try:
            return answer.json()
        except ValueError as error:
            raise EngineError(
                f"something else than MedMLLM answers at {self.address.url}; check the address and the port",
                status=answer.status_code,
            ) from error

    def _ask(self, method: str, path: str, *, expected: Sequence[int] = (200,), **options: Any) -> Any:
        import requests

        if self._session is None:
            self._session = requests.Session()
            # neither a proxy nor a .netrc from the environment may see or change what is sent
            self._session.trust_env = False
            self._session.verify = self.address.authorities or True
            if self.address.token:
                self._session.headers["Authorization"] = f"Bearer {self.address.token}"
        options.setdefault("timeout", (CONNECT_S, ANSWER_S))
        url = self.address.url.rstrip("/") + path
        try:
            answer = self._session.request(method, url, allow_redirects=False, **options)
        except requests.RequestException as error:
            raise self._unreachable(error) from error
        except OSError as error:
            if getattr(error, "filename", None):
                raise EngineError(
                    f"a file can't be read ({error.strerror}); load the study again", details=str(error)
                ) from error
            raise self._unreachable(error) from error
        if answer.status_code in expected:
            return answer
        raise self._refused(answer)

    def _refused(self, answer: Any) -> EngineError:
        status = answer.status_code
        try:
            said = str(answer.json().get("error") or "")
        except (ValueError, AttributeError):
            said = ""
        here = f"the engine at {self.address.host}"
        if status == 401:
            words = (
                f"{here} wants another token than the one that is set; it may have been revoked: enter the "
                "current "
                "one under Engine"
                if self.address.token
                else f"{here} wants a token; enter it under Engine"
            )
        elif status in (301, 302, 307, 308):
            words = f"{here} points to another address; enter that one, if you trust it"
        elif status == 400 and not said and self.address.url.startswith("http://"):
            words = f"{here} speaks https; write https:// in its address"
        elif status == 404 and not said:
            words = f"{here} doesn't know this request: it is another program, or too old; update it"
        else:
            words = f"{here} answers: {said or f'HTTP status {status}'}"
        return EngineError(
            words, status=status, details=f"HTTP {status} from {answer.url.split('?')[0]}: {said}"
        )

    def _unreachable(self, error: Exception) -> EngineError:
        text = str(error)
        here = self.address.host
        details = f"{type(error).__name__}: {text}"
        if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
            return EngineError(
                f"the certificate of {here} isn't one that this machine trusts; if it is of your "
                "hospital's own "
                "authority, choose that authority's file under Engine",
                details=details,
            )
        if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text or "record layer failure" in text:
            return EngineError(
                f"the engine at {here} doesn't speak https; write http:// in its address", details=details
            )
        if "NameResolution" in text or "Name or service not known" in text or "getaddrinfo" in text:
            return UnreachableError(
                f"there is no machine of the name {urlsplit(self.address.url).hostname}; check the address",
                details=details,
            )
        if "refused" in text.lower():
            start = "; press Start local engine" if self.address.is_here else "; ask whoever runs it"
            return UnreachableError(
                f"nobody answers at {here}: the engine isn't running{start}", details=details
            )
        return UnreachableError(
            f"the engine at {here} doesn't answer; check the address and the network", details=details
        )
