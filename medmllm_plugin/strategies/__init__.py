"""How a study is read: in one pass or in several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from medmllm_plugin.models import Cancel, Model
from medmllm_plugin.parsing import Parsed
from medmllm_plugin.report import Heard
from medmllm_plugin.request import Request
from medmllm_plugin.sliceset import SliceSet

View = Callable[[Mapping[str, Any]], SliceSet]
"""Shows the same volume once more by settings of `transforms.slices.SlicePlan`."""

Stages = Callable[[int, int, int, int], None]
"""Called with (pass from 1, passes, tokens written, tokens at most)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Looked:
    """What came of looking at a study."""

    parsed: Parsed
    request: Request
    """What was asked in the end: its slices are the pictures that the findings cite."""
    heard: tuple[Heard, ...]
    """All replies in the order they came; the last is the one that counts where one does."""
    notes: tuple[str, ...] = ()
    """What a reader must know of how it was read."""


class Strategy(Protocol):
    """A way of reading."""

    @property
    def name(self) -> str:
        """What `--strategy` calls it."""

    @property
    def summary(self) -> str:
        """What it does, in a line."""

    def read(
        self,
        request: Request,
        model: Model,
        *,
        view: View | None = None,
        progress: Stages | None = None,
        cancel: Cancel | None = None,
    ) -> Looked:
        """Read the study.

        Args:
            request: What is asked.
            model: Who is asked.
            view: Makes more pictures; None where there is no volume to make them of.
            progress: Called as passes and tokens go on.
            cancel: Says when to stop.

        Raises:
            SettingsError: If the model can't be asked in this way.
            ModelError: If it can't answer.
            ReplyError: If its reply can't be used.
        """
