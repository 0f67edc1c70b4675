"""A call written by hand: the work of the voice actors, by plain calls, as the unit that a frame and a life are compared with.

It has the same parts, hands the same work to the same ports, makes the same records and the same result, and keeps its
deadlines. It has no mailboxes, no journal, no supervision, no dead letters and no second life after a crash: what these cost
is the ratio.
"""

import heapq
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.voice.call_part import Ports
from actors.voice.messages import (
    Changed,
    Closed,
    CloseMedia,
    Draft,
    Facts,
    Finish,
    Finished,
    Frames,
    Hear,
    Keep,
    Kept,
    Levels,
    Listen,
    MediaClosed,
    OpenMedia,
)
from actors.voice.quality import quality_of
from agentos.core.communication.voice.recording.port import MediaPort
from agentos.core.communication.voice.sessions.door import Door, DoorLock
from agentos.core.time import monotonic_ms
from machines.audio import AudioFormat
from machines.communication import PolicyVerdict, RequestStatus
from machines.session import END_TRIGGER, NO_COUNTS, SESSION, EndReason, FrameAccount, SessionResult, VoiceSessionState

BACKLOG_FRAMES = 30_000
DRAIN_SECONDS, IDLE_SECONDS, MAX_SECONDS = 10.0, 300.0, 3600.0


