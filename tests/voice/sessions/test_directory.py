"""The directory shows what the actors told, and nothing before it is durable."""

import time
from typing import Any

import pytest
from msgspec.structs import replace

from actors.runtime.mailbox import Ref
from actors.voice.messages import Changed, Closed, Emit, Facts, Frames, Kept, Metered
from actors.voice.policy import PolicyActor
from agentos.core.communication.voice.errors import InvalidState
from agentos.core.communication.voice.running.request import make_facts, read_request
from agentos.core.communication.voice.running.resources import MEDIA
from agentos.core.communication.voice.sessions import directory as directory_module
from agentos.core.communication.voice.sessions.directory import Directory
from agentos.core.communication.voice.sessions.door import Door, DoorLock
from agentos.core.communication.voice.settings import load_settings
from agentos.core.communication.voice.stt.registry import Engines
from agentos.core.time import utc_now_ms
from machines.communication import PolicyVerdict, RequestStatus, RiskLevel
from machines.events import VoiceEvent, VoiceEventType
from machines.frozen import FrozenDict
from machines.policy import VoicePolicy
from machines.session import (
    EndReason,
    FrameAccount,
    SessionResult,
    STTProvider,
    VoiceProvider,
    VoiceSession,
    VoiceSessionState,
)

CREATED, ACTIVE, STOPPING, STOPPED = VoiceSessionState
VERDICT = PolicyVerdict(status=RequestStatus.APPROVED, reason_code="OK", metadata={"risk_level": "medium"})
REF = Ref(PolicyActor(VoicePolicy()), "session", None)

PATIENCE = 0.05


@pytest.fixture(autouse=True)
def events_are_as_defined() -> None:
    """These are made up."""


class World:
    """A directory with one expected session, and what it told."""

    def __init__(self) -> None:
        self.kept: list[VoiceEvent] = []
        self.started: list[VoiceSession] = []
        self.stopped: list[VoiceSession] = []
        self.delivered: list[tuple[Ref, Frames]] = []
        self.directory = Directory(
            keep_events=self.kept.extend,
            on_started=self.started.append,
            on_stopped=lambda session, events: self.stopped.append(session),
            patience_seconds=PATIENCE,
        )
        request = read_request(
            VoicePolicy(),
            load_settings(),
            project_id="p",
            provider=VoiceProvider.LOCAL,
            stt_provider=STTProvider.POCKETSPHINX,
            metadata={"a": 1},
            audio_format=None,
            admin_token=None,
        )
        self.facts: Facts = make_facts(request, load_settings(), Engines(load_settings()), admin_token_valid=False)
        self.id = self.facts.session_id
        self.door = Door(
            self.id,
            self.facts.audio_format,
            ports=1,
            limit=10,
            max_chunk=10_000,
            deliver=lambda ref, frames: self.delivered.append((ref, frames)),
            lock=DoorLock(),
        )
        self.directory.expect(self.facts, self.door)

    def changed(self, state: VoiceSessionState, result: SessionResult | None = None) -> None:
        self.directory.submit(Changed(self.facts, state, REF, VERDICT, result))

    def emit(self, kind: VoiceEventType) -> None:
        self.directory.submit(Emit(self.id, kind, (("a", 1),)))

    def settle(self, *, stored: bool) -> None:
        self.directory.events_settled(self.kept, stored=stored)
        self.directory.tell_settled()

    def heard(self) -> list[tuple[int, dict[str, Any]]]:
        """What a new listener is told from now on, as it grows."""
        told: list[tuple[int, dict[str, Any]]] = []
        listing = self.directory.listing(self.id)
        assert listing is not None
        listing.listeners.append(lambda event: told.append((0, {}) if event is None else (event.number, event.payload)))
        return told


@pytest.fixture
def world() -> World:
    return World()


def test_a_session_is_not_seen_before_it_was_told(world: World) -> None:
    assert world.directory.listing(world.id) is None
    assert world.directory.session(world.id) is None
    assert world.directory.sessions() == []
    assert len(world.directory) == 1  # but it takes up a place


def test_a_session_that_was_told_is_seen_whole(world: World) -> None:
    world.changed(CREATED)
    session = world.directory.session(world.id)
    assert session is not None
    assert (session.session_id, session.project_id, session.state) == (world.id, "p", CREATED)
    assert session.risk_tier is RiskLevel.MEDIUM
    assert session.policy_verdict == VERDICT
    assert session.metadata == {"a": 1}
    assert session.stt_engine == "pocketsphinx"
    assert session.result is None
    assert [started.session_id for started in world.started] == [world.id]


