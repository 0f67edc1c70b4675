"""The marks of streams whose sessions can be resumed.

They are stored before the frames behind them get in, so that whoever goes on with such a session can tell its client where it
stands.
"""

from collections.abc import Sequence

import anyio
import anyio.to_thread
import sqlalchemy as sa

from agentos.core.communication.voice.storage.schema import stream_marks
from agentos.core.communication.voice.storage.store import VoiceStore
from machines.stream.media_time import Mark


class KeptMarks:
    """The marks of one stream, which is known by the hash of its resume token. `waiting` are not stored yet, oldest first."""

    def __init__(self, store: VoiceStore, stream: str) -> None:
        self.waiting: list[Mark] = []
        self._store = store
        self._stream = stream
        self._storing = anyio.Lock()

    async def keep(self) -> None:
        """Store those that wait. Raises `StoreError`: they wait on."""
        async with self._storing:
            while self.waiting:
                marks = tuple(self.waiting)
                await anyio.to_thread.run_sync(self._keep, marks)
                del self.waiting[: len(marks)]

    def _keep(self, marks: Sequence[Mark]) -> None:
        of_stream = stream_marks.c.stream == self._stream
        overtaken = sa.delete(stream_marks).where(of_stream, stream_marks.c.number >= marks[0].number)
        newest = {mark.number: {"stream": self._stream, **mark._asdict()} for mark in marks}
        with self._store.transaction() as connection:
            connection.execute(overtaken)
            connection.execute(sa.insert(stream_marks), list(newest.values()))
