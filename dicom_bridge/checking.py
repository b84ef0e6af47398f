"""Whether a node would start and work as it is told, found out without starting it: `serve --check`.

Each thing is tried as the node itself would, and undone. All are told, not only the first that is wrong.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pynetdicom.sop_class import Verification  # type: ignore[attr-defined,unused-ignore]

from medmllm_plugin import registry
from medmllm_plugin.config import Settings
from medmllm_plugin.dicom_bridge.associating import associated, server_context, wanted
from medmllm_plugin.dicom_bridge.node_settings import BurnedIn, NodeSettings, Output, Peer, Pull
from medmllm_plugin.dicom_bridge.retrieve import archive
from medmllm_plugin.dicom_bridge.rules import Action, Matching, Rule
from medmllm_plugin.dicom_bridge.salt import salt_of
from medmllm_plugin.dicom_bridge.screening import can_look
from medmllm_plugin.dicom_bridge.tables import open_database
from medmllm_plugin.errors import MedMLLMError, RetrieveError, SettingsError
from medmllm_plugin.models import Model
from medmllm_plugin.strategies.names import strategy
from medmllm_plugin.tasks import TASKS

_EXPLICIT, _IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


class Verdict(StrEnum):
    """Of one thing that was looked at."""

    OK = "ok"
    WARNING = "warning"
    """It would start, and may not do what is wanted."""
    WRONG = "wrong"
    """It wouldn't start, or couldn't work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """One thing that was looked at."""

    what: str
    """The path of its field, such as `node.folder`."""
    verdict: Verdict
    found: str
    """In words."""


def check(
    settings: Settings, node: NodeSettings, *, peers: bool = False, models: bool = True
) -> list[Checked]:
    """Look at everything that a node needs.

    Args:
        settings: Where models have names of the user's.
        node: What the node is told.
        peers: Whether other systems are asked for an echo.
        models: Whether models are opened, which takes their memory and time.
    """
    found = [*_places(node), *_ports(node), *_rules(node), *_outputs(node), *_pulls(node)]
    if peers:
        found += [_echo(name, peer, node.ae_title) for name, peer in node.peers.items()]
    if models:
        found += _models(settings, node)
    return found


def _places(node: NodeSettings) -> Iterator[Checked]:
    yield _tried("node.folder", lambda: _writable(node.folder))
    yield _tried("node.low_disk_bytes", lambda: _room(node))
    yield _tried("node.database", lambda: _database(node))
    yield _tried("node.salt_file", lambda: _salt(node))


def _ports(node: NodeSettings) -> Iterator[Checked]:
    running = (node.spool / "lock").exists() and _is_locked(node.spool / "lock")
    listened = {"node.port": (node.host, node.port)}
    if node.tls_port is not None:
        listened["node.tls_port"] = (node.host, node.tls_port)
    if node.http_port is not None:
        listened["node.http_port"] = (node.http_host, node.http_port)
    for what, (host, port) in listened.items():
        if running:
            yield Checked(what=what, verdict=Verdict.OK, found=f"{host}:{port}; this node runs")
        else:
            yield _tried(what, lambda host=host, port=port: _free(host, port))  # type: ignore[misc]
    for what, tls in (("node.tls", node.tls), ("node.http_tls", node.http_tls)):
        if tls is not None:
            yield _tried(what, lambda tls=tls: _certified(tls.certificate, server_context(tls)))  # type: ignore[misc]
    if node.http_port is not None and node.http_token_env is not None:
        yield _tried("node.http_token_env", lambda: _token(node.http_token_env))


def _rules(node: NodeSettings) -> Iterator[Checked]:
    rules = node.rules
    for number, rule in enumerate(rules):
        what = f"rules[{number}]"
        last = [one for one in rules[:number] if node.matching is Matching.FIRST or one.action is Action.KEEP]
        before = next((one for one in last if not one.when and not one.unless), None)
        if before is not None:
            found = f"{rule.name!r} never fires: every study fits {before.name!r} before it"
            yield Checked(what=what, verdict=Verdict.WARNING, found=found)
        elif rule.action is Action.READ:
            yield _tried(what, lambda rule=rule: _readable(rule))  # type: ignore[misc]
        elif rule.action is Action.FORWARD:
            found = f"{rule.name!r} passes what fits it on to {', '.join(rule.outputs or ())}"
            yield Checked(what=what, verdict=Verdict.OK, found=found)
        else:
            yield Checked(what=what, verdict=Verdict.OK, found=f"{rule.name!r} keeps what fits it")
    if not rules:
        yield Checked(what="rules", verdict=Verdict.WARNING, found="there is none; see node.unmatched")


def _outputs(node: NodeSettings) -> Iterator[Checked]:
    for name, output in node.outputs.items():
        yield _tried(f"outputs.{name}", lambda output=output: _output(node, output))  # type: ignore[misc]
    if not node.outputs:
        found = "there is none: reports stay in the node's folder"
        yield Checked(what="outputs", verdict=Verdict.WARNING, found=found)


def _pulls(node: NodeSettings) -> Iterator[Checked]:
    for number, pull in enumerate(node.pulls):
        yield _tried(f"pulls[{number}]", lambda pull=pull: _pull(node, pull))  # type: ignore[misc]