def test_each_new_state_is_told_in_events_once_however_often_it_comes(world: World) -> None:
    result = SessionResult(reason=EndReason.IDLE, transcript="hello")
    for state in (CREATED, CREATED, ACTIVE, ACTIVE, STOPPING):
        world.changed(state)
    world.changed(STOPPED, result)
    world.changed(STOPPED, result)
    assert [(event.number, event.event_type.value, event.payload) for event in world.kept] == [
        (1, "session_started", {"state": "created", "stt_engine": "pocketsphinx"}),
        (2, "state_changed", {"state": "active"}),
        (3, "state_changed", {"state": "stopping"}),
        (4, "transcript_ready", {"text": "hello"}),
        (5, "session_stopped", {"reason": "idle"}),
    ]


def test_another_engine_than_the_one_asked_for_is_said_in_an_event(world: World) -> None:
    world.facts = replace(world.facts, stt_engine=None, fallback="google is not installed")
    world.changed(CREATED)
    assert [event.event_type for event in world.kept] == [VoiceEventType.SESSION_STARTED, VoiceEventType.STT_FALLBACK]
    assert world.kept[1].payload == {"asked": "pocketsphinx", "runs": "none", "reason": "google is not installed"}


def test_a_door_that_was_closed_is_not_opened_again_by_late_news(world: World) -> None:
    world.changed(CREATED)
    world.directory.submit(Closed(world.id))
    world.changed(ACTIVE)
    with pytest.raises(InvalidState):
        world.door.offer(b"ab")


def test_a_session_that_did_not_come_to_be_leaves_nothing(world: World) -> None:
    world.directory.forget(world.id)
    assert len(world.directory) == 0
    with pytest.raises(InvalidState):
        world.door.offer(b"ab")


def test_a_running_session_can_not_be_forgotten(world: World) -> None:
    world.changed(CREATED)
    world.directory.forget(world.id)
    assert world.directory.session(world.id) is not None


def test_an_expected_session_that_ends_unseen_leaves_nothing(world: World) -> None:
    world.directory.submit(Closed(world.id))
    assert len(world.directory) == 0
    assert world.started == []
    assert world.stopped == []


def test_each_state_reaches_the_door_and_the_snapshot(world: World) -> None:
    for state in (CREATED, ACTIVE, STOPPING):
        world.changed(state)
        session = world.directory.session(world.id)
        assert session is not None
        assert session.state is state
        assert world.door.state is state
    with pytest.raises(InvalidState, match="STOPPING"):
        world.door.offer(b"ab")
    assert len(world.started) == 1


def test_frames_go_where_the_session_was_told_to_be(world: World) -> None:
    world.changed(CREATED)
    world.door.offer(bytes(640))
    assert [(ref, message.first, message.count) for ref, message in world.delivered] == [(REF, 0, 1)]


def test_a_stopped_session_leaves_with_its_result(world: World) -> None:
    world.changed(CREATED)
    world.door.offer(bytes(640 + 3))
    world.door.finish()
    world.directory.submit(Closed(world.id))
    world.changed(STOPPED, SessionResult(reason=EndReason.STOPPED, frames=FrameAccount(accepted=2, accounted=2)))
    assert len(world.directory) == 0
    assert world.directory.session(world.id) is None
    (session,) = world.stopped
    assert session.state is STOPPED
    assert session.result is not None
    assert session.result.stopped_at is not None
    assert session.result.stopped_at >= session.created_at
    assert session.result.frames == FrameAccount(accepted=2, accounted=2, leftover_bytes=1)


def test_a_session_has_one_end_for_its_record_and_for_those_who_are_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.changed(CREATED)
    now = [utc_now_ms()]
    monkeypatch.setattr(directory_module, "utc_now_ms", lambda: now[0])
    result = SessionResult(reason=EndReason.STOPPED, frames=FrameAccount())
    recorded = world.directory.snapshot(world.facts, STOPPED, VERDICT, result)
    now[0] += 250  # the store takes its time
    world.changed(STOPPED, result)
    assert world.stopped == [recorded]


