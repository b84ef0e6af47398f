"""A model that says what it was told to: for tests and dry runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import CancelledError, ModelError, SettingsError
from medmllm_plugin.models import Ask, Cancel, Capabilities, Progress, Reply
from medmllm_plugin.sliceset import SliceSet

ANYTHING = Capabilities(
    pictures=64,
    boxes=True,
    schema_bound=False,
    domain="nothing: its replies are written beforehand and have nothing to do with the images",
)


class ScriptedModel:
    """Gives the replies it was made with, one after the other, and remembers what it was asked."""

    version = ""
    weights_sha256 = ""
    dtype = "none"

    def __init__(
        self,
        replies: Iterable[str | Mapping[str, Any] | Reply],
        *,
        capabilities: Capabilities = ANYTHING,
        outside: str | None = None,
        name: str = "scripted",
    ) -> None:
        """Take the replies.

        Args:
            replies: Texts as they are, objects as their JSON, or whole replies with tokens and probabilities.
            capabilities: What it claims to be able to do.
            outside: What `outside_domain` answers.
            name: What it is called.
        """
        self.name = name
        self.capabilities = capabilities
        self.asked: list[Ask] = []
        """What it was asked, in order."""
        self._replies = [_as_reply(reply) for reply in replies]
        self._outside = outside

    def outside_domain(self, slices: SliceSet) -> str | None:
        """What it was told to answer."""
        return self._outside

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        """The next reply for each.

        Raises:
            ModelError: If there is none left.
            CancelledError: If `cancel` said so.

        >>> from medmllm_plugin.prompts import Prompt
        >>> model = ScriptedModel(["first"])
        >>> ask = Ask(prompt=Prompt(system="", parts=()), schema=None)
        >>> model.replies([ask])[0].text
        'first'
        >>> model.replies([ask])
        Traceback (most recent call last):
        medmllm_plugin.errors.ModelError: scripted: asked 2 times, expected 1 at most; write more replies
        """
        return [self._next(ask, progress, cancel) for ask in asks]

    def _next(self, ask: Ask, progress: Progress | None, cancel: Cancel | None) -> Reply:
        if cancel is not None and cancel():
            raise CancelledError(f"{self.name}: stopped before its reply")
        self.asked.append(ask)
        count = len(self._replies)
        if len(self.asked) > count:
            raise ModelError(
                f"{self.name}: asked {len(self.asked)} times, expected {count} at most; write more replies"
            )
        reply = self._replies[len(self.asked) - 1]
        if progress is not None:
            progress(min(max(len(reply.token_texts), 1), ask.max_tokens), ask.max_tokens)
        return reply

    def box_to_picture(self, box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
        """The box as it is: written replies point in pixels of the picture."""
        return box


def open_model(spec: str) -> ScriptedModel:
    """Gives the replies of a JSON file: `scripted:FILE`, a list of texts or objects (for dry runs).

    Raises:
        SettingsError: If the file isn't there or isn't such a list.
    """
    if not spec:
        raise SettingsError(
            "scripted: found no file of replies, expected scripted:FILE; name a JSON file of a list"
        )
    try:
        replies = json.loads(Path(spec).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"scripted: {spec} can't be read: {error.strerror}; name a JSON file of replies"
        ) from error
    except ValueError as error:
        raise SettingsError(f"scripted: {spec} is not JSON: {error}; write a list of replies") from error
    if not isinstance(replies, list):
        raise SettingsError(f"scripted: {spec}: found a {type(replies).__name__}, expected a list of replies")
    for position, reply in enumerate(replies):
        if not isinstance(reply, str | dict):
            found = type(reply).__name__
            raise SettingsError(
                f"scripted: {spec}[{position}]: found a {found}, expected a text or an object"
            )
    return ScriptedModel(replies)


def _as_reply(reply: str | Mapping[str, Any] | Reply) -> Reply:
    if isinstance(reply, Reply):
        return reply
    text = reply if isinstance(reply, str) else json.dumps(reply, ensure_ascii=False, separators=(",", ":"))
    return Reply(text=text, seconds=0.0)