def _pull(node: NodeSettings, pull: Pull) -> str:
    source = archive(pull.peer, calling_ae=node.ae_title, peers=node.peers)
    source.close()
    return f"{pull.name!r} asks {source.name} every {pull.every_s:g} s for studies, {pull.days} days back"


def _models(settings: Settings, node: NodeSettings) -> Iterator[Checked]:
    for name in sorted({name for rule in node.rules for name in rule.models} | {node.model}):
        yield _tried(f"model {name}", lambda name=name: _model(settings, node, name))  # type: ignore[misc]


def _tried(what: str, trial: Callable[[], str | Checked]) -> Checked:
    """What came of a trial; an error of ours is what is wrong."""
    try:
        found = trial()
    except MedMLLMError as error:
        return Checked(what=what, verdict=Verdict.WRONG, found=" ".join(str(error).split()))
    except OSError as error:
        return Checked(what=what, verdict=Verdict.WRONG, found=error.strerror or type(error).__name__)
    if isinstance(found, Checked):
        return found
    return Checked(what=what, verdict=Verdict.OK, found=found)


def _writable(folder: Path) -> str:
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not there.is_dir():
        raise SettingsError(f"{there} is a file, expected a folder; name another")
    probe = there / f".{secrets.token_hex(4)}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingsError(f"{there} can't be written to ({error.strerror}); name another") from error
    return f"{folder} can be written to" if there == folder else f"{folder} will be made"


def _room(node: NodeSettings) -> str:
    there = next(one for one in (node.folder, *node.folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    if free < node.low_disk_bytes:
        raise SettingsError(
            f"found {_bytes(free)} of free room, expected {_bytes(node.low_disk_bytes)}: nothing would be "
            "taken; make room"
        )
    return f"{_bytes(free)} free; nothing is taken below {_bytes(node.low_disk_bytes)}"


def _database(node: NodeSettings) -> str:
    url = node.database_url
    if "://" not in url and not Path(url).exists():
        _writable(Path(url).absolute().parent)
        return f"{url} will be made"
    open_database(url).dispose()
    return f"{url.rpartition('@')[2]} opens"


def _salt(node: NodeSettings) -> str:
    if node.salt_file is None and not (node.folder / "salt").exists():
        return "a secret for pseudonyms will be made"
    salt_of(node)
    return "the secret for pseudonyms is there"


def _is_locked(path: Path) -> bool:
    import fcntl

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _free(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
            tried.listen(1)
        except OSError as error:
            raise SettingsError(
                f"{host}:{port} can't be listened on ({error.strerror}); name another port, or see what "
                "listens there"
            ) from error
    return f"{host}:{port} is free"


def _certified(certificate: Path, _: object) -> str:
    return f"{certificate} can be used"


def _token(name: str | None) -> str:
    if not os.environ.get(name or ""):
        raise SettingsError(f"the environment variable {name} is empty; put the token there")
    return f"{name} holds a token"


def _readable(rule: Rule) -> str:
    if rule.task not in TASKS:
        raise SettingsError(f"no task is named {rule.task!r}; there are: {', '.join(TASKS)}")
    TASKS[rule.task].said_in(rule.language)
    strategy(rule.strategy)
    return f"{rule.name!r} reads what fits it: {rule.task}, {rule.priority.value}"


def _output(node: NodeSettings, output: Output) -> str | Checked:
    if output.folder is not None:
        return _writable(output.folder)
    if output.url is not None:
        if output.token_env is not None:
            _token(output.token_env)
        return f"by STOW-RS to {output.url}"
    peer = node.peers[output.peer or ""]
    kept = ", committed by it" if output.commitment else ""
    return f"by C-STORE to {peer.ae_title} at {peer.host}:{peer.port}{kept}"


def _echo(name: str, peer: Peer, calling_ae: str) -> Checked:
    def trial() -> str:
        contexts = [wanted(Verification, (_EXPLICIT, _IMPLICIT))]
        with associated(peer, contexts, calling_ae=calling_ae, failure=RetrieveError) as association:
            status = association.send_c_echo().get("Status")
        if status != 0:
            raise SettingsError(f"{peer.ae_title} answers an echo with {status}; see its log")
        return f"{peer.ae_title} at {peer.host}:{peer.port} answers"

    return _tried(f"peers.{name}", trial)


def _model(settings: Settings, node: NodeSettings, name: str) -> str | Checked:
    model: Model = registry.open_model(name, settings=settings)
    away = model.capabilities.sends_to
    if not away:
        return f"{model.name} {model.version}".strip() + " opens, on this machine"
    said = f"{model.name}: pictures go to {', '.join(away)}"
    if can_look():
        return f"{said}; each is looked at for words before"
    found = f"{said}, and nobody looks for words in them; run: pip install rapidocr onnxruntime"
    verdict = Verdict.WRONG if node.burned_in is BurnedIn.REFUSE else Verdict.WARNING
    return Checked(what=f"model {name}", verdict=verdict, found=found)


def _bytes(count: int) -> str:
    """A number of bytes to read.

    >>> _bytes(5 << 30)
    '5.0 GiB'
    """
    return f"{count / 2**30:.1f} GiB"
