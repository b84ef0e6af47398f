"""A chat-completions server on this machine, which answers as vLLM does, or misbehaves as it is told to."""

from __future__ import annotations

import atexit
import base64
import io
import json
import math
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from medmllm_plugin.errors import CancelledError
from medmllm_plugin.models import Ask, Cancel, Model, Reply, transformers
from medmllm_plugin.models.chat_http import ChatModel, open_model
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart, Turn
from tests.tiny_model import tiny_folder

NOTHING_FOUND = '{"abnormal_pictures":[],"findings":[],"impression":["No finding."]}'

Behaviour = Callable[["Handler", dict[str, Any]], None]
"""Answers one request in a way of its own."""


class ChatServer(ThreadingHTTPServer):
    """Serves one model under one name; `asked` and `headers` keep what came, in the order it came."""

    daemon_threads = True

    def __init__(
        self,
        *,
        say: str | Model | Callable[[Prompt], str] = NOTHING_FOUND,
        name: str = "lingshu",
        port: int = 0,
        pictures: int = 8,
        context_tokens: int | None = 32_768,
        key: str = "",
        forms: tuple[str, ...] = ("json_schema", "json_object"),
        without: tuple[str, ...] = (),
        owner: str = "vllm",
        version: str = "0.32.0",
        models: tuple[str, ...] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take what it serves.

        Args:
            say: The reply, the model that makes it, or what makes it of the prompt.
            name: Of the model.
            port: Where it listens; 0 for any that is free.
            pictures: Most pictures in a prompt.
            context_tokens: Told as `max_model_len`.
            key: The key it asks for.
            forms: Of `response_format` that it knows.
            without: Fields of a request that it refuses.
            owner: What kind of server it says it is.
            version: And which version of that.
            models: More names on its list.
            tls: Its certificate, for https.
        """
        super().__init__(("127.0.0.1", port), Handler)
        self.scheme = "http" if tls is None else "https"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.say, self.name, self.pictures, self.key = say, name, pictures, key
        self.context_tokens, self.forms, self.without, self.owner = context_tokens, forms, without, owner
        self.models, self.version = (name, *models), version
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.bytes: list[int] = []
        self.paths: list[str] = []
        self.behaviours: list[Behaviour] = []
        """What is done with the next requests, instead of answering."""
        self.kept: dict[str, str] = {}
        """Pictures by their `uuid`."""
        self.open = 0
        """Requests under way."""
        self.most_open = 0
        self.closed_early = threading.Event()
        """Set when a client left before its answer was whole."""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no error."""
        self.closed_early.set()


@contextmanager
def serving(**settings: Any) -> Iterator[ChatServer]:
    """A server that runs; `settings` are those of `ChatServer`."""
    server = ChatServer(**settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@cache
def tiny_over_http() -> ChatModel:
    """The tiny model behind a server, both made once and there until the tests have ended."""
    running = ExitStack()
    atexit.register(running.close)
    tiny = transformers.open_model(str(tiny_folder(seed=1)))
    server = running.enter_context(serving(say=tiny, name="tiny", context_tokens=None))
    return open_model(f"{server.url}?family=qwen2_5_vl")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: ChatServer

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        """The model's list, and what vLLM tells beside it."""
        self.server.paths.append(self.path)
        if self._refused_key():
            return
        if self.path == "/version":
            self.send({"version": self.server.version})
        elif self.path == "/v1/models":
            listed = [
                {
                    "id": name,
                    "object": "model",
                    "owned_by": self.server.owner,
                    "root": f"/models/{name}",
                    "max_model_len": self.server.context_tokens,
                }
                for name in self.server.models
            ]
            self.send({"object": "list", "data": listed})
        else:
            self.refuse(404, "Not Found")

    def do_POST(self) -> None:
        """A question."""
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = json.loads(body)
        with server.lock:
            server.open += 1
            server.most_open = max(server.most_open, server.open)
            server.asked.append(asked)
            server.headers.append(dict(self.headers))
            server.bytes.append(len(body))
            behaviour = server.behaviours.pop(0) if server.behaviours else answer
        try:
            if not self._refused_key():
                behaviour(self, asked)
        finally:
            with server.lock:
                server.open -= 1

    def send(self, content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """An answer: an object as JSON, a text as it is."""
        text = content if isinstance(content, str) else json.dumps(content)
        kind = "application/json" if not isinstance(content, str) else "text/html"
        self.send_response(status)
        body = text.encode()
        for key, value in {"Content-Type": kind, "Content-Length": len(body), **(headers or {})}.items():
            self.send_header(key, str(value))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: int, message: str, **headers: str) -> None:
        """An error in vLLM's form."""
        error = {"message": message, "type": "BadRequestError", "param": None, "code": status}
        self.send(
            {"error": error}, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )

    def events(self, pieces: Iterator[dict[str, Any] | str]) -> None:
        """A stream of events; a text stands as it is."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in pieces:
            data = piece if isinstance(piece, str) else json.dumps(piece, ensure_ascii=False)
            self.wfile.write(f"data: {data}\n\n".encode())
            self.wfile.flush()
        self.close_connection = True

    def left(self) -> bool:
        """Whether the client has closed the connection."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _refused_key(self) -> bool:
        key = self.server.key
        if not key or self.headers.get("Authorization") == f"Bearer {key}":
            return False
        self.refuse(401, f"Unauthorized: {self.headers.get('Authorization')}")
        return True


def answer(handler: Handler, asked: dict[str, Any]) -> None:
    """As vLLM does: refuse what it doesn't take, else the reply, token by token if so asked."""
    server = handler.server
    form = (asked.get("response_format") or {}).get("type")
    if asked["model"] not in server.models:
        return handler.refuse(404, f"The model `{asked['model']}` does not exist.")
    for field in server.without:
        if field in asked:
            return handler.refuse(400, f"Unsupported parameter: '{field}' is not supported with this model.")
    if form is not None and form not in server.forms:
        return handler.refuse(400, f"response_format of type {form} is not supported")
    try:
        prompt = prompt_of(asked["messages"], server.kept)
    except LookupError as error:
        return handler.refuse(400, str(error.args[0]))
    if len(prompt.pictures) > server.pictures:
        return handler.refuse(400, f"At most {server.pictures} image(s) may be provided in one prompt.")
    try:
        reply = reply_to(asked, prompt, server.say, handler.left)
    except CancelledError:
        handler.close_connection = True
        return None
    return send_reply(handler, asked, reply)


def reply_to(
    asked: dict[str, Any], prompt: Prompt, say: str | Model | Callable[[Prompt], str], left: Cancel
) -> Reply:
    """The reply of a model, which stops if the client has left; or one that is written, in tokens of four."""
    if isinstance(say, Model):
        form = asked.get("response_format") or {}
        schema = form["json_schema"]["schema"] if form.get("type") == "json_schema" else None
        ask = Ask(
            prompt=prompt,
            schema=schema,
            seed=asked.get("seed", 0),
            max_tokens=asked["max_tokens"],
            temperature=asked["temperature"],
        )
        return say.replies([ask], cancel=left)[0]
    text = say if isinstance(say, str) else say(prompt)
    texts = tuple(text[at : at + 4] for at in range(0, len(text), 4))
    kept = texts[: asked.get("max_tokens", len(texts))]
    return Reply(
        text="".join(kept),
        seconds=0.0,
        token_texts=kept,
        token_probabilities=(0.5,) * len(kept),
        token_alternatives=tuple(((one, 0.5), ("?", 0.25), ("!", 0.0)) for one in kept),
        finished=len(kept) == len(texts),
    )


def send_reply(handler: Handler, asked: dict[str, Any], reply: Reply) -> None:
    """A reply as vLLM sends it, whole or in events, with the token that ended it among the logprobs."""
    told = [
        {"token": text, "logprob": logarithm(probability), "top_logprobs": top}
        for text, probability, top in zip(
            reply.token_texts,
            reply.token_probabilities,
            [
                [{"token": other, "logprob": logarithm(share)} for other, share in alternatives]
                for alternatives in reply.token_alternatives or ((),) * len(reply.token_texts)
            ],
            strict=True,
        )
    ]
    end = {"token": "<|im_end|>", "logprob": -0.25, "top_logprobs": [{"token": "x", "logprob": -2.0}]}
    finish = "stop" if reply.finished else "length"
    wanted = bool(asked.get("logprobs"))
    if not asked.get("stream"):
        logprobs = {"content": [*told, end]} if wanted else None
        message = {"role": "assistant", "content": reply.text}
        handler.send(
            {"choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish}]}
        )
        return

    def pieces() -> Iterator[dict[str, Any] | str]:
        yield piece("", None, role="assistant")
        texts = reply.token_texts or (reply.text,)
        for text, one in zip(texts, told or [None] * len(texts), strict=True):
            yield piece(text, None, logprobs={"content": [one]} if wanted and one else None)
        yield piece("", finish, logprobs={"content": [end]} if wanted else None)
        yield {"choices": [], "usage": {"completion_tokens": len(texts)}}
        yield "[DONE]"

    handler.events(pieces())


def piece(text: str, finish: str | None, *, logprobs: Any = None, **more: str) -> dict[str, Any]:
    """One event of a stream."""
    delta = {"content": text, **more}
    return {"choices": [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]}


def prompt_of(messages: list[dict[str, Any]], kept: dict[str, str]) -> Prompt:
    """The prompt that messages hold; pictures with a `uuid` are kept, and found again by it alone.

    Raises:
        LookupError: If a picture is named that is not kept.
    """
    system = ""
    if messages[0]["role"] == "system":
        system, messages = messages[0]["content"], messages[1:]
    parts: list[TextPart | PicturePart] = []
    for part in messages[0]["content"]:
        if part["type"] == "text":
            parts.append(TextPart(text=part["text"]))
            continue
        number = sum(isinstance(one, PicturePart) for one in parts)
        uuid = part.get("uuid")
        if part["image_url"] is None and uuid not in kept:
            raise LookupError(f"Cache miss for image at index {number} but data is not provided.")
        url = kept[uuid] if part["image_url"] is None else part["image_url"]["url"]
        if uuid is not None:
            kept[uuid] = url
        parts.append(PicturePart(number=number + 1, pixels=pixels_of(url)))
    turns = tuple(Turn(role=one["role"], text=one["content"][0]["text"]) for one in messages[1:])
    return Prompt(system=system, parts=tuple(parts), turns=turns)


def pixels_of(url: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The picture at a data URL or in a file, shape (rows, columns, 3)."""
    if url.startswith("file://"):
        image = Image.open(url.removeprefix("file://"))
    else:
        image = Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2])))
    with image:
        return np.asarray(image.convert("RGB"))


def logarithm(probability: float) -> float:
    """As vLLM tells it: never below -9999."""
    return math.log(probability) if probability > 0 else -9999.0
