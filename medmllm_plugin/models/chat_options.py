"""Where chat-completions servers are and how they are asked: `chat:URL,URL?key=value&key=value`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from medmllm_plugin.errors import SettingsError

API_KEY_ENV = "MEDMLLM_API_KEY"
"""The environment variable that holds the key, unless the settings name another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatOptions:
    """How `chat:URL?…` is opened and asked."""

    model: str | None = None
    """The name it is served under; may be left out where a server serves one model."""
    family: str | None = None
    """Its architecture, as `model_type` of its config.json: how it gives boxes. None: told by its name."""
    api_key_env: str = API_KEY_ENV
    """The environment variable that holds the key; a key itself is never an option."""
    pictures: Literal["data", "uuid", "file"] = "data"
    """How they get there. data: in each request. uuid (vLLM): each once, then by its hash. file (vLLM with
    `--allowed-local-media-path`): as files in `picture_folder`."""
    picture_folder: str | None = None
    """A folder that the server reads too, for `pictures=file`; what is put there is removed after a reply."""
    most_pictures: int | None = None
    """Most pictures in one prompt; None: what the family can, until the server says less."""
    plan: str | None = None
    """The slice plan that suits it, as `--plan` takes it; None: as the family."""
    languages: tuple[str, ...] | None = None
    """In which it can be asked and answers, as ISO 639-1 codes; None: as the family."""
    domain: str | None = None
    """In words, what it was made to read."""
    calibration: str | None = None
    """A file that `medmllm calibrate` wrote for this model."""
    free_text: bool | None = None
    """True if the model can't be expected to write JSON; None: as the family."""
    response_format: Literal["json_schema", "json_object", "none"] = "json_schema"
    """How replies are bound to their schema; replies are checked whatever the server says."""
    stream: bool = True
    """Whether replies come token by token, which shows progress."""
    concurrency: int = 8
    """Most requests at once to one server."""
    connect_timeout: float = 10.0
    """Seconds to reach a server."""
    read_timeout: float = 300.0
    """Seconds without a sign from it; before the first token it reads the whole prompt."""
    timeout: float = 1800.0
    """Seconds for one reply, with all that is tried again."""
    retries: int = 4
    """How often a request that failed for now is sent again."""
    backoff: float = 0.5
    """Seconds that a server rests after its first failure; doubled with each further one, up to a minute."""
    min_pixels: int = 3136
    """Of the server's picture processor, for boxes in pixels of the picture it resized."""
    max_pixels: int = 12_845_056
    """Of the server's picture processor, as `min_pixels`."""
    insecure: bool = False
    """True: pictures may go over the network unencrypted."""
    ca_file: str | None = None
    """PEM file of an issuer of certificates to trust beside those that this system trusts."""
    trust_env: bool = False
    """True: the proxies that the environment names are used."""

    def __post_init__(self) -> None:
        for field in ("concurrency", "min_pixels", "max_pixels", "most_pictures"):
            number = getattr(self, field)
            if number is not None and number < 1:
                raise ValueError(f"{field}: found {number}, expected a number from 1")
        for field in ("connect_timeout", "read_timeout", "timeout", "backoff"):
            if getattr(self, field) <= 0:
                raise ValueError(f"{field}: found {getattr(self, field):g}, expected seconds above 0")
        if self.retries < 0:
            raise ValueError(f"retries: found {self.retries}, expected a number from 0")
        if (self.pictures == "file") != (self.picture_folder is not None):
            raise ValueError("picture_folder: expected together with pictures=file, and only then")


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """One server."""

    base: str
    """What `/chat/completions` is added to, such as `http://127.0.0.1:8000/v1`."""
    host: str
    """Host and port, for users to read."""
    loopback: bool
    """Whether what is sent there stays on this machine."""


def addresses(place: str, *, insecure: bool = False) -> tuple[Address, ...]:
    """The servers that a place names, one or several with commas between.

    Raises:
        SettingsError: If one is no address, names a user, or would get pictures unencrypted over the network.

    >>> [one.base for one in addresses("http://localhost:8000,https://gpu.example/openai/v1/")]
    ['http://localhost:8000/v1', 'https://gpu.example/openai/v1']
    """
    found = tuple(address(one.strip(), insecure=insecure) for one in place.split(",") if one.strip())
    if not found:
        raise SettingsError("chat: found no address, expected chat:URL such as chat:http://localhost:8000")
    twice = {one.base for one in found if [other.base for other in found].count(one.base) > 1}
    if twice:
        raise SettingsError(f"chat: found {sorted(twice)[0]} twice, expected each once; leave one out")
    return found


def address(url: str, *, insecure: bool = False) -> Address:
    """One server's address; without a path, `/v1` is added.

    Raises:
        SettingsError: As `addresses`.

    >>> address("http://10.0.0.7:8000")
    Traceback (most recent call last):
    medmllm_plugin.errors.SettingsError: http://10.0.0.7:8000: found http to another machine, expected https;
    with insecure=true pictures go there unencrypted
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingsError(f"{url}: found no usable address ({error}), expected http://HOST:PORT") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
        raise SettingsError(f"{url}: found no address of a server, expected http://HOST:PORT or https://HOST")
    if parts.username is not None or parts.password is not None:
        raise SettingsError(
            f"{parts.hostname}: found a user's name or password in the address; put the server's key into "
            f"the environment variable {API_KEY_ENV}, or name another with api_key_env"
        )
    if parts.query or parts.fragment:
        raise SettingsError(f"{url}: found a '?' or '#', expected an address without")
    loopback = _is_loopback(parts.hostname)
    if parts.scheme == "http" and not loopback and not insecure:
        raise SettingsError(
            f"{url}: found http to another machine, expected https; with insecure=true pictures go there "
            "unencrypted"
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    host = name if port is None else f"{name}:{port}"
    return Address(base=f"{parts.scheme}://{host}{path}", host=host, loopback=loopback)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
