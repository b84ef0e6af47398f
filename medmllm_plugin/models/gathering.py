"""Questions of several threads put to a model together, as many as came while it was busy.

Nobody waits for others to come: the first question is put at once, and those that come meanwhile make up the
next call. Where a call fails that several share, each is put again by itself, so what is wrong with one is
its own.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from medmllm_plugin.errors import CancelledError
from medmllm_plugin.models import Ask, Cancel, Model, Progress, Reply
from medmllm_plugin.models.wrapped import Wrapped

MOST = 16
"""Most askers of one call."""

LOOK_S = 0.1
"""How often one who waits looks whether it shall stop, seconds."""

IDLE_S = 5.0
"""How long the thread that asks stays when nobody does."""


@dataclass(kw_only=True, slots=True, eq=False)
class _Call:
    """What one thread asks."""

    asks: list[Ask]
    progress: Progress | None
    cancel: Cancel | None
    done: threading.Event = field(default_factory=threading.Event)
    replies: list[Reply] = field(default_factory=list)
    error: BaseException | None = None
    left: bool = False
    """Whether the thread that asked waits no longer."""

    def stopped(self) -> bool:
        """Whether nobody wants the replies any more."""
        if not self.left and self.cancel is not None and self.cancel():
            self.left = True
        return self.left

    def tell(self, written: int, most: int) -> None:
        """Pass on how far the model is; who stops it by that stops itself alone."""
        if self.progress is not None and not self.left:
            try:
                self.progress(written, most)
            except CancelledError:
                self.left = True


class Gathering(Wrapped):
    """A model that several threads may ask at once, and that is asked for all of them together."""

    def __init__(self, model: Model) -> None:
        """Take a model that answers several prompts of one call quicker than one call after the other."""
        super().__init__(model)
        self._changed = threading.Condition()
        self._waiting: list[_Call] = []
        self._working = False

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        """As `Model.replies`, beside what other threads ask."""
        if not asks:
            return []
        call = _Call(asks=list(asks), progress=progress, cancel=cancel)
        with self._changed:
            self._waiting.append(call)
            self._changed.notify()
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="medmllm-gathering", daemon=True).start()
        while not call.done.wait(LOOK_S):
            if call.stopped():
                break
        if call.left and not call.replies:
            raise CancelledError(f"{self.name}: stopped before its reply")
        if call.error is not None:
            raise call.error
        return call.replies

    def _work(self) -> None:
        """Put what waits, until nothing has come for a while."""
        while True:
            with self._changed:
                if not self._waiting and not self._changed.wait_for(lambda: bool(self._waiting), IDLE_S):
                    self._working = False
                    return
                calls, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            wanted = [one for one in calls if not one.stopped()]
            if wanted:
                self._put(wanted)

    def _put(self, calls: Sequence[_Call]) -> None:
        def told(written: int, most: int) -> None:
            for one in calls:
                one.tell(written, most)

        try:
            said = self._model.replies(
                [ask for one in calls for ask in one.asks],
                progress=told,
                cancel=lambda: all(one.stopped() for one in calls),
            )
        except BaseException as error:
            if len(calls) > 1 and not isinstance(error, CancelledError):
                for one in calls:
                    self._put([one])
                return
            for one in calls:
                one.error = error
                one.done.set()
            return
        for one in calls:
            one.replies, said = said[: len(one.asks)], said[len(one.asks) :]
            one.done.set()


def gathered(model: Model) -> Model:
    """The model itself, or where it answers several prompts quicker together, one that gathers them."""
    return Gathering(model) if model.capabilities.gathers else model
