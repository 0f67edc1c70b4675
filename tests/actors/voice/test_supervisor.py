"""The supervisor: who gets a session, where things are, and what it does when a child fails."""

from collections.abc import Callable
from typing import Any

import pytest

from actors.runtime.actor import Exited
from actors.runtime.mailbox import AUDIO_BOUND, CONTROL_BOUND
from actors.runtime.system import SystemFailed
from actors.voice import messages as m
from actors.voice.evidence import EvidenceActor
from actors.voice.policy import PolicyActor
from actors.voice.supervisor import ChildFailed, Supervisor, control_bound
from machines.communication import RequestStatus
from machines.policy import VoicePolicy
from machines.session import STTProvider, VoiceProvider

RISKY = {"requires_data_access": True}


def test_a_request_that_policy_denies_is_on_record_before_it_is_told_and_never_becomes_a_session(
    world: Any, facts: Callable[..., m.Facts]
) -> None:
    token = world.ask(facts(metadata=RISKY), settle=False)
    assert not token.answered
    world.settle()
    assert isinstance(token.value, m.Denied)
    assert token.value.verdict.status is RequestStatus.REQUIRE_ADMIN
    assert world.operations() == ["session_denied"]
    assert world.directory.log == [m.Closed("voice-1")], "its door was open for it, and it was never listed"
    assert world.system.statistics().actors == 3


def test_a_denial_that_cannot_be_made_durable_is_refused_all_the_same(
    world: Any, facts: Callable[..., m.Facts]
) -> None:
    world.store = "down"
    token = world.ask(facts(metadata=RISKY))
    assert isinstance(token.value, m.Unevidenced)
    assert world.operations() == []
    world.store = "up"
    world.advance(2)
    assert isinstance(world.ask(facts("voice-2", metadata=RISKY)).value, m.Denied)


def test_of_a_request_that_was_set_aside_the_directory_is_told_once_nobody_waits_for_it(
    new_world: Any, facts: Callable[..., m.Facts]
) -> None:
    with new_world().crashing(Supervisor, frozenset({2, 4})):  # the request, and when it is tried again
        world = new_world()
        token = world.ask(facts())
    assert (token.answered, world.system.dead_letters[0].kind) == (False, "OpenSession")
    assert world.directory.log == []
    world.tell(world.supervisor, m.Unawaited("voice-1"))
    assert world.directory.log == [m.Closed("voice-1")]


def test_a_request_that_is_under_way_stays_it_when_nobody_waits_for_it(
    world: Any, facts: Callable[..., m.Facts]
) -> None:
    opened, refused = (
        world.ask(facts("voice-1"), settle=False),
        world.ask(facts("voice-2", metadata=RISKY), settle=False),
    )
    for session_id in ("voice-1", "voice-2"):
        world.tell(world.supervisor, m.Unawaited(session_id))
    assert world.directory.log == []
    world.settle()
    assert isinstance(opened.value, m.Opened)
    assert isinstance(refused.value, m.Denied)
    assert m.Closed("voice-1") not in world.directory.log
    assert world.directory.log.count(m.Closed("voice-2")) == 1


def test_denials_are_told_in_the_order_in_which_they_were_asked_for(world: Any, facts: Callable[..., m.Facts]) -> None:
    tokens = [world.ask(facts(f"voice-{n}", metadata=RISKY), settle=False) for n in range(3)]
    world.settle()
    assert all(isinstance(token.value, m.Denied) for token in tokens)
    assert list(world.records) == [f"ev-secret-voice-{n}-{n + 1}" for n in range(3)]


def test_sessions_get_new_routes_when_the_store_is_back_and_send_what_they_have(world: Any) -> None:
    for number in (1, 2):
        world.open(f"voice-{number}")
    world.store = "down"
    for number in (1, 2):
        world.frames(1, f"voice-{number}")
    world.store = "up"
    world.advance(2)
    assert [world.operations(f"voice-{n}")[-1] for n in (1, 2)] == ["session_active"] * 2
    assert world.supervisor.actor.routes.epoch == 2


