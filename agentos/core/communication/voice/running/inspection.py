"""What can be seen of a running service from outside: a frozen picture of all of it, and a trace of one session.

Nothing in either is private: no metadata, no numbers of callers, no words, no tokens. A picture holds ids, names of types,
states, counts and times.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import anyio

from actors.runtime.inspection import SystemInspector, SystemPicture
from actors.runtime.system import ActorSystem
from actors.runtime.tracing import Tracer
from agentos.core.communication.voice.errors import SessionNotFound
from agentos.core.communication.voice.measuring.backlog_age import BacklogAge
from agentos.core.communication.voice.measuring.looks import Look
from agentos.core.communication.voice.measuring.loop_lag import LoopLagStatistics
from agentos.core.communication.voice.recording.port import MediaStatistics
from agentos.core.communication.voice.running.resources import ServiceResources
from agentos.core.communication.voice.running.session_trace import SessionTrace
from agentos.core.communication.voice.storage.writer import WriterStatistics
from agentos.core.communication.voice.stt.statistics import SpeechStatistics
from agentos.core.time import monotonic_ms, utc_now

LOOK_SECONDS: Final = 1.0  # how often the service looks at what waits: ages are too small by this much at most


@dataclass(frozen=True, slots=True)
class PortsPicture:
    """The ports' statistics, and for each the seconds that the oldest thing in its backlog has waited at least (0 when nothing
    waits): frames for the recordings, frames that no speech-to-text worker was given, records and events for the store.

    `silent` names those that did not answer their last heartbeat in time, "media" or "speech"."""

    media: MediaStatistics
    media_waiting_seconds: float
    speech: SpeechStatistics
    speech_waiting_seconds: float
    store: WriterStatistics
    store_waiting_seconds: float
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServicePicture:
    """A service at one moment.

    `instance` names it among the services of its home; `pid` is its process. `closing` is True once it takes no more calls,
    also while it drains. `sessions` counts those that run by state; "opening" are asked for and not there yet. `system` has
    every actor with its mail, restarts and timers, and the last dead letters. Times are aware UTC.
    """

    instance: str
    pid: int
    started_at: datetime
    at: datetime
    closing: bool
    sessions: dict[str, int]
    system: SystemPicture
    ports: PortsPicture
    loop_lag: LoopLagStatistics


class ServiceInspector:
    """Looks at one service, in its loop. `closing` tells whether it takes no more calls."""

    def __init__(self, system: ActorSystem, resources: ServiceResources, closing: Callable[[], bool]) -> None:
        self.instance = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._started_at = utc_now()
        self._resources = resources
        self._closing = closing
        self._actors = SystemInspector(system)
        self._tracer = Tracer(system)
        self._media, self._speech, self._store = BacklogAge(), BacklogAge(), BacklogAge()
        self._traces: set[SessionTrace] = set()
        self._look = Look("actors and ports, for whoever asks")

    async def run(self) -> None:
        """Look until cancelled; then every trace ends."""
        try:
            while True:
                with self._look:
                    self._actors.look()
                    self._ports()
                await anyio.sleep(LOOK_SECONDS)
        finally:
            for trace in tuple(self._traces):
                trace.end()

    def picture(self, most_actors: int | None = None) -> ServicePicture:
        """The service now; with at most so many actors, those in the worst trouble first."""
        return ServicePicture(
            instance=self.instance,
            pid=os.getpid(),
            started_at=self._started_at,
            at=utc_now(),
            closing=self._closing(),
            sessions=self._resources.directory.states(),
            system=self._actors.picture(most_actors),
            ports=self._ports(),
            loop_lag=self._resources.meter.lag.statistics(),
        )

    def trace(self, session_id: str) -> SessionTrace:
        """Trace a running session from now on, until the trace is closed. Raises `SessionNotFound` when none runs here."""
        listing = self._resources.directory.listing(session_id)
        if listing is None or listing.ref is None:
            raise SessionNotFound(session_id)
        trace = SessionTrace(session_id, self._tracer, listing.ref, self._traces.discard)
        self._traces.add(trace)
        return trace

    def _ports(self) -> PortsPicture:
        now = monotonic_ms() / 1000
        resources = self._resources
        media, speech = resources.media.statistics(), resources.speech.statistics()
        store = resources.store_port.writer.statistics()
        given_up = sum(frames for _, frames in speech.unheard_frames) + speech.abandoned_frames
        taken = speech.heard_frames + speech.frames_under_way + given_up
        return PortsPicture(
            media=media,
            media_waiting_seconds=round(self._media.look(now, media.frames + media.queued_frames, media.frames), 3),
            speech=speech,
            speech_waiting_seconds=round(self._speech.look(now, taken + speech.queued_frames, taken), 3),
            store=store,
            store_waiting_seconds=round(self._store.look(now, store.finished + store.backlog, store.finished), 3),
            silent=resources.health.silent,
        )
