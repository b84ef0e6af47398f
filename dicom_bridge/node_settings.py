"""What a node is told in `medmllm.toml`, checked as a whole before anything starts.

    [node]
    ae_title = "MEDMLLM"
    host = "0.0.0.0"
    folder = "/var/lib/medmllm"

    [peers.pacs]
    ae_title = "PACS"
    host = "10.0.0.5"
    port = 104

    [outputs.pacs]
    peer = "pacs"
    commitment = true

    [[rules]]
    name = "chest CT"
    when = { Modality = "CT", BodyPartExamined = "CHEST" }

Errors name the path of the field, such as `outputs.pacs.peer`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydicom.datadict import tag_for_keyword

from medmllm_plugin.config import Settings
from medmllm_plugin.dicom_bridge.rules import Action, Matching, Rule, parse_rules
from medmllm_plugin.dicom_bridge.spool import Durability
from medmllm_plugin.errors import SettingsError

_SYSLOG = re.compile(r"(udp|tls)://(\[[0-9A-Fa-f:]+\]|[\w.-]+):[0-9]{1,5}")


class Unmatched(StrEnum):
    """What is done with a study that no rule fits, if it isn't forwarded."""

    KEEP = "keep"
    READ = "read"


LEAST_EVERY_S = 1.0
"""How often a PACS may be asked for studies at most, seconds."""

FORWARD = "forward:"
"""What `unmatched` begins with where such a study is passed on; the name of an output follows."""


class LogForm(StrEnum):
    """How the lines on stderr look."""

    TEXT = "text"
    JSON = "json"


