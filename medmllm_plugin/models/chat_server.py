"""What chat-completions servers say of themselves when a model behind them is opened."""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2

from medmllm_plugin import __version__
from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.models.chat_endpoints import Endpoints
from medmllm_plugin.models.chat_errors import FOR_NOW, in_one_line, looks_like_html, refusal
from medmllm_plugin.models.chat_exchange import Exchange, Served
from medmllm_plugin.models.chat_hearing import FailedForNowError, network_error
from medmllm_plugin.models.chat_manner import Manner
from medmllm_plugin.models.chat_options import Address, ChatOptions
from medmllm_plugin.models.families import family_of
from medmllm_plugin.models.families.family import Family

LOOK_TIMEOUT = 20.0
"""Seconds for a server to say what it serves."""

SAMPLING = frozenset({"vllm", "sglang"})
"""Kinds of servers, by `owned_by`, that must be told not to sample as the model's folder says."""

KEEPS_PICTURES = (0, 12)
"""The vLLM from which on a picture may be named by its `uuid` alone."""

FAMILY_NAMES = (
    (r"lingshu[-_]?i\b", "internvl"),
    (r"lingshu|qwen2[._]?5[-_]?vl", "qwen2_5_vl"),
    (r"qwen3[-_]?vl|medmo", "qwen3_vl"),
    (r"medgemma|gemma[-_]?3", "gemma3"),
    (r"internvl", "internvl"),
    (r"llava", "llava"),
)
"""What names of served models say of their family, as `model_type` of config.json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """A model on a server's list."""

    name: str
    root: str
    """What it was loaded from, where the server tells."""
    owner: str
    """The kind of server, such as `vllm`, where it tells."""
    context_tokens: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """Servers that serve a model."""

    name: str
    """For users: the served name, without the folders it may begin with."""
    version: str
    """Of the server, where it tells; a model's own version nobody tells."""
    family: Family | None
    context_tokens: int | None
    endpoints: Endpoints
    exchange: Exchange
    key: str
    tls: ssl.SSLContext
    options: ChatOptions

    def client(self) -> httpx2.AsyncClient:
        """A client for a batch of requests, which follows no redirects."""
        options = self.options
        return httpx2.AsyncClient(
            headers=_headers(self.key),
            verify=self.tls,
            trust_env=options.trust_env,
            follow_redirects=False,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),
            timeout=httpx2.Timeout(
                connect=options.connect_timeout,
                read=options.read_timeout,
                write=options.read_timeout,
                pool=None,
            ),
        )


def open_servers(addresses: Sequence[Address], options: ChatOptions) -> Opened:
    """Ask servers for their models, and find the one that is meant.

    A server that is down is left to rest, as long as another one answers.

    Raises:
        SettingsError: If a server doesn't serve the model, or serves several and none was named.
        ModelError: If no server answers, or one refuses.
    """
    key = _key(options)
    tls = _tls(addresses, options)
    endpoints = Endpoints(
        addresses,
        manner=Manner(form=options.response_format, stream=options.stream),
        room=options.concurrency,
        backoff=options.backoff,
    )
    found: list[Listed] = []
    down: list[ModelError] = []
    version = ""
    with httpx2.Client(
        headers=_headers(key),
        verify=tls,
        trust_env=options.trust_env,
        follow_redirects=False,
        timeout=httpx2.Timeout(LOOK_TIMEOUT, connect=options.connect_timeout),
    ) as client:
        for endpoint in endpoints.all:
            try:
                listed = _listed(client, endpoint.address, options, key)
            except FailedForNowError as error:
                endpoints.failed(endpoint)
                down.append(error.error)
                continue
            one = _chosen(listed, options.model, endpoint.address)
            found.append(one)
            told = _version(client, endpoint.address, one)
            version = version or told
            manner = replace(
                endpoint.manner,
                neutral=one.owner in SAMPLING,
                keeps_pictures=options.pictures == "uuid" and _keeps_pictures(told, endpoint.address),
            )
            endpoints.learn(endpoint, manner)
    if not found:
        raise down[0]
    names = sorted({one.name for one in found})
    if len(names) > 1:
        raise SettingsError(
            f"chat: found servers of different models ({', '.join(names)}), expected the same; name one with "
            "model=NAME"
        )
    contexts = [one.context_tokens for one in found if one.context_tokens is not None]
    served = Served(
        name=found[0].name,
        key=key,
        family=_family(found[0], options),
        context_tokens=min(contexts, default=None),
    )
    name = in_one_line(served.name)
    return Opened(
        name=name.rstrip("/").rpartition("/")[2] if name.startswith("/") else name,
        version=version,
        family=served.family,
        context_tokens=served.context_tokens,
        endpoints=endpoints,
        exchange=Exchange(served, endpoints, options),
        key=key,
        tls=tls,
        options=options,
    )


