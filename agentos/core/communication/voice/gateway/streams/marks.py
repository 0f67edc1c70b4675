"""The stored marks of streams whose sessions can be resumed.

A mark is stored before the frames behind it get in, so that a process that resumes the session can give the client its numbers.
"""

from collections.abc import Sequence

import anyio
import anyio.to_thread

from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.storage.tables import STREAM_MARKS, STREAMS, StreamMarkRow
from machines.stream.media_time import Mark


class KeptMarks:
    """The marks of one stream, known by the hash of its resume token. `waiting` marks are not stored yet, oldest first."""

    def __init__(self, store: VoiceStore, stream: str) -> None:
        self.waiting: list[Mark] = []
        self._store = store
        self._stream = stream
        self._storing = anyio.Lock()

    async def keep(self) -> None:
        """Store the waiting marks. If this raises `StoreError`, they wait on."""
        async with self._storing:
            while self.waiting:
                marks = tuple(self.waiting)
                await anyio.to_thread.run_sync(self._keep, marks)
                del self.waiting[: len(marks)]

    def _keep(self, marks: Sequence[Mark]) -> None:
        of_stream, first = {"stream": [self._stream]}, marks[0].number
        newest = {mark.number: StreamMarkRow(self._stream, *mark) for mark in marks}
        with self._store.transaction() as writing:
            if not writing.count(STREAMS, {"hash": [self._stream]}):
                return  # another stream has its place, and nobody will ask for the marks
            overtaken = writing.select(STREAM_MARKS, of_stream, order=("number",), after=(first - 1,))
            writing.delete(STREAM_MARKS, [(mark.stream, mark.number) for mark in overtaken])
            writing.add(STREAM_MARKS, list(newest.values()))
