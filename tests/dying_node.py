"""A node that kills itself at a named place, as a power cut would: `python -m tests.dying_node CONFIG PLACE`.

PLACE is `module:function:before` or `:after`: the module lies in `medmllm_plugin`, the function may be
`Class.method`. The process gets SIGKILL the first time that it comes there, from whatever thread.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

from medmllm_plugin.cli import medmllm


def die_at(place: str) -> None:
    """Have this process end when it comes to a place."""
    module_name, name, when = place.split(":")
    holder: Any = importlib.import_module(f"medmllm_plugin.{module_name}")
    *outer, last = name.split(".")
    for one in outer:
        holder = getattr(holder, one)
    whole = getattr(holder, last)

    def dying(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            whole(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(holder, last, dying)


if __name__ == "__main__":
    config, place = sys.argv[1:]
    die_at(place)
    medmllm(["serve", "--config", config])
