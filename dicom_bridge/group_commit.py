"""Makes the writes of many threads durable by few syncs."""

from __future__ import annotations

import threading
from collections.abc import Callable


class GroupCommit:
    """One file's syncs, shared by those who write to it.

    A sync covers only writes that had ended before it began: a writer takes its number after its write, and
    waits until a sync that began later has ended.
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        """Take what syncs."""
        self._sync = sync
        self._turn = threading.Condition()
        self._asked = self._done = 0
        self._busy = False
        self.failed: OSError | None = None
        """Why a sync failed; what was written may be lost whatever a later sync says, so there is none."""

    def wait(self) -> None:
        """Return when all that this thread has written is durable.

        Raises:
            OSError: If it isn't.
        """
        with self._turn:
            self._asked += 1
            mine = self._asked
            while self._done < mine:
                if self.failed is not None:
                    raise OSError(self.failed.errno, self.failed.strerror)
                if self._busy:
                    self._turn.wait()
                else:
                    self._sync_all()

    def _sync_all(self) -> None:
        self._busy, covered = True, self._asked
        self._turn.release()
        error = None
        try:
            self._sync()
        except OSError as caught:
            error = caught
        finally:
            self._turn.acquire()
            self._busy = False
            if error is None:
                self._done = max(self._done, covered)
            else:
                self.failed = error
            self._turn.notify_all()
