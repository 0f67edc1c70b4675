"""A ticket opens one stream of one session, once, within a minute; a resume token opens it again, until it is replaced."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from agentos.core.communication.voice.errors import InvalidTicket, Overloaded, SessionNotFound
from agentos.core.communication.voice.gateway.access.tickets import ResumeTokens, StreamCredentials
from agentos.core.communication.voice.sessions import stream_tickets as module
from agentos.core.communication.voice.sessions.stream_tickets import (
    LIFETIME_SECONDS,
    NO_TOKEN,
    OF_A_SESSION,
    StreamOpener,
    StreamTickets,
)
from agentos.core.communication.voice.storage.opening import open_store
from agentos.core.communication.voice.storage.store import Entry, VoiceStore
from agentos.core.communication.voice.storage.tokens import Role, TokenStore
from agentos.core.time import utc_now
from machines.communication import ConnectorType, PolicyVerdict, RequestStatus, RiskLevel
from machines.evidence import EvidenceRecord
from machines.session import STTProvider, VoiceProvider, VoiceSession, VoiceSessionState

WEB = "tok-web"
LIFETIME_MS = LIFETIME_SECONDS * 1000


def refusal(tickets: StreamTickets, ticket: str, now_ms: int = 0) -> str:
    with pytest.raises(InvalidTicket) as raised:
        tickets.redeem(ticket, now_ms)
    return raised.value.reason


# --- tickets ---------------------------------------------------------------------------------------------------------


def test_a_ticket_is_for_its_session_and_whoever_asked_for_it_once() -> None:
    tickets = StreamTickets()
    ticket = tickets.issue("voice-1", WEB, 0)
    assert ticket.startswith("avs_")
    assert len(ticket) == len("avs_") + 43
    assert tickets.redeem(ticket, 0) == StreamOpener("voice-1", WEB)
    assert refusal(tickets, ticket) == "used_ticket"
    assert refusal(tickets, ticket, 10 * LIFETIME_MS) == "used_ticket"


@pytest.mark.parametrize("other", ["", "avs_", "avs_" + "x" * 43, "avt_" + "x" * 43, "\ud800", "x" * 100_000])
def test_what_was_never_issued_is_not_known(other: str) -> None:
    tickets = StreamTickets()
    tickets.issue("voice-1", WEB, 0)
    assert refusal(tickets, other) == "unknown_ticket"


def test_a_ticket_is_good_for_a_minute() -> None:
    tickets = StreamTickets()
    late, in_time = tickets.issue("voice-1", WEB, 5), tickets.issue("voice-2", WEB, 5)
    assert tickets.redeem(in_time, LIFETIME_MS + 4).session_id == "voice-2"
    assert refusal(tickets, late, LIFETIME_MS + 5) == "expired_ticket"
    tickets.issue("voice-3", WEB, 10 * LIFETIME_MS)
    assert refusal(tickets, late, 10 * LIFETIME_MS) == "expired_ticket"


def test_a_ticket_that_is_used_voids_the_older_ones_of_its_session_only() -> None:
    tickets = StreamTickets()
    older, used, newer = (tickets.issue("voice-1", WEB, 0) for _ in range(3))
    other = tickets.issue("voice-2", WEB, 0)
    tickets.redeem(used, 0)
    assert refusal(tickets, older) == "replaced_ticket"
    assert tickets.redeem(newer, 0).session_id == "voice-1"
    assert tickets.redeem(other, 0).session_id == "voice-2"


def test_a_session_has_few_tickets_and_a_new_one_takes_the_place_of_the_oldest() -> None:
    tickets = StreamTickets()
    made = [tickets.issue("voice-1", WEB, 0) for _ in range(OF_A_SESSION + 1)]
    assert len(tickets) == OF_A_SESSION
    assert refusal(tickets, made[0]) == "replaced_ticket"
    assert tickets.redeem(made[1], 0).session_id == "voice-1"


def test_there_are_never_more_than_the_bound_and_room_comes_with_time_and_use() -> None:
    tickets = StreamTickets(bound=3)
    first, *_ = [tickets.issue(f"voice-{number}", WEB, 0) for number in range(3)]
    with pytest.raises(Overloaded):
        tickets.issue("voice-x", WEB, LIFETIME_MS - 1)
    tickets.redeem(first, 0)
    tickets.issue("voice-x", WEB, 1)
    with pytest.raises(Overloaded):
        tickets.issue("voice-y", WEB, LIFETIME_MS - 1)
    tickets.issue("voice-y", WEB, LIFETIME_MS)
    assert len(tickets) == 2


def test_the_tickets_of_a_session_that_has_ended_open_nothing() -> None:
    tickets = StreamTickets()
    ended, other = tickets.issue("voice-1", WEB, 0), tickets.issue("voice-2", WEB, 0)
    tickets.forget("voice-1")
    tickets.forget("voice-none")
    assert refusal(tickets, ended) == "unknown_ticket"
    assert tickets.redeem(other, 0).session_id == "voice-2"


def test_what_is_remembered_of_used_tickets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    tickets = StreamTickets()
    made = [tickets.issue("voice-1", WEB, 0) for _ in range(3)]
    for ticket in made:
        tickets.redeem(ticket, 0)
    assert [refusal(tickets, ticket) for ticket in made] == ["unknown_ticket", "used_ticket", "used_ticket"]
    assert len(tickets._over) == 2


def test_no_ticket_is_kept_only_its_hash() -> None:
    tickets = StreamTickets()
    kept, used = tickets.issue("voice-1", WEB, 0), tickets.issue("voice-2", WEB, 0)
    tickets.redeem(used, 0)
    text = repr((tickets._usable, tickets._over, tickets._of_session))
    assert all(secret.removeprefix("avs_") not in text for secret in (kept, used))


class Tickets(RuleBasedStateMachine):
    """Whatever is asked in whatever order: no ticket opens two streams, an older one than was used, or one after its time."""

    made = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.tickets = StreamTickets(bound=20)
        self.now = 0
        self.used: set[str] = set()
        self.last_used: dict[str, int] = {}
        self.number = 0

    @rule(target=made, session=st.sampled_from(["a", "b", "c"]))
    def issue(self, session: str) -> tuple[str, str, int, int]:
        self.number += 1
        return self.tickets.issue(session, WEB, self.now), session, self.now, self.number

    @rule(ticket=made)
    def redeem(self, ticket: tuple[str, str, int, int]) -> None:
        secret, session, since, number = ticket
        try:
            opener = self.tickets.redeem(secret, self.now)
        except InvalidTicket:
            return
        assert opener.session_id == session
        assert secret not in self.used
        assert self.now < since + LIFETIME_MS
        assert number > self.last_used.get(session, 0)
        self.used.add(secret)
        self.last_used[session] = number

    @rule(ticket=consumes(made))
    def forget(self, ticket: tuple[str, str, int, int]) -> None:
        self.tickets.forget(ticket[1])
        assert refusal(self.tickets, ticket[0], self.now) != ""

    @rule(ms=st.integers(0, LIFETIME_MS))
    def wait(self, ms: int) -> None:
        self.now += ms

    @invariant()
    def all_are_counted(self) -> None:
        assert len(self.tickets) == sum(map(len, self.tickets._of_session.values())) <= 3 * OF_A_SESSION


TestTickets = Tickets.TestCase
TestTickets.settings = settings(max_examples=60, stateful_step_count=30)


# --- resume tokens ---------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VoiceStore]:
    with open_store(tmp_path / "voice.db", busy_timeout_seconds=5.0) as store:
        yield store


@pytest.fixture
def resumes(store: VoiceStore) -> ResumeTokens:
    return ResumeTokens(store)


def local(session_id: str) -> StreamOpener:
    return StreamOpener(session_id, NO_TOKEN)


def why(resumes: ResumeTokens, token: str) -> str:
    with pytest.raises(InvalidTicket) as raised:
        resumes.opened(token)
    return raised.value.reason


def keep(store: VoiceStore, session_id: str, state: VoiceSessionState) -> None:
    now = utc_now()
    session = VoiceSession(
        session_id=session_id,
        project_id="shop",
        provider=VoiceProvider.LOCAL,
        stt_provider=STTProvider.WHISPER,
        state=state,
        created_at=now,
        last_activity_at=now,
        risk_tier=RiskLevel.LOW,
        policy_verdict=PolicyVerdict(status=RequestStatus.APPROVED, reason_code="OK"),
        audit_trace_id="audit-1",
    )
    record = EvidenceRecord(
        id=f"ev-{session_id}-{state.value}",
        request_id=session_id,
        connector_type=ConnectorType.CUSTOM,
        operation=state.value,
        created_at=now,
    )
    store.append([Entry(record, session)])


def test_a_stream_goes_on_with_its_token_again_and_again_also_in_another_process(store: VoiceStore) -> None:
    token = ResumeTokens(store).issue(local("voice-1"))
    assert token.startswith("avr_")
    assert [ResumeTokens(store).opened(token).session_id for _ in range(3)] == ["voice-1"] * 3
    with open_store(Path(store.place), busy_timeout_seconds=5.0) as other:
        assert ResumeTokens(other).opened(token).session_id == "voice-1"


def test_a_newer_stream_of_the_session_voids_the_token_of_the_older(resumes: ResumeTokens) -> None:
    older, other = resumes.issue(local("voice-1")), resumes.issue(local("voice-2"))
    newer = resumes.issue(local("voice-1"))
    assert why(resumes, older) == "unknown_resume"
    assert (resumes.opened(newer).session_id, resumes.opened(other).session_id) == ("voice-1", "voice-2")


@pytest.mark.parametrize("token", ["", "avr_", "avr_" + "x" * 43, "\ud800", "x" * 100_000])
def test_what_is_no_resume_token_opens_nothing(resumes: ResumeTokens, token: str) -> None:
    resumes.issue(local("voice-1"))
    assert why(resumes, token) == "unknown_resume"


def test_a_ticket_is_no_resume_token_and_the_other_way_round(resumes: ResumeTokens) -> None:
    tickets = StreamTickets()
    assert why(resumes, tickets.issue("voice-1", WEB, 0)) == "unknown_resume"
    assert refusal(tickets, resumes.issue(local("voice-1"))) == "unknown_ticket"


def test_only_the_hash_of_a_resume_token_is_on_the_disk(store: VoiceStore, resumes: ResumeTokens) -> None:
    token = resumes.issue(local("voice-1"))
    disk = b"".join(item.read_bytes() for item in store.home.iterdir())
    assert token.removeprefix("avr_").encode() not in disk


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_an_access_token_that_stands_no_longer_ends_what_was_opened_with_it(
    how: str, store: VoiceStore, resumes: ResumeTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = TokenStore(store)
    tokens.create("web", 3600, role=Role.PROJECT, project="shop")
    [known] = tokens.list()
    opener = StreamOpener("voice-1", known.id)
    made = resumes.issue(opener)
    assert resumes.opened(made) == ("voice-1", made, known.id, ())
    if how == "revoked":
        tokens.revoke(known.id)
    else:
        later = known.expires_at_ms
        monkeypatch.setattr("agentos.core.communication.voice.storage.tokens.utc_now_ms", lambda: later)
    assert why(resumes, made) == "revoked_token"
    with pytest.raises(InvalidTicket) as raised:
        resumes.issue(opener)
    assert raised.value.reason == "revoked_token"


def test_tokens_go_with_their_sessions(store: VoiceStore, resumes: ResumeTokens) -> None:
    for session_id in ("voice-1", "voice-2", "voice-3"):
        keep(store, session_id, VoiceSessionState.ACTIVE)
    ended, forgotten, running = (resumes.issue(local(f"voice-{number}")) for number in (1, 2, 3))
    resumes.forget("voice-2")
    keep(store, "voice-1", VoiceSessionState.STOPPED)
    resumes.issue(local("voice-4"))
    assert [why(resumes, token) for token in (ended, forgotten)] == ["unknown_resume"] * 2
    assert resumes.opened(running).session_id == "voice-3"
    with closing(sqlite3.connect(store.place)) as database:
        assert database.execute("SELECT session_id FROM streams ORDER BY 1").fetchall() == [("voice-3",), ("voice-4",)]


# --- both, on the loop -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_stream_is_opened_by_its_ticket_and_goes_on_by_its_token(store: VoiceStore) -> None:
    credentials = StreamCredentials(lambda: store, StreamTickets(), clock=lambda: 0)
    opened = await credentials.open(credentials.tickets.issue("voice-1", NO_TOKEN, 0))
    token = opened.token
    assert await credentials.resume(token) == opened == ("voice-1", token, NO_TOKEN, ())
    spare = credentials.tickets.issue("voice-1", NO_TOKEN, 0)
    await credentials.forget("voice-1")
    for attempt in (credentials.open(spare), credentials.resume(token)):
        with pytest.raises(InvalidTicket):
            await attempt


@pytest.mark.anyio
async def test_of_many_who_use_one_ticket_at_once_one_gets_the_stream(store: VoiceStore) -> None:
    credentials = StreamCredentials(lambda: store, StreamTickets(), clock=lambda: 0)
    ticket = credentials.tickets.issue("voice-1", NO_TOKEN, 0)
    outcomes: list[str] = []

    async def attempt() -> None:
        try:
            outcomes.append((await credentials.open(ticket))[0])
        except InvalidTicket as error:
            outcomes.append(error.reason)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(attempt)
    assert sorted(outcomes) == ["used_ticket"] * 9 + ["voice-1"]


@pytest.mark.anyio
async def test_of_two_tickets_used_at_once_the_token_of_the_later_one_stays(
    store: VoiceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, begun, go_on = ResumeTokens.issue, threading.Event(), threading.Event()

    def slow_at_first(resumes: ResumeTokens, opener: StreamOpener) -> str:
        if not begun.is_set():
            begun.set()
            go_on.wait(10)
        return real(resumes, opener)

    monkeypatch.setattr(ResumeTokens, "issue", slow_at_first)
    credentials = StreamCredentials(lambda: store, StreamTickets(), clock=lambda: 0)
    first, second = (credentials.tickets.issue("voice-1", NO_TOKEN, 0) for _ in range(2))
    got: dict[str, str] = {}

    async def use(ticket: str) -> None:
        got[ticket] = (await credentials.open(ticket))[1]

    async with anyio.create_task_group() as group:
        group.start_soon(use, first)
        await anyio.to_thread.run_sync(begun.wait, 10)
        group.start_soon(use, second)
        for _ in range(10):
            await checkpoint()
        go_on.set()
    assert (await credentials.resume(got[second])).session_id == "voice-1"
    with pytest.raises(InvalidTicket):
        await credentials.resume(got[first])


@pytest.mark.anyio
async def test_a_ticket_whose_access_token_was_revoked_meanwhile_opens_nothing(store: VoiceStore) -> None:
    tokens = TokenStore(store)
    tokens.create("web", role=Role.OPERATOR)
    [known] = tokens.list()
    credentials = StreamCredentials(lambda: store, StreamTickets(), clock=lambda: 0)
    ticket = credentials.tickets.issue("voice-1", known.id, 0)
    tokens.revoke(known.id)
    for reason in ("revoked_token", "used_ticket"):
        with pytest.raises(InvalidTicket) as raised:
            await credentials.open(ticket)
        assert raised.value.reason == reason


@pytest.mark.anyio
async def test_a_ticket_that_opens_nothing_leaves_the_token_of_its_session_as_it_is(store: VoiceStore) -> None:
    """As at a server where the session does not run: its client goes on elsewhere."""
    credentials = StreamCredentials(lambda: store, StreamTickets(), clock=lambda: 0)
    live = await credentials.open(credentials.tickets.issue("voice-1", NO_TOKEN, 0))
    elsewhere = StreamCredentials(lambda: store, StreamTickets(), clock=lambda: 0)
    asked: list[str] = []

    async def runs_elsewhere(session_id: str) -> None:
        asked.append(session_id)
        raise SessionNotFound(session_id)

    ticket = elsewhere.tickets.issue("voice-1", NO_TOKEN, 0)
    with pytest.raises(SessionNotFound):
        await elsewhere.open(ticket, runs_elsewhere)
    assert asked == ["voice-1"]
    assert await credentials.resume(live.token) == live
    with pytest.raises(InvalidTicket) as raised:
        await elsewhere.open(ticket)
    assert raised.value.reason == "used_ticket"


@pytest.mark.anyio
async def test_a_ticket_that_takes_its_time_does_not_replace_a_newer_one(store: VoiceStore) -> None:
    credentials = StreamCredentials(lambda: store, StreamTickets(), clock=lambda: 0)
    first, second = (credentials.tickets.issue("voice-1", NO_TOKEN, 0) for _ in range(2))
    go_on, refused = anyio.Event(), list[str]()

    async def waits(session_id: str) -> None:
        await go_on.wait()

    async def use_first() -> None:
        with pytest.raises(InvalidTicket) as raised:
            await credentials.open(first, waits)
        refused.append(raised.value.reason)

    async with anyio.create_task_group() as group:
        group.start_soon(use_first)
        await anyio.wait_all_tasks_blocked()
        opened = await credentials.open(second)
        go_on.set()
    assert refused == ["replaced_ticket"]
    assert await credentials.resume(opened.token) == opened