class BurnedIn(StrEnum):
    """What is done about words in the pixels of pictures that are to leave this machine."""

    REFUSE = "refuse"
    """The study is parked; so it is if nobody can look, as rapidocr isn't installed."""
    WARN = "warn"
    """It is read, and the report says what was found, or that nobody looked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tls:
    """How connections are encrypted."""

    certificate: Path
    """PEM, ours."""
    key: Path
    """PEM, of the certificate."""
    authorities: Path | None = None
    """PEM of those who may vouch for the other side; None where it needs no certificate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A DICOM application that we talk to."""

    ae_title: str
    host: str
    port: int
    tls: Tls | None = None
    commitment: bool = False
    """Whether it offers storage commitment."""
    web: str | None = None
    """Address of its DICOMweb service, such as `https://pacs/dicom-web`."""
    web_token_env: str | None = None
    """The environment variable that holds its bearer token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """Where reports go; exactly one of `peer`, `url` and `folder`."""

    peer: str | None = None
    """A name of [peers]: by C-STORE."""
    url: str | None = None
    """A DICOMweb service: by STOW-RS."""
    folder: Path | None = None
    """A folder each study of which gets one of its own."""
    commitment: bool = False
    """Whether a peer is asked to commit, and waited for; only then is a report delivered."""
    token_env: str | None = None
    """The environment variable that holds the bearer token of `url`."""
    availability: str | None = None
    """A name of [peers] that is told what is at hand at `peer`, once it is (instance availability)."""
    deidentify: bool = False
    """Whether reports go there without anything that says who the patient is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pull:
    """Studies that a node fetches by itself, from a PACS that doesn't send them."""

    name: str
    peer: str
    """A name of [peers] that is asked."""
    when: Mapping[str, str]
    """What a study must say, by keywords that the PACS matches (PS3.4 C.6.2.1.2): `*` and `?` as there."""
    days: int = 1
    """How many days back its date may lie; 0 for today's alone."""
    every_s: float = 300.0
    """How often is asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeSettings:
    """All that a node is told."""

    folder: Path
    """Where received instances, replies and reports lie."""
    database: str = ""
    """A file, or the URL of a Postgres that several nodes share; empty for a file in the folder."""
    node: str = field(default_factory=socket.gethostname)
    """Its name among several on one database."""
    ae_title: str = "MEDMLLM"
    host: str = "127.0.0.1"
    port: int = 11112
    tls_port: int | None = None
    tls: Tls | None = None
    check_called_ae: bool = False
    calling_aes: tuple[str, ...] = ()
    """Who may send; empty for anybody."""
    networks: tuple[str, ...] = ()
    """From where, such as `10.1.0.0/16`; empty for anywhere."""
    associations: int = 64
    instance_bytes: int = 4 << 30
    study_instances: int = 20_000
    """A study of more is parked."""
    durability: Durability = Durability.POWER
    low_disk_bytes: int = 5 << 30
    """Below so much free room nothing more is taken."""
    quiet_s: float = 60.0
    """A study to which nothing came for so long is complete, if nothing else says so."""
    evidence_quiet_s: float = 3.0
    """The same where all instances that a PACS knows of are there, or no slice is missing."""
    complete_by: str | None = None
    """A peer that is asked how many instances a study has."""
    prior_from: str | None = None
    """A peer that earlier studies are fetched from, where a rule wants them."""
    model: str = "embedded"
    """As `--model` takes it, where a rule names none."""
    reads_at_once: int = 4
    """Most studies read beside each other; a model in this process answers those that wait in one call."""
    attempts: int = 3
    """How often a study is read before it is parked; a PACS that is down is tried for ever."""
    retry_max_s: float = 300.0
    """Longest wait between two tries, whatever failed."""
    sr: str = "default"
    """Which objects are made, as `medmllm read --sr`."""
    matching: Matching = Matching.FIRST
    unmatched: str = Unmatched.KEEP
    """What is done with a study that no rule fits: `keep`, `read`, or `forward:` and an output's name."""
    keep_days: float = 7.0
    """How long the images of a study that is done stay in the spool."""
    keep_reports_days: float = 0.0
    """How long reports on it stay, and what happened to it; 0 for ever."""
    salt_file: Path | None = None
    """A secret for the pseudonyms in logs; None for one made in the folder."""
    burned_in: BurnedIn = BurnedIn.REFUSE
    """For models that aren't on this machine."""
    log: LogForm = LogForm.TEXT
    audit_keep_days: float = 365.0
    """How long files of the audit trail stay; 0 for ever."""
    syslog: str | None = None
    """Where audit messages are sent as well, such as `udp://10.0.0.9:514` or `tls://audit:6514`."""
    syslog_tls: Tls | None = None
    """How we show who we are there, and whom we trust; None for the authorities of the system."""
    http_host: str = "127.0.0.1"
    http_port: int | None = 8042
    """None, in TOML `false`, for no HTTP."""
    http_token_env: str | None = None
    """The environment variable that holds the token of the HTTP API; needed beyond this machine."""
    http_tls: Tls | None = None
    behind_proxy: bool = False
    """Whether a proxy in front does TLS."""
    peers: Mapping[str, Peer] = field(default_factory=lambda: MappingProxyType({}))
    outputs: Mapping[str, Output] = field(default_factory=lambda: MappingProxyType({}))
    rules: tuple[Rule, ...] = ()
    pulls: tuple[Pull, ...] = ()

    @property
    def database_url(self) -> str:
        """What `tables.open_database` takes."""
        return self.database or str(self.folder / "node.sqlite")

    @property
    def forward_to(self) -> str | None:
        """The output that gets studies that no rule fits, unread; None if none does."""
        return self.unmatched.removeprefix(FORWARD) if self.unmatched.startswith(FORWARD) else None

    @property
    def spool(self) -> Path:
        """Where segments lie: each node has its own."""
        return self.folder / "spool" / self.node


def node_settings(settings: Settings) -> NodeSettings:
    """The node's settings in a settings file.

    Args:
        settings: Of `config.load`.

    Raises:
        SettingsError: If a field is wrong, missing, or fits none of the others; it names the field's path.
    """
    where = f"{settings.path}: " if settings.path is not None else ""
    beside = Path() if settings.path is None else settings.path.absolute().parent
    said = settings.node
    made = {
        "peers": _tables(said.get("peers", {}), Peer, f"{where}peers", beside),
        "outputs": _tables(said.get("outputs", {}), Output, f"{where}outputs", beside),
        "rules": parse_rules(said.get("rules", []), where=f"{where}rules"),
        "pulls": _pulls(said.get("pulls", []), f"{where}pulls", beside),
    }
    node: NodeSettings = _made(said.get("node", {}), NodeSettings, f"{where}node", beside, made=made)
    _check(node, where)
    return node


def peers_of(settings: Settings) -> Mapping[str, Peer]:
    """The peers alone, for a command that talks to them without a node.

    Raises:
        SettingsError: If a field of theirs is wrong.
    """
    where = f"{settings.path}: " if settings.path is not None else ""
    beside = Path() if settings.path is None else settings.path.absolute().parent
    return _tables(settings.node.get("peers", {}), Peer, f"{where}peers", beside)


