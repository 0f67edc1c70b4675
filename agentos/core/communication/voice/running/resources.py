"""What a running service holds: the store, the ports and the directory, opened together and closed in order."""

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from actors.runtime.health import HealthWatch
from actors.runtime.mailbox import Ref
from actors.runtime.system import ActorSystem
from actors.voice.call_part import NO_PORTS, Ports
from actors.voice.session import SessionLimits
from actors.voice.supervisor import Supervisor
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.recording.finishing import Finishing, RecordingFinisher
from agentos.core.communication.voice.recording.port import MediaPort
from agentos.core.communication.voice.recovery.recovery import Recovery
from agentos.core.communication.voice.recovery.recurring import RecurringRecovery
from agentos.core.communication.voice.running.admission import Meter, QueueProgress
from agentos.core.communication.voice.running.home_watch import HomeWatch
from agentos.core.communication.voice.running.part_ports import PartPorts
from agentos.core.communication.voice.running.port_health import PortHealth
from agentos.core.communication.voice.sessions.directory import Directory
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.storage.folders import keep_private
from agentos.core.communication.voice.storage.head_notes import HeadNotes, check_heads, noted_before
from agentos.core.communication.voice.storage.opening import StoreFactory
from agentos.core.communication.voice.storage.ownership import Ownership
from agentos.core.communication.voice.storage.past_sessions import PastSessions
from agentos.core.communication.voice.storage.port import StorePort
from agentos.core.communication.voice.storage.spill import SpillFile
from agentos.core.communication.voice.storage.store import VoiceStore
from agentos.core.communication.voice.storage.tokens import TokenStore
from agentos.core.communication.voice.stt.port import SpeechPort
from agentos.core.communication.voice.stt.registry import Engines
from machines.audio import FRAMES_PER_SECOND
from machines.events import VoiceEvent
from machines.frozen import FrozenDict
from machines.policy import VoicePolicy
from machines.restart import Intensity
from machines.session import VoiceSession

log = logger(__name__)

MEDIA, SPEECH = 0, 1  # the ports that fetch audio, by their number at the door
PROBE_SECONDS = 1.0  # how often a store that is down is tried again
STT_BACKLOG_FACTOR = 2  # the door holds audio back long before the port would have to drop it
TAKE_IN_SECONDS = 1.0  # a recovery lets the writer take in spill files first; when the store answers, that is soon
CLOSING_GRACE_SECONDS = 5.0  # for files and threads, after the last session has ended

Files = tuple[Ownership, VoiceStore, SpillFile]
SessionHook = Callable[[VoiceSession], None]
EndedHook = Callable[[VoiceSession, Sequence[VoiceEvent]], None]


class Extensions(NamedTuple):
    """The engines, the store and the further parts of calls that a service has."""

    engines: Engines
    store: StoreFactory
    parts: PartPorts


