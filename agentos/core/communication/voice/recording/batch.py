"""The batch of audio handed over to the media port's thread, and giving up its oldest bytes if too much waits."""

from msgspec import Struct

from actors.runtime.health import Heartbeat
from actors.voice.messages import Keep, OpenMedia
from machines.reasons import BACKLOG


class Handed(Struct, gc=False):
    """Successive frames of one session as they were handed over: `size` bytes in `parts`; None if the bytes are gone, for
    `reason`.

    `more` has the runs that do not continue this one. The garbage collector does not track these objects (`gc=False`), and
    their lists are reused: thousands of them live for a moment only, and would make the collector run again and again.
    """

    first: int
    frames: int
    size: int
    parts: list[bytes] | None
    more: "list[Handed] | None" = None
    reason: str = ""


class Batch:
    """The audio handed over since the thread took the last batch. Frames are joined into runs as they come: handling single
    frames would cost the thread five times as much. `free` are lists for the parts of runs."""

    __slots__ = ("_free", "closes", "heartbeats", "opens", "runs")

    def __init__(self, free: list[list[bytes]]) -> None:
        self._free = free
        self.opens: list[OpenMedia] = []
        self.runs: dict[str, Handed] = {}
        self.closes: list[tuple[str, int]] = []  # with the frame at which the call ends
        self.heartbeats: list[Heartbeat] = []

    def __bool__(self) -> bool:
        return bool(self.runs or self.opens or self.closes or self.heartbeats)

    def keep(self, work: Keep, data: bytes | None, reason: str) -> None:
        """Add frames, to the run before them if they continue it; `reason` tells why their bytes are gone, if they are."""
        run = self.runs.get(work.session_id)
        if run is None:
            self.runs[work.session_id] = self._handed(work, data, reason)
            return
        last = run if run.more is None else run.more[-1]
        count = work.count
        goes_on = work.first == last.first + last.frames
        if goes_on and data is not None and last.parts is not None and len(data) == count * last.size:
            last.frames += count
            last.parts.append(data)
        elif goes_on and data is None and last.parts is None and last.reason == reason:
            last.frames += count
        elif run.more is None:
            run.more = [self._handed(work, data, reason)]
        else:
            run.more.append(self._handed(work, data, reason))

    def give_up_oldest(self, session_id: str, keep: int) -> int:
        """Drop a session's oldest bytes until at most `keep` frames have bytes; return for how many frames."""
        head = self.runs[session_id]
        runs = [head, *(head.more or ())]
        excess: int = sum([run.frames for run in runs if run.parts is not None]) - keep
        if excess <= 0:
            return 0
        over = excess
        left: list[Handed] = []
        for run in runs:
            gone = min(over, run.frames) if run.parts is not None else 0
            over -= gone
            for piece in self._split(run, gone) if gone else (run,):
                last = left[-1] if left else piece
                goes_on = last.first + last.frames == piece.first and last.reason == piece.reason
                if goes_on and last.parts is piece.parts is None:
                    last.frames += piece.frames
                else:
                    left.append(piece)
        head, *more = left
        for run in left:
            run.more = None
        head.more = more or None
        self.runs[session_id] = head
        return excess

    def _split(self, run: Handed, gone: int) -> tuple[Handed, ...]:
        """A run split into its first `gone` frames, without bytes, and the rest."""
        parts = run.parts or []
        given_up = Handed(run.first, gone, 0, None, reason=BACKLOG)
        if gone == run.frames:
            parts.clear()
            self._free.append(parts)
            return (given_up,)
        skip = gone * run.size
        while skip >= len(parts[0]):
            skip -= len(parts.pop(0))
        parts[0] = parts[0][skip:]
        return given_up, Handed(run.first + gone, run.frames - gone, run.size, parts)

    def _handed(self, work: Keep, data: bytes | None, reason: str) -> Handed:
        if data is None:
            return Handed(work.first, work.count, 0, None, reason=reason)
        parts = self._free.pop() if self._free else []
        parts.append(data)
        return Handed(work.first, work.count, len(data) // work.count, parts)
