"""Phantoms through a node that runs: sent as a scanner sends, read by its rules, the SR fetched and scored.

The studies of each run have UIDs of their own, so that nothing made before is taken for an answer. What a
node does with phantoms is said by its rules: one of theirs that reads them and delivers nowhere.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from medmllm_plugin import selftest
from medmllm_plugin.dicom_bridge import web
from medmllm_plugin.dicom_bridge.delivery.dimse import DimseDestination
from medmllm_plugin.dicom_bridge.retrieve import peer_named
from medmllm_plugin.errors import DeliveryError, MedMLLMError, RetrieveError, SettingsError
from medmllm_plugin.phantoms.dicom import save_study
from medmllm_plugin.phantoms.study import KINDS, PhantomStudy
from medmllm_plugin.scoring import compare
from medmllm_plugin.selftest import Case, Outcome, SelfTest
from medmllm_plugin.verdicts import model_verdicts

PORT = 8042
"""Where a node answers HTTP if nobody says otherwise."""

PATIENCE_S = 600.0
"""How long a phantom may be on its way."""

_LOOK_S = 0.25
_READ = ("delivering", "delivered")
_NEVER = {
    "kept": "it was not read; give the node a rule for phantoms, see docs/how-to/pacs-node.md",
    "parked": "it was parked; see the node's status page",
}


class NodeUnderTest:
    """A node, by DICOM and by HTTP."""

    def __init__(
        self,
        name: str,
        *,
        url: str | None = None,
        token_env: str | None = None,
        calling_ae: str = "SELFTEST",
    ) -> None:
        """Take whom to test; nothing is asked yet.

        Args:
            name: `AE@host:port`.
            url: Of its HTTP API; None for port 8042 of the same host.
            token_env: The environment variable that holds its token.
            calling_ae: As whom phantoms are sent; the node must let it in.

        Raises:
            SettingsError: If it is no such name or address, or there is no token.
        """
        self._peer = peer_named(name)
        host = f"[{self._peer.host}]" if ":" in self._peer.host else self._peer.host
        self._url = url or f"http://{host}:{PORT}"
        self._scanner = DimseDestination(self._peer, calling_ae=calling_ae)
        self._client = web.client(self._url, token_env=token_env)

    def close(self) -> None:
        """Let go of connections."""
        self._client.close()

    def about(self) -> dict[str, Any]:
        """What it says of itself.

        Raises:
            RetrieveError: If it can't be asked.
        """
        said: dict[str, Any] = self._asked("GET", "/api/node").json()
        if "measured" not in said:
            raise RetrieveError(
                f"{self._url}: found no node of this version, expected one that says what its models "
                "reached; see --http",
                retry=False,
            )
        return said

    def send(self, folder: Path) -> None:
        """Send the files of a study by C-STORE.

        Raises:
            DeliveryError: If it doesn't take them.
        """
        self._scanner.deliver(sorted(folder.rglob("*.dcm")), ours=False)

    def report(self, study_uid: str, folder: Path, *, within_s: float) -> tuple[Path, Path, tuple[str, ...]]:
        """Wait for a study's report; `report.json`, the findings SR, and where reports on it go.

        Raises:
            RetrieveError: If it isn't read, or not in time.
        """
        until = time.monotonic() + within_s
        while True:
            said = self._study(study_uid)
            if said is not None and said["state"] in _READ:
                break
            if said is not None and said["state"] in _NEVER:
                why = f"{said['state']}: {said['reason']}"
                raise RetrieveError(f"{self._url}: found {why}; {_NEVER[said['state']]}", retry=False)
            if time.monotonic() > until:
                state = "nothing of it" if said is None else f"it {said['state']}"
                raise RetrieveError(
                    f"{self._url}: found {state} after {within_s:g} s, expected its report; see the node's "
                    "status page",
                    retry=False,
                )
            time.sleep(_LOOK_S)
        base = f"/api/studies/{said['key']}"
        findings = [one["file"] for one in said["reports"][0]["objects"] if one["key"] == "findings_sr"]
        if not findings:
            raise RetrieveError(f"{self._url}: found no findings SR in the report; see node.sr", retry=False)
        paths = folder / "report.json", folder / "findings.dcm"
        for path, address in zip(
            paths, (f"{base}/report", f"{base}/objects/{quote(findings[0])}"), strict=True
        ):
            path.write_bytes(self._asked("GET", address).content)
        return *paths, tuple(sorted({one["destination"] for one in said["deliveries"]}))

    def _study(self, study_uid: str) -> dict[str, Any] | None:
        found = self._asked("POST", "/api/studies/find", {"study": study_uid}, missing=True)
        if found is None:
            return None
        said: dict[str, Any] = self._asked("GET", f"/api/studies/{found.json()['key']}").json()
        return said

    def _asked(self, method: str, path: str, body: Any = None, *, missing: bool = False) -> Any:
        answer = web.asked(self._url, RetrieveError, lambda: self._client.request(method, path, json=body))
        if missing and answer.status_code == 404:
            return None
        if answer.status_code != 200:
            raise web.refused(self._url, RetrieveError, answer.status_code, answer.text)
        return answer


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sent:
    """A phantom that is on its way."""

    case: Case
    study: PhantomStudy
    folder: Path
    since: float
    failure: str = ""


def run(
    node: NodeUnderTest,
    *,
    kinds: Sequence[str] = (),
    studies: int = 20,
    seed: int = selftest.FIRST_SEED,
    strict: bool = False,
    slices: int | None = None,
    matrix: int | None = None,
    patience_s: float = PATIENCE_S,
    progress: Callable[[int, int], None] | None = None,
) -> SelfTest:
    """Send phantoms to a node, and judge what comes back.

    Args:
        node: Which.
        kinds: Kinds of phantoms; by default those that its model was measured on.
        studies: As `selftest.run`.
        seed: As `selftest.run`.
        strict: As `selftest.run`.
        slices: As `selftest.run`.
        matrix: As `selftest.run`.
        patience_s: How long a phantom may be on its way, seconds.
        progress: Called with (phantoms back, phantoms in all).

    Raises:
        SettingsError: If there is no such kind.
        RetrieveError: If the node can't be asked.
    """
    started, about = time.perf_counter(), node.about()
    model = str(about["model"])
    measured: dict[str, dict[str, float]] = about["measured"].get(model, {})
    for kind in kinds:
        if kind not in KINDS:
            raise SettingsError(f"no phantom is of kind {kind!r}; there are: {', '.join(KINDS)}")
    chosen = tuple(dict.fromkeys(kinds)) or tuple(one for one in KINDS if one in measured) or tuple(KINDS)
    cases = selftest.cases_for(chosen, studies=studies, seed=seed, slices=slices, matrix=matrix)
    outcomes, places, version = list[Outcome](), set[str](), ""
    with tempfile.TemporaryDirectory(prefix="medmllm-selftest-") as work:
        sent = [_sent(node, case, Path(work) / str(n)) for n, case in enumerate(cases)]
        for n, one in enumerate(sent, 1):
            outcome, where = _outcome(node, one, model, patience_s)
            outcomes.append(outcome)
            places.update(where)
            if progress is not None:
                progress(n, len(sent))
    verdicts = [
        verdict
        for kind in chosen
        if (own := [one for one in outcomes if one.case.kind == kind])
        for verdict in model_verdicts(
            reader=model, kind=kind, reached=measured.get(kind, {}), strict=strict, **selftest.told(own)
        )
    ]
    return SelfTest(
        model=model,
        model_version=version,
        kinds=chosen,
        studies=studies,
        seeds=(seed, seed + studies - 1),
        verdicts=tuple(verdicts),
        outcomes=tuple(outcomes),
        seconds=time.perf_counter() - started,
        where=f"node {about['node']} ({about['ae_title']})",
        notes=_notes(places),
    )


def _notes(places: set[str]) -> tuple[str, ...]:
    if not places:
        return ()
    return (
        f"Reports on phantoms went to {', '.join(sorted(places))}: give phantoms a rule with outputs = [], "
        "see docs/how-to/pacs-node.md",
    )


def _sent(node: NodeUnderTest, case: Case, folder: Path) -> _Sent:
    study = replace(case.study(), run=secrets.token_hex(8))
    save_study(study, folder)
    (folder / "truth.json").unlink()
    since, failure = time.perf_counter(), ""
    try:
        node.send(folder)
    except DeliveryError as error:
        failure = str(error)
    return _Sent(case=case, study=study, folder=folder, since=since, failure=failure)


def _outcome(
    node: NodeUnderTest, one: _Sent, model: str, patience_s: float
) -> tuple[Outcome, tuple[str, ...]]:
    """What came of a phantom, and where reports on it went."""
    try:
        if one.failure:
            raise DeliveryError(one.failure, retry=False)
        back = one.folder.with_suffix(".back")
        back.mkdir()
        study_uid = str(one.study.study.study_instance_uid)
        report, sr, places = node.report(study_uid, back, within_s=patience_s)
    except MedMLLMError as error:
        failed = Outcome(
            case=one.case,
            reader=model,
            comparison=compare(one.study, ()),
            failure=" ".join(str(error).split()),
            seconds=time.perf_counter() - one.since,
        )
        return failed, ()
    seconds = time.perf_counter() - one.since
    files = {"report": report, "findings_sr": sr}
    return selftest.judged(one.case, one.study, model, files, one.folder, seconds), places