def test_what_became_of_sessions_is_summed_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000]
    monkeypatch.setattr(directory_module, "monotonic_ms", lambda: now[0])
    assert [(one.state, one.sessions) for one in world.directory.statistics().running] == [("opening", 1)]
    world.changed(CREATED)
    world.changed(STOPPING)
    running = world.directory.statistics()
    assert (running.running[0].state, running.running[0].provider) == ("stopping", "local")
    assert (running.started, running.ended, running.drains.count) == (1, {}, 0)
    now[0] += 300
    world.changed(STOPPING)  # told again: it counts from the first time
    now[0] += 200
    frames = FrameAccount(accepted=5, accounted=3, dropped=FrozenDict(full=2), untranscribed=FrozenDict(no_engine=5))
    world.changed(STOPPED, SessionResult(reason=EndReason.IDLE, frames=frames))
    world.changed(STOPPED, SessionResult(reason=EndReason.IDLE, frames=frames))
    ended = world.directory.statistics()
    assert (ended.running, ended.started, ended.ended) == ((), 1, {"idle": 1})
    assert (ended.accepted_frames, ended.dropped_frames, ended.untranscribed_frames) == (
        5,
        {"full": 2},
        {"no_engine": 5},
    )
    assert (ended.drains.count, ended.drains.sum_seconds) == (1, 0.5)


def test_frames_that_nobody_looked_at_any_more_are_declared_late(world: World) -> None:
    world.changed(CREATED)
    world.door.offer(bytes(5 * 640))
    world.directory.submit(Closed(world.id))
    account = FrameAccount(accepted=3, accounted=3, transcribed=2, untranscribed=FrozenDict(late=1))
    world.changed(STOPPED, SessionResult(reason=EndReason.STOPPED, frames=account))
    assert world.stopped[0].result is not None
    frames = world.stopped[0].result.frames
    assert (frames.accepted, frames.dropped, frames.untranscribed) == (5, {"late": 2}, {"late": 3})


def test_a_gap_that_was_declared_last_is_in_the_account_whatever_ends_the_call(world: World) -> None:
    world.changed(CREATED)
    world.door.offer(bytes(5 * 640))
    world.door.skip(4, "capture")
    account = FrameAccount(accepted=3, accounted=3, transcribed=3)
    for reason in (EndReason.IDLE, EndReason.OVERRUN):
        session = world.directory.snapshot(world.facts, STOPPED, VERDICT, SessionResult(reason=reason, frames=account))
        assert session.result is not None
        frames = session.result.frames
        assert (frames.accepted, frames.accounted) == (9, 3)
        assert frames.dropped == frames.untranscribed == {"capture": 4, "late": 2}
    told = FrameAccount(accepted=9, accounted=5, transcribed=5, dropped=FrozenDict(capture=4))
    stopped = SessionResult(reason=EndReason.STOPPED, frames=told)
    session = world.directory.snapshot(world.facts, STOPPED, VERDICT, stopped)
    assert session.result is not None
    assert session.result.frames.dropped == {"capture": 4}, "a stop has told of it"


def test_a_stopped_session_whose_record_is_not_stored_is_known_until_it_is(world: World) -> None:
    world.changed(CREATED)
    result = SessionResult(reason=EndReason.STOPPED)
    snapshot = world.directory.snapshot(world.facts, STOPPED, VERDICT, result)
    world.directory.not_stored(snapshot)
    world.changed(STOPPED, result)
    assert world.directory.session(world.id) == snapshot
    assert world.directory.sessions() == [snapshot]
    world.directory.stored(world.id)
    assert world.directory.session(world.id) is None
    assert world.directory.sessions() == []


def test_events_are_numbered_kept_and_told(world: World) -> None:
    world.changed(CREATED)
    heard: list[VoiceEvent | None] = []
    listing = world.directory.listing(world.id)
    assert listing is not None
    listing.listeners.append(heard.append)
    world.emit(VoiceEventType.STT_PARTIAL)
    world.emit(VoiceEventType.STT_FINAL)
    world.settle(stored=True)
    assert [(event.number, event.event_type.value) for event in world.kept] == [
        (1, "session_started"),
        (3, "stt_final"),
    ]
    assert [event.number for event in heard] == [2, 3]
    assert len({event.event_id for event in world.kept}) == 2
    assert all(event.event_id.startswith("evt-") and event.session_id == world.id for event in world.kept)
    assert world.kept[0].metadata == {"audit_trace_id": world.facts.audit_trace_id}


def test_a_finished_utterance_is_told_when_the_store_has_it_and_in_its_turn(world: World) -> None:
    world.changed(CREATED)
    told = world.heard()
    world.emit(VoiceEventType.STT_PARTIAL)
    world.emit(VoiceEventType.STT_FINAL)
    world.emit(VoiceEventType.ERROR)
    world.emit(VoiceEventType.STT_PARTIAL)
    assert [number for number, _ in told] == [2]
    listing = world.directory.listing(world.id)
    assert listing is not None
    assert [event.number for event in listing.events] == [1], "nor does anybody find it who comes now"
    world.settle(stored=True)
    assert told == [(number, {"a": 1}) for number in (2, 3, 4, 5)]
    world.emit(VoiceEventType.ERROR)
    assert [number for number, _ in told] == [2, 3, 4, 5, 6]