class Deadlines:
    """Named deadlines in one heap; a cancelled one stays there until most are."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int]] = []
        self.live: dict[tuple[int, str], int] = {}
        self.count = 0

    def set(self, owner: int, name: str, at: float) -> None:
        """Arm it, or arm it anew."""
        self.count += 1
        self.live[owner, name] = self.count
        heapq.heappush(self.heap, (at, self.count))

    def cancel(self, owner: int, name: str) -> None:
        """It does not fire."""
        del self.live[owner, name]
        if len(self.heap) > 2 * len(self.live) + 64:
            live = set(self.live.values())
            self.heap = [entry for entry in self.heap if entry[1] in live]
            heapq.heapify(self.heap)


class PlainRecorder:
    """Hands runs to the media port, and keeps the account of what it answers."""

    __slots__ = ("call", "expected", "kept", "media", "n_bytes", "quality", "session_id")

    def __init__(self, call: "PlainCall", quality: "PlainQuality", media: Any, facts: Facts) -> None:
        self.call = call
        self.quality = quality
        self.media = media
        self.session_id = facts.session_id
        self.expected = self.kept = self.n_bytes = 0
        media.submit(
            OpenMedia(facts.session_id, facts.audio_format, facts.recording, self.answered, facts.can_be_slowed)
        )

    def frames(self, message: Frames) -> None:
        """Hand a run over."""
        if message.first != self.expected:
            raise AssertionError(message)
        self.expected = message.first + message.count
        self.media.submit(Keep(self.session_id, message.first, message.count))

    def drain(self) -> None:
        """No more frames follow."""
        self.media.submit(CloseMedia(self.session_id))

    def answered(self, message: Kept | MediaClosed) -> None:
        """What the port tells."""
        if message.__class__ is Kept:
            self.kept = message.kept
            self.n_bytes = message.n_bytes
            self.quality.measured(message)
        else:
            self.call.recorded = True
            self.call.answered()


class PlainTranscriber:
    """Hands runs to the speech port."""

    __slots__ = ("call", "expected", "heard", "session_id", "stt")

    def __init__(self, call: "PlainCall", stt: Any, facts: Facts) -> None:
        self.call = call
        self.stt = stt
        self.session_id = facts.session_id
        self.expected = self.heard = 0
        if facts.stt_engine is not None:
            stt.submit(Listen(facts.session_id, facts.stt_engine, facts.audio_format, self.answered))

    def frames(self, message: Frames) -> None:
        """Hand a run over."""
        if message.first != self.expected:
            raise AssertionError(message)
        self.expected = message.first + message.count
        self.stt.submit(Hear(self.session_id, message.first, message.count))

    def drain(self) -> None:
        """No more frames follow."""
        self.stt.submit(Finish(self.session_id))

    def answered(self, _: Finished) -> None:
        """Everything was heard."""
        self.heard = self.expected
        self.call.transcribed = True
        self.call.answered()


class PlainQuality:
    """Pauses between arrivals, and the levels that the media port measured."""

    __slots__ = ("last_ms", "levels", "pause_ms")

    def __init__(self) -> None:
        self.last_ms = self.pause_ms = 0
        self.levels = Levels()

    def frames(self, message: Frames) -> None:
        """Note the pause before this arrival."""
        at = message.at_ms
        if at - self.last_ms > self.pause_ms and self.last_ms:
            self.pause_ms = at - self.last_ms
        self.last_ms = at

    def measured(self, message: Kept) -> None:
        """Add a measure."""
        levels = self.levels
        self.levels = Levels(
            levels.frames + message.frames,
            levels.energy + message.mean_square * message.frames,
            max(levels.peak, message.peak),
            levels.clipped + message.clipped,
            levels.silent + message.silent,
            self.pause_ms,
        )


class PlainCall:
    """One call, from its creation to its result. `agree` makes a record durable and says so before it returns."""

    __slots__ = (
        "accepted",
        "agree",
        "deadlines",
        "facts",
        "number",
        "ports",
        "quality",
        "reason",
        "recorded",
        "recorder",
        "result",
        "state",
        "transcribed",
        "transcriber",
        "verdict",
    )

    def __init__(
        self, facts: Facts, verdict: PolicyVerdict, ports: Ports, deadlines: Deadlines, agree: Callable[[Draft], None]
    ) -> None:
        self.facts = facts
        self.verdict = verdict
        self.ports = ports
        self.deadlines = deadlines
        self.agree = agree
        self.number = self.accepted = 0
        self.state = VoiceSessionState.CREATED
        self.recorder: PlainRecorder | None = None
        self.transcriber: PlainTranscriber | None = None
        self.quality: PlainQuality | None = None
        self.recorded = self.transcribed = False
        self.reason = EndReason.STOPPED
        self.result: SessionResult | None = None
        self._record("session_created")
        now = monotonic_ms() / 1000
        deadlines.set(id(self), "idle", now + IDLE_SECONDS)
        deadlines.set(id(self), "overrun", now + MAX_SECONDS)

    def frames(self, message: Frames) -> None:
        """Pass a run of frames on."""
        if self.recorder is None:
            self._begin()
        if message.first < self.accepted or not message.count:
            return
        self.accepted = message.first + message.count
        self.recorder.frames(message)  # type: ignore[union-attr]
        self.quality.frames(message)  # type: ignore[union-attr]
        if self.transcriber is not None:
            self.transcriber.frames(message)

    def stop(self, reason: EndReason) -> None:
        """Begin the end."""
        self.reason = reason
        self.state = SESSION.fire(self.state, END_TRIGGER[reason])
        self.deadlines.cancel(id(self), "idle")
        self.deadlines.cancel(id(self), "overrun")
        self.deadlines.set(id(self), "drain", monotonic_ms() / 1000 + DRAIN_SECONDS)
        self._record("session_stopping", (("reason", reason.value),))
        self.recorder.drain()  # type: ignore[union-attr]
        if self.transcriber is not None:
            self.transcriber.drain()

    def answered(self) -> None:
        """A part has drained; with the last of them the call is over."""
        if not self.recorded or not (self.transcribed or self.transcriber is None):
            return
        self.state = SESSION.fire(self.state, "drained")
        self.deadlines.cancel(id(self), "drain")
        recorder = self.recorder
        self.result = SessionResult(
            reason=self.reason,
            drained=True,
            frames=FrameAccount(
                accepted=self.accepted,
                accounted=recorder.kept,  # type: ignore[union-attr]
                recorded=0,
                transcribed=self.accepted if self.transcriber is not None else 0,
                dropped=NO_COUNTS,
                untranscribed=NO_COUNTS,
                bytes=recorder.n_bytes,  # type: ignore[union-attr]
                digest="",
            ),
            transcript="",
            recording=None,
            quality=quality_of(self.quality.levels),  # type: ignore[union-attr]
        )
        self._record("session_stopped")
        self.ports.directory.submit(Closed(self.facts.session_id))

    def _begin(self) -> None:
        self.state = SESSION.fire(self.state, "audio")
        self._record("session_active")
        self.quality = PlainQuality()
        self.recorder = PlainRecorder(self, self.quality, self.ports.media, self.facts)
        if self.facts.stt_engine is not None:
            self.transcriber = PlainTranscriber(self, self.ports.speech, self.facts)

    def _record(self, operation: str, detail: tuple[tuple[str, Any], ...] = ()) -> None:
        """Nobody is told of a move before its record is durable."""
        self.number += 1
        self.agree(
            Draft(
                self.facts, self.number, operation, RequestStatus.SUCCESS, self.verdict, self.state, detail, self.result
            )
        )
        self.ports.directory.submit(Changed(self.facts, self.state, self, self.verdict, self.result))


class PlainService:
    """Calls by hand behind real doors and a real media port, whose reports the loop's thread takes in when it comes by."""

    def __init__(self, folder: Path, verdict: PolicyVerdict) -> None:
        self.reports: deque[tuple[Callable[[Any], None], Any]] = deque()
        self.doors: dict[str, Door] = {}
        self.verdict = verdict
        self.lock = DoorLock()
        self.deadlines = Deadlines()
        self.media = MediaPort(
            end=lambda _: 0,
            take=lambda session_id, first, _: self.doors[session_id].take(0, first),
            post=lambda receive, fact: self.reports.append((receive, fact)),
            recordings=folder,
            kind="flac",
            segment_seconds=60,
            room=lambda session_id, frames: self.doors[session_id].room(0, frames),
            backlog_frames=BACKLOG_FRAMES,
        )
        self.ports = Ports(Nothing(), self.media, Nothing(), Nothing())
        self.media.start()

    def open(self, facts: Facts) -> Door:
        """A call's way in."""
        call = PlainCall(facts, self.verdict, self.ports, self.deadlines, lambda _: None)
        door = self.doors[facts.session_id] = Door(
            facts.session_id,
            AudioFormat(),
            ports=1,
            limit=BACKLOG_FRAMES,
            max_chunk=1 << 20,
            deliver=lambda _, frames: call.frames(frames),
            lock=self.lock,
        )
        return door

    def turn(self) -> None:
        """Take in what the port has reported."""
        reports = self.reports
        while reports:
            receive, fact = reports.popleft()
            receive(fact)

    def close(self) -> None:
        """End the port's thread."""
        self.media.close(0)


class Nothing:
    """A port that does nothing."""

    def submit(self, work: Any) -> None:
        """Nothing."""
