"""The engine service in a process of the package's Python: the real one, its model slowed if asked.

python engine_process.py CONFIG SECONDS: SECONDS is how long the model thinks before it answers, telling how
far it is, and stopping when it is told to. 0 leaves it as it is.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from medmllm_plugin import registry
from medmllm_plugin.cli import main
from medmllm_plugin.errors import CancelledError
from medmllm_plugin.models import Ask, Cancel, Progress, Reply

STEP_S = 0.1


class Slow:
    """A model that thinks for a while first."""

    def __init__(self, model: Any, seconds: float) -> None:
        self._model, self._seconds = model, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        """The model's own, later."""
        steps = round(self._seconds / STEP_S)
        for step in range(steps):
            if cancel is not None and cancel():
                raise CancelledError("the model was stopped")
            if progress is not None:
                progress(step, steps)
            time.sleep(STEP_S)
        answers: list[Reply] = self._model.replies(asks, progress=progress, cancel=cancel)
        return answers


def end_with_the_tests() -> None:
    """End when the tests that started this have ended, however they did."""
    tests = os.getppid()
    while os.getppid() == tests:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_the_tests, daemon=True).start()
    config, seconds = sys.argv[1], float(sys.argv[2])
    if seconds:
        plain = registry.open_model
        registry.open_model = lambda *values, **more: Slow(plain(*values, **more), seconds)
    sys.argv = ["medmllm", "serve", "--config", config]
    main()