def test_an_utterance_that_the_store_refused_is_told_as_not_stored(world: World) -> None:
    world.changed(CREATED)
    told = world.heard()
    world.emit(VoiceEventType.STT_FINAL)
    world.emit(VoiceEventType.STT_FINAL)
    world.directory.events_settled(world.kept[1:2], stored=False)
    world.directory.events_settled(world.kept[2:], stored=True)
    world.directory.tell_settled()
    assert told == [(2, {"a": 1, "stored": False}), (3, {"a": 1})]
    assert world.kept[1].payload == {"a": 1}


def test_a_store_that_is_silent_holds_words_up_once(world: World) -> None:
    world.changed(CREATED)
    told = world.heard()
    world.emit(VoiceEventType.STT_FINAL)
    world.directory.tell_settled()
    assert told == []
    time.sleep(2 * PATIENCE)
    world.directory.tell_settled()
    world.emit(VoiceEventType.STT_FINAL)
    assert told == [(2, {"a": 1, "stored": False}), (3, {"a": 1, "stored": False})]
    world.settle(stored=True)
    world.emit(VoiceEventType.STT_FINAL)
    assert len(told) == 2, "it answers again"
    world.settle(stored=True)
    assert told[2:] == [(4, {"a": 1})]


def test_what_waits_when_a_session_ends_is_told_before_its_end(world: World) -> None:
    world.changed(CREATED)
    told = world.heard()
    world.emit(VoiceEventType.STT_FINAL)
    world.changed(STOPPED, SessionResult(reason=EndReason.IDLE, transcript="hello"))
    assert told == [(2, {"a": 1}), (3, {"text": "hello"}), (4, {"reason": "idle"}), (0, {})]


def test_a_passing_event_that_nobody_listens_to_costs_no_number(world: World) -> None:
    world.changed(CREATED)
    world.emit(VoiceEventType.AUDIO_RECEIVED)
    world.emit(VoiceEventType.ERROR)
    assert [event.number for event in world.kept] == [1, 2]


def test_frames_are_accounted_below_what_the_session_said_last(world: World) -> None:
    directory = world.directory
    assert directory.accounted_below(world.id) == 0
    directory.submit(Metered(world.id, Kept(6, 6, 0.25, 0.5, 0, 0, 6, 6 * 640, "")))
    directory.submit(Metered(world.id, Kept(9, 0, 0.0, 0.0, 0, 0, 6, 6 * 640, "")))
    assert directory.accounted_below(world.id) == 9
    assert directory.accounted_below("voice-unknown") == 0


def test_a_measure_becomes_an_event_only_for_those_who_listen(world: World) -> None:
    measure = Kept(6, 6, 0.25, 0.5, 0, 0, 6, 6 * 640, "")
    world.changed(CREATED)
    world.directory.submit(Metered(world.id, measure))
    listing = world.directory.listing(world.id)
    assert listing is not None
    heard: list[VoiceEvent | None] = []
    listing.listeners.append(heard.append)
    world.directory.submit(Metered(world.id, measure))
    world.directory.submit(Metered("voice-unknown", measure))
    (event,) = heard
    assert event is not None
    assert (event.event_type, event.number) == (VoiceEventType.AUDIO_RECEIVED, 2)
    assert event.payload == {"frames": 6, "upto_frame": 6, "level_dbfs": -6.0, "peak_dbfs": -6.0}
    assert event not in world.kept


def test_an_id_that_is_no_text_is_nobodys(world: World) -> None:
    strange: list[Any] = [None, 5, [], {}, b"voice"]
    for value in strange:
        assert world.directory.listing(value) is None


def test_a_hook_that_raises_disturbs_nothing() -> None:
    world = World()

    def fails(session: VoiceSession) -> None:
        raise RuntimeError("the host's bug")

    world.directory._on_started = fails
    world.changed(CREATED)
    world.changed(ACTIVE)
    session = world.directory.session(world.id)
    assert session is not None
    assert session.state is ACTIVE


def test_late_news_of_a_session_that_is_gone_change_nothing(world: World) -> None:
    world.changed(CREATED)
    world.changed(STOPPED, SessionResult(reason=EndReason.STOPPED))
    known = list(world.kept)
    world.changed(ACTIVE)
    world.emit(VoiceEventType.ERROR)
    world.directory.submit(Closed(world.id))
    assert len(world.directory) == 0
    assert world.kept == known
    with pytest.raises(KeyError):
        world.directory.take(MEDIA, world.id, 0, 1)
    world.directory.room(MEDIA, world.id, 1)