def _tls(addresses: Sequence[Address], options: ChatOptions) -> ssl.SSLContext:
    """Whom to trust; loading all that this system trusts takes a while, so only where it is needed."""
    if not any(one.base.startswith("https:") for one in addresses):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = httpx2.create_ssl_context(trust_env=options.trust_env)
    if options.ca_file is not None:
        try:
            context.load_verify_locations(Path(options.ca_file).expanduser())
        except OSError as error:
            raise SettingsError(
                f"chat: ca_file: found no usable certificate in {options.ca_file} ({error}), expected PEM"
            ) from error
    return context


def _headers(key: str) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "User-Agent": f"medmllm/{__version__}"}
    return headers | ({"Authorization": f"Bearer {key}"} if key else {})


def _key(options: ChatOptions) -> str:
    name = options.api_key_env
    key = os.environ.get(name, "").strip()
    if not key and name != ChatOptions().api_key_env:
        raise SettingsError(f"chat: found no environment variable {name}, expected the server's key in it")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise SettingsError(f"chat: {name} holds no usable key, expected printable ASCII without spaces")
    return key


def _listed(
    client: httpx2.Client, address: Address, options: ChatOptions, key: str
) -> tuple[Listed, ...] | None:
    """The server's models; None if it has no such list."""
    try:
        answer = client.get(f"{address.base}/models")
    except httpx2.HTTPError as error:
        raise network_error(address.host, error, read_timeout=LOOK_TIMEOUT) from error
    if answer.status_code in (404, 405, 501) and options.model is not None:
        return None
    if answer.status_code != 200:
        location = answer.headers.get("location", "")
        refused = refusal(address.host, answer.status_code, answer.text, location=location, secret=key)
        refusing = refused.error(
            model="/models", reply_tokens=0, key_env=options.api_key_env, has_key=bool(key)
        )
        raise FailedForNowError(refusing) if answer.status_code in FOR_NOW else refusing
    try:
        listed = tuple(map(_entry, json.loads(answer.text)["data"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        what = "an HTML page" if looks_like_html(answer.text) else in_one_line(answer.text)[:80] or "nothing"
        raise ModelError(
            f"{address.host}: found {what} at {address.base}/models, expected a list of models; is this the "
            "address of a chat-completions server?"
        ) from None
    return listed


def _entry(said: dict[str, Any]) -> Listed:
    context = said.get("max_model_len")
    return Listed(
        name=str(said["id"]),
        root=str(said.get("root") or ""),
        owner=str(said.get("owned_by") or ""),
        context_tokens=context if isinstance(context, int) and context > 1 else None,
    )


def _chosen(listed: tuple[Listed, ...] | None, name: str | None, address: Address) -> Listed:
    if listed is None:
        return Listed(name=str(name), root="", owner="", context_tokens=None)
    names = ", ".join(in_one_line(one.name) for one in listed) or "none"
    matching = [one for one in listed if name in (None, one.name)]
    if len(matching) == 1:
        return matching[0]
    if name is None:
        raise SettingsError(
            f"{address.host}: found the models {names}, expected one; name it with model=NAME"
        )
    raise SettingsError(f"{address.host}: found no model {name!r}, expected one of {names}; correct model")


def _version(client: httpx2.Client, address: Address, one: Listed) -> str:
    """Such as `vllm 0.32.0`; the empty string where the server doesn't tell."""
    if one.owner != "vllm" or not address.base.endswith("/v1"):
        return ""
    try:
        answer = client.get(f"{address.base.removesuffix('/v1')}/version")
        version = json.loads(answer.text)["version"]
    except (httpx2.HTTPError, ValueError, KeyError, TypeError):
        return ""
    return in_one_line(f"{one.owner} {version}")[:60]


def _keeps_pictures(version: str, address: Address) -> bool:
    """True: the server is a vLLM that takes a picture's `uuid` for the picture.

    Raises:
        SettingsError: If it isn't: older ones leave such a picture out, and answer without it.
    """
    found = re.match(r"vllm (\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < KEEPS_PICTURES:
        what = version or "a server that doesn't tell to be vLLM"
        least = ".".join(map(str, KEEPS_PICTURES))
        raise SettingsError(
            f"{address.host}: pictures=uuid: found {what}, expected vllm {least} or newer; leave "
            "that option out"
        )
    return True


def _family(one: Listed, options: ChatOptions) -> Family | None:
    if options.family is not None:
        return family_of(options.family, where="chat: family")
    for name in (one.name, one.root):
        for pattern, model_type in FAMILY_NAMES:
            if re.search(pattern, name, re.IGNORECASE):
                return family_of(model_type, where=name)
    return None
