"""Whether what a service has on its disk is still where it was: its database, its lock, a place for recordings.

A database that was deleted or moved goes on taking writes that nobody will ever read, and a lock file that is gone tells every
other process that this one has died. So both are looked at once a second, beside every commit that looks by itself; while
something is wrong no call is let in.
"""

import os
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from agentos.core.communication.voice.errors import StoreError
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.measuring.looks import Look
from agentos.core.communication.voice.storage.failures import gone
from agentos.core.communication.voice.storage.ownership import Ownership
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.time import monotonic_ms

LOOK_SECONDS: Final = 1.0
LATE_MS: Final = 5_000  # a look that takes longer hangs, and the disk with it

log = logger(__name__)


class HomeWatch:
    """Looks at the home of a service until `run` is cancelled."""

    def __init__(self, store: VoiceStore, ownership: Ownership, recordings: Path) -> None:
        self._store = store
        self._ownership = ownership
        self._recordings = recordings
        self._problem: str | None = None
        self._looking_since_ms: int | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong, in a sentence, as far as was seen; None if nothing is."""
        since = self._looking_since_ms
        if self._problem is None and since is not None and monotonic_ms() - since > LATE_MS:
            return f"the disk of {self._store.home} does not answer"
        return self._problem

    async def run(self) -> None:
        """Look once a second. What is found is in the log once, and once when it is over."""
        look, thread = Look("home"), anyio.CapacityLimiter(1)  # of its own: a disk that hangs keeps it
        while True:
            with look:
                self._looking_since_ms = monotonic_ms()
                problem = await anyio.to_thread.run_sync(self._look, abandon_on_cancel=True, limiter=thread)
                self._looking_since_ms = None
                self._note(problem)
            await anyio.sleep(LOOK_SECONDS)

    def _note(self, problem: str | None) -> None:
        if problem is not None and self._problem is None:
            log.error("home_lost", problem=problem)
        elif problem is None and self._problem is not None:
            log.warning("home_back", was=self._problem)
        self._problem = problem

    def _look(self) -> str | None:
        try:
            self._store.check_in_place()
            self._ownership.check()
            self._check_recordings()
        except StoreError as error:
            return str(error)
        return None

    def _check_recordings(self) -> None:
        path = self._recordings
        if path.is_dir():
            place = path
        elif path.exists() or path.is_symlink():
            raise gone(path, "is no folder, so that nothing can be recorded")
        else:
            place = path.parent  # it is made there with the first recording
        if not os.access(place, os.W_OK | os.X_OK):
            raise gone(place, "can't be written, so that nothing can be recorded")
