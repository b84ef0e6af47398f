"""One look at all pictures."""

from __future__ import annotations

from dataclasses import dataclass

from medmllm_plugin.asking import ask
from medmllm_plugin.models import Cancel, Model
from medmllm_plugin.request import Request
from medmllm_plugin.strategies import Looked, Stages, View


@dataclass(frozen=True, kw_only=True, slots=True)
class Single:
    """Shows all pictures once and takes the reply as it is."""

    name = "single"
    summary = "one look at all pictures"

    def read(
        self,
        request: Request,
        model: Model,
        *,
        view: View | None = None,
        progress: Stages | None = None,
        cancel: Cancel | None = None,
    ) -> Looked:
        """Ask once; see `Strategy.read`."""
        tell = None if progress is None else lambda done, most: progress(1, 1, done, most)
        (answered,) = ask([request], model, purpose=request.task.name, progress=tell, cancel=cancel)
        return Looked(
            parsed=answered.usable(model), request=request, heard=answered.heard, notes=answered.notes
        )