@pytest.mark.parametrize("enough", [True, False])
def test_when_the_store_is_back_evidence_has_room_for_what_all_sessions_send_again_at_once(
    new_world: Any, *, enough: bool
) -> None:
    sessions = AUDIO_BOUND + 200  # up to that many nobody looks at the bound
    bound = control_bound(sessions, 3) - CONTROL_BOUND if enough else sessions - 100
    world = new_world(control_bound=bound)
    names = [f"voice-{number}" for number in range(sessions)]
    for name in names:
        world.open(name)
    world.store = "down"
    for name in names:
        world.frames(1, name, settle=False)
    world.settle()
    world.store = "up"
    world.advance(5)
    in_store = [world.operations(name) for name in names[-3:]]
    assert (in_store == [["session_created", "session_active"]] * 3) is enough
    assert (world.system.statistics().dead_letters == {}) is enough
    assert (world.system.statistics().crashes == 0) is enough


def test_evidence_that_crashes_is_restarted_and_asked_again(new_world: Any) -> None:
    with new_world().crashing(EvidenceActor, frozenset({2, 4})):
        world = new_world()
        world.open()
        world.frames(1)
        assert world.stop().value.durable
    world.check_ended()
    assert world.system.statistics().restarts == 2


@pytest.mark.parametrize("kind", [PolicyActor, EvidenceActor])
def test_a_service_actor_that_crashes_again_and_again_takes_the_supervisor_down_and_then_the_system(
    new_world: Any, facts: Callable[..., m.Facts], kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[BaseException] = []
    monkeypatch.setattr("sys.excepthook", lambda _, error, __: failures.append(error))
    with new_world().crashing(kind, frozenset(range(1, 10_000))):
        world = new_world()
        for number in range(40):
            world.ask(facts(f"voice-{number}"))
    assert isinstance(failures[0], SystemFailed)
    assert isinstance(failures[0].__cause__, ChildFailed)
    assert world.finals("voice-0") == []


def test_a_service_actor_is_running_again_after_the_supervisor_went_down_for_it(
    new_world: Any, facts: Callable[..., m.Facts]
) -> None:
    with new_world().crashing(PolicyActor, frozenset(range(1, 5))):
        world = new_world()
        kept = world.ask(facts("voice-1"))
        world.ask(facts("voice-2"))
        assert world.system.statistics().crashes > 4, "the supervisor too"
    assert isinstance(kept.value, m.Opened), "what waited for a verdict was asked again"
    assert world.system.statistics().held == 0
    assert isinstance(world.ask(facts("voice-3")).value, m.Opened)


def test_a_session_that_leaves_without_a_word_is_forgotten(world: Any) -> None:
    ref = world.open()
    world.tell(world.supervisor, Exited(ref, None, 0.0))
    supervisor = world.supervisor.actor
    assert (len(supervisor.sessions), len(supervisor.owners)) == (0, 0)


def test_news_of_a_child_that_is_not_known_any_more_changes_nothing(world: Any) -> None:
    ref = world.open()
    world.stop()
    before = world.supervisor.actor.freeze()
    world.tell(world.supervisor, Exited(ref, "late", 0.0))
    assert world.supervisor.actor.freeze() == before
    assert world.system.statistics().crashes == 0


def test_a_verdict_on_nobodys_request_is_ignored(world: Any) -> None:
    verdict = VoicePolicy().evaluate_session_request("project", VoiceProvider.LOCAL, STTProvider.POCKETSPHINX)
    world.tell(world.supervisor, m.Judged("voice-unknown", verdict))
    assert world.system.statistics().actors == 3


def test_a_supervisor_asked_before_it_started_says_so() -> None:
    bare = Supervisor(VoicePolicy(), None, None, 1.0)  # type: ignore[arg-type]
    with pytest.raises(ChildFailed, match="before it started"):
        bare._routes()
