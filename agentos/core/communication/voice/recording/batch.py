"""What was handed over to the media port since its thread last came for it, and what of it goes when too much waits."""

from msgspec import Struct

from actors.runtime.health import Heartbeat
from actors.voice.messages import Keep, OpenMedia
from machines.reasons import BACKLOG


class Handed(Struct, gc=False):
    """Successive frames of one session as they were handed over: `size` bytes each, in `parts`; None when they are gone, for
    `reason`.

    `more` holds the runs that do not continue this one. It is none of the collector's business (`gc=False`), and the lists
    are used again: thousands of these live for a moment only, and would make the collector walk through everything else
    again and again.
    """

    first: int
    frames: int
    size: int
    parts: list[bytes] | None
    more: "list[Handed] | None" = None
    reason: str = ""


class Batch:
    """What was handed over since the thread last came for it. Runs are put together here, as they come: one frame at a
    time costs the thread five times as much later. `free` are lists for their parts."""

    __slots__ = ("_free", "closes", "heartbeats", "opens", "runs")

    def __init__(self, free: list[list[bytes]]) -> None:
        self._free = free
        self.opens: list[OpenMedia] = []
        self.runs: dict[str, Handed] = {}
        self.closes: list[tuple[str, int]] = []  # with the frame to which the call goes on
        self.heartbeats: list[Heartbeat] = []

    def __bool__(self) -> bool:
        return bool(self.runs or self.opens or self.closes or self.heartbeats)

    def keep(self, work: Keep, data: bytes | None, reason: str) -> None:
        """Add frames, to the run before them where they continue it; `reason` tells why their bytes are gone."""
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
        """Let go of a session's oldest bytes until at most `keep` frames have theirs; how many frames that were."""
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
        """A run whose first frames are `gone`, and the rest of it."""
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