def _check(node: NodeSettings, where: str) -> None:
    """That the parts fit each other."""
    for name in ("complete_by", "prior_from"):
        peer = getattr(node, name)
        if peer is not None and peer not in node.peers:
            raise _wrong(f"{where}node.{name}", peer, _one_of(node.peers, "peers"))
    for name, output in node.outputs.items():
        here = f"{where}outputs.{name}"
        given = [one for one in ("peer", "url", "folder") if getattr(output, one) is not None]
        if len(given) != 1:
            raise _wrong(here, " and ".join(given) or "none of them", "one of peer, url and folder")
        if output.peer is not None and output.peer not in node.peers:
            raise _wrong(f"{here}.peer", output.peer, _one_of(node.peers, "peers"))
        if output.availability is not None and output.availability not in node.peers:
            raise _wrong(f"{here}.availability", output.availability, _one_of(node.peers, "peers"))
        if output.availability is not None and (output.peer is None or output.deidentify):
            raise _wrong(
                f"{here}.availability", output.availability, "it beside a peer and without deidentify"
            )
        if output.commitment and (output.peer is None or not node.peers[output.peer].commitment):
            raise _wrong(f"{here}.commitment", True, "false, or a peer that says commitment = true")
    for number, pull in enumerate(node.pulls):
        if pull.peer not in node.peers:
            raise _wrong(f"{where}pulls[{number}].peer", pull.peer, _one_of(node.peers, "peers"))
    for number, rule in enumerate(node.rules):
        here = f"{where}rules[{number}].outputs"
        for output_name in rule.outputs or ():
            if output_name not in node.outputs:
                raise _wrong(here, output_name, _one_of(node.outputs, "outputs"))
        if rule.action is Action.FORWARD:
            _check_forward(node, rule.outputs or (), here)
    if node.forward_to is not None:
        _check_forward(node, [node.forward_to], f"{where}node.unmatched")
    elif node.unmatched not in [one.value for one in Unmatched]:
        raise _wrong(f"{where}node.unmatched", node.unmatched, "keep, read, or forward:NAME")
    for number, network in enumerate(node.networks):
        try:
            ip_network(network, strict=False)
        except ValueError:
            raise _wrong(
                f"{where}node.networks[{number}]", network, "an address or a network such as 10.1.0.0/16"
            ) from None
    if (node.tls_port is None) != (node.tls is None):
        raise _wrong(f"{where}node.tls_port", node.tls_port, "both tls_port and [node.tls], or neither")
    if node.syslog is not None and not _SYSLOG.fullmatch(node.syslog):
        raise _wrong(f"{where}node.syslog", node.syslog, "udp://HOST:PORT or tls://HOST:PORT")
    if node.syslog_tls is not None and not (node.syslog or "").startswith("tls:"):
        raise _wrong(f"{where}node.syslog_tls", node.syslog, "a node.syslog that begins with tls:")
    if node.behind_proxy and node.http_token_env is None:
        raise _wrong(f"{where}node.behind_proxy", True, "http_token_env beside it: a proxy lets others in")
    loopback = node.http_host in ("127.0.0.1", "::1", "localhost")
    if node.http_port is not None and not loopback:
        if node.http_token_env is None:
            raise _wrong(f"{where}node.http_host", node.http_host, "a loopback address, or http_token_env")
        if node.http_tls is None and not node.behind_proxy:
            raise _wrong(
                f"{where}node.http_host",
                node.http_host,
                "a loopback address, [node.http_tls], or behind_proxy",
            )
    for title in (node.ae_title, *(peer.ae_title for peer in node.peers.values())):
        if not 1 <= len(title.strip()) <= 16 or not title.isascii() or "\\" in title:
            raise _wrong(f"{where}ae_title", title, "1 to 16 ASCII characters without a backslash")


def _check_forward(node: NodeSettings, names: Sequence[str], where: str) -> None:
    """That there is somewhere to pass studies on to, as they came."""
    if not names:
        raise _wrong(where, None, "the outputs that get the study")
    for name in names:
        if name not in node.outputs:
            raise _wrong(where, name, _one_of(node.outputs, "outputs"))
        if node.outputs[name].deidentify:
            raise _wrong(where, name, "an output without deidentify: studies are passed on as they came")