class ServiceResources:
    """What one service holds. `open_files` and `close` block; the rest is for the loop's thread."""

    def __init__(
        self,
        files: Files,
        settings: VoiceSettings,
        system: ActorSystem,
        extensions: Extensions,
        on_started: SessionHook,
        on_stopped: EndedHook,
    ) -> None:
        self._ownership, self.store, spill = files
        self.tokens = TokenStore(self.store)
        self.directory = Directory(
            keep_events=lambda events: self.store_port.keep_events(events),  # noqa: PLW0108 - it does not exist yet
            on_started=on_started,
            on_stopped=self._stopped,
            patience_seconds=settings.evidence_timeout_seconds,
        )
        self._on_stopped = on_stopped
        finishing = Finishing(self.store, settings.recordings, settings.recording_format)
        self.finisher = RecordingFinisher(
            finishing,
            settings.recovery_interval_seconds,
            lambda session_id: self.media.holds(session_id),  # noqa: PLW0108 - it does not exist yet
        )
        self.heads = None if settings.heads is None else HeadNotes(self.store, settings.heads)
        self.store_port = StorePort(
            self.store,
            spill,
            directory=self.directory,
            post=system.post,
            on_durable=(lambda: None) if self.heads is None else self.heads.stored,
        )
        self.past = PastSessions(self.store, self.store_port.writer, self.directory, settings.evidence_timeout_seconds)
        self.media = MediaPort(
            end=self.directory.end,
            take=partial(self.directory.take, MEDIA),
            room=partial(self.directory.room, MEDIA),
            post=system.post,
            recordings=settings.recordings,
            kind=settings.recording_format,
            segment_seconds=settings.recording_segment_seconds,
            backlog_frames=int(settings.backlog_seconds * FRAMES_PER_SECOND),
        )
        self.media.start()
        self.speech = SpeechPort(
            take=partial(self.directory.take, SPEECH),
            room=partial(self.directory.room, SPEECH),
            tell=system.tell,
            post=system.post,
            engines=extensions.engines,
            workers=settings.stt_workers,
            start_timeout_seconds=settings.stt_start_timeout_seconds,
            hang_timeout_seconds=settings.stt_hang_timeout_seconds,
            silent_after_seconds=settings.heartbeat_timeout_seconds if settings.heartbeat_seconds else float("inf"),
            backlog_frames=int(settings.backlog_seconds * FRAMES_PER_SECOND * STT_BACKLOG_FACTOR),
        )
        self._part_ports = extensions.parts
        self._other_ports: FrozenDict[Any] = NO_PORTS
        self._releases: FrozenDict[Any] = NO_PORTS
        self.health = PortHealth({"media": self.media.take_news, "speech": self.speech.take_news})
        self.meter = Meter(
            lambda: QueueProgress(*system.progress()),
            self._media_progress,
            silent_ports=lambda: self.health.silent,
            speech_wait=lambda: self.speech.wait_seconds,
        )
        self.home = HomeWatch(self.store, self._ownership, settings.recordings)
        self.recovery = Recovery(
            self.store,
            settings.recordings,
            settings.recording_format,
            resume_window_seconds=settings.resume_window_seconds,
        )
        self._recurring = RecurringRecovery(
            self.recovery,
            settings.recovery_interval_seconds,
            before=partial(self.store_port.writer.flush, TAKE_IN_SECONDS),
            sign=self._ownership.sign if settings.resume_window_seconds else None,
        )
        self._recurring.start()
        self.finisher.start()
        if self.heads is not None:
            self.heads.start()
        self._settings = settings
        self._closing = Lock()
        self._closed = False

    @staticmethod
    def open_files(settings: VoiceSettings, factory: StoreFactory) -> Files:
        """Become an owner, and open the store and a spill file of this service's own.

        Raises `StoreError`, and `ChainNotContinued` when the evidence chain does not go on from the heads that were noted.
        """
        owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        with ExitStack() as undo:
            owners = factory.owners(settings)
            ownership = owners.take(owner)
            undo.callback(ownership.release)
            store = VoiceStore(factory.database(settings), owners, settings.home, owner)
            undo.callback(store.close)
            if settings.heads is not None:
                check_heads(store, settings.heads)
            elif noted_before(store):
                log.warning("heads_no_longer_noted", setting="AGENTOS_VOICE_HEADS")
            spill = SpillFile.open(settings.home, owner, settings.spill_max_bytes)
            _keep_recordings_private(settings.recordings)
            undo.pop_all()
            return ownership, store, spill

    def open_part_ports(self, system: ActorSystem) -> None:
        """Open the ports of further parts. Raises what they raise."""
        self._other_ports = self._part_ports.open(self.directory, system.post)
        self._releases = self._part_ports.releases()

    def spawn_supervisor(self, system: ActorSystem, policy: VoicePolicy) -> Ref:
        """Spawn the supervisor with the settings' limits; its address."""
        settings = self._settings
        limits = SessionLimits(
            drain_seconds=settings.stop_timeout_seconds,
            evidence_seconds=settings.evidence_timeout_seconds,
            idle_seconds=settings.idle_timeout_seconds,
            max_seconds=settings.max_session_seconds,
            account_frames=max(1, int(settings.account_seconds * FRAMES_PER_SECOND)),
            restarts=Intensity(settings.restart_limit, settings.restart_window_seconds),
        )
        ports = Ports(self.directory, self.media, self.speech, self.store_port, self._other_ports, self._releases)
        supervisor = Supervisor(policy, limits, ports, PROBE_SECONDS, self._part_ports.call_parts)
        return system.spawn(supervisor, "supervisor")

    def spawn_health_watch(self, system: ActorSystem) -> None:
        """Have the ports watched that work in a thread or a task of their own, beside the supervisor: it has nothing to decide
        there. The store has deadlines of its own, in the evidence actor."""
        settings = self._settings
        if settings.heartbeat_seconds:
            ports = (("media", self.media), ("speech", self.speech))
            watch = HealthWatch(ports, self.health, settings.heartbeat_seconds, settings.heartbeat_timeout_seconds)
            system.spawn(watch, "health")

    def _stopped(self, session: VoiceSession, events: Sequence[VoiceEvent]) -> None:
        result = session.result
        if session.recording_enabled and result is not None and result.recording is None and result.frames.accepted:
            self.finisher.expect(session.session_id)  # the end may not have waited for a port that hangs
        else:
            self.finisher.nudge()
        self._on_stopped(session, events)

    def _media_progress(self) -> QueueProgress:
        media = self.media.statistics()
        return QueueProgress(media.frames, media.queued_frames)

    def close(self) -> None:
        """End the threads and close the files; blocks, up to `CLOSING_GRACE_SECONDS` for each, and then leaves a
        thread alone that hangs, which the log says. Once more, from any thread, it waits until that is done."""
        with self._closing:
            if not self._closed:
                ended = {
                    "recovery": self._recurring.close(CLOSING_GRACE_SECONDS),
                    "recordings": self.finisher.close(CLOSING_GRACE_SECONDS),
                    "media": self.media.close(CLOSING_GRACE_SECONDS),
                    **self._part_ports.close(CLOSING_GRACE_SECONDS),
                    "store": self.store_port.close(CLOSING_GRACE_SECONDS, then=self._close_store),
                }
                for name, in_time in ended.items():
                    if not in_time:
                        log.error("port_abandoned", port=name, after_seconds=CLOSING_GRACE_SECONDS)
                self._closed = True

    def _close_store(self) -> None:
        """Once nothing of this service writes to the store any more."""
        if self.heads is not None and not self.heads.close(CLOSING_GRACE_SECONDS):
            log.error("port_abandoned", port="heads", after_seconds=CLOSING_GRACE_SECONDS)
        self.store.close()
        self._ownership.release()


def _keep_recordings_private(folder: Path) -> None:
    """What an earlier version or somebody else left open is closed; where that can't be done it is said."""
    try:
        keep_private(folder)
    except OSError as error:
        log.warning("recordings_open_to_others", path=str(folder), problem=error.strerror)