def _pulls(content: object, where: str, beside: Path) -> tuple[Pull, ...]:
    if not isinstance(content, list):
        raise _wrong(where, content, "a list of tables [[pulls]]")
    made: list[Pull] = []
    for number, one in enumerate(content):
        here = f"{where}[{number}]"
        if not isinstance(one, dict):
            raise _wrong(here, one, "a table")
        when = _keys(one.get("when", {}), f"{here}.when")
        said = {name: value for name, value in one.items() if name != "when"}
        pull: Pull = _made(said, Pull, here, beside, made={"when": when})
        if pull.name in [each.name for each in made]:
            raise _wrong(f"{here}.name", pull.name, "a name that no other pull has")
        if pull.every_s < LEAST_EVERY_S:
            raise _wrong(f"{here}.every_s", pull.every_s, f"{LEAST_EVERY_S:g} or more")
        made.append(pull)
    return tuple(made)


def _keys(content: object, where: str) -> Mapping[str, str]:
    """What studies are asked for by."""
    if not isinstance(content, dict):
        raise _wrong(where, content, "a table of keywords and values")
    for key, value in content.items():
        if tag_for_keyword(key) is None or key in ("StudyDate", "Modality"):
            known = "a DICOM keyword of a study such as ModalitiesInStudy; its date is asked for by days"
            raise _wrong(where, key, known)
        if not isinstance(value, str) or not value:
            raise _wrong(f"{where}.{key}", value, "a text")
    return MappingProxyType(dict(content))


def _tables(content: object, kind: type[Any], where: str, beside: Path) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise _wrong(where, content, "tables by name")
    made = {name: _made(one, kind, f"{where}.{name}", beside) for name, one in content.items()}
    return MappingProxyType(made)


def _made(
    content: object, kind: type[Any], where: str, beside: Path, *, made: Mapping[str, Any] | None = None
) -> Any:
    """A dataclass of settings from a table."""
    if not isinstance(content, dict):
        raise _wrong(where, content, "a table")
    elsewhere = made or {}
    types = get_type_hints(kind)
    known = [one for one in fields(kind) if one.name not in elsewhere]
    for name in content:
        if name not in [one.name for one in known]:
            raise _wrong(where, name, f"one of {', '.join(one.name for one in known)}")
    values = dict(elsewhere)
    for one in known:
        if one.name in content:
            values[one.name] = _value(content[one.name], types[one.name], f"{where}.{one.name}", beside)
        elif one.default is MISSING and one.default_factory is MISSING:
            raise _wrong(f"{where}.{one.name}", None, "it to be said")
    return kind(**values)


def _value(content: object, kind: Any, where: str, beside: Path) -> Any:
    """A value of a type, from what TOML has for it."""
    if get_origin(kind) in (Union, UnionType):
        (inner,) = (one for one in get_args(kind) if one is not NoneType)
        if content is False and inner is not bool:
            return None  # TOML has no word for nothing
        return _value(content, inner, where, beside)
    if get_origin(kind) is tuple:
        if not isinstance(content, list):
            raise _wrong(where, content, "a list")
        (inner, _) = get_args(kind)
        return tuple(_value(one, inner, f"{where}[{n}]", beside) for n, one in enumerate(content))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        if content not in [one.value for one in kind]:
            raise _wrong(where, content, f"one of {', '.join(one.value for one in kind)}")
        return kind(content)
    if kind is Path:
        if not isinstance(content, str) or not content:
            raise _wrong(where, content, "a path")
        return beside / Path(content).expanduser()
    if kind is Tls:
        return _made(content, Tls, where, beside)
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    fits = isinstance(content, int | float) if kind is float else isinstance(content, kind)
    if not fits or (isinstance(content, bool) and kind is not bool):
        raise _wrong(where, content, names[kind])
    if isinstance(content, int | float) and content < 0:
        raise _wrong(where, content, "0 or more")
    if where.endswith("port") and isinstance(content, int) and content > 65535:
        raise _wrong(where, content, "a port from 0 to 65535")
    return kind(content)


def _one_of(names: Mapping[str, Any], table: str) -> str:
    return f"one of {', '.join(names)}" if names else f"a name of [{table}], of which there is none"


def _wrong(where: str, found: object, expected: str) -> SettingsError:
    shown = "nothing" if found is None else repr(found)
    return SettingsError(f"{where}: found {shown}, expected {expected}; correct it")
