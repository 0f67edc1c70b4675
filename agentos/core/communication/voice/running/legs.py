"""The legs of sessions whose provider carries them itself: opened, hung up, and said of what could not be.

`providers/transport.py` says what providers may rely on. Each leg has a task of its own from its session's beginning to its
end.
"""

import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio
from anyio.abc import TaskStatus

from agentos.core.communication.voice.errors import InvalidRequest, InvalidState
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.providers.transport import AudioSink, Transport
from agentos.core.communication.voice.secrets_in_text import without_secrets
from agentos.core.time import utc_now
from machines.communication import ConnectorType, RequestStatus
from machines.evidence import EvidenceRecord, record_id
from machines.names import text_of
from machines.operations import LEG_FAILED
from machines.session import EndReason, VoiceSession, VoiceSessionState

log = logger(__name__)

LONGEST_PROBLEM = 1_000  # characters of a provider's error that go into log and evidence
TAKING_AUDIO = (VoiceSessionState.CREATED, VoiceSessionState.ACTIVE)


class _Leg:
    """A leg, from the beginning of its session on; `session` is as it was told last."""

    __slots__ = ("leg_id", "opening", "over", "problems", "session", "transport")

    def __init__(self, session: VoiceSession, transport: Transport) -> None:
        self.session = session
        self.transport = transport
        self.leg_id = f"leg-{secrets.token_hex(8)}"
        self.opening: anyio.CancelScope | None = None
        self.over = anyio.Event()
        self.problems = 0

    def end(self) -> None:
        """Its session is over, or has to be taken as over."""
        self.over.set()
        if self.opening is not None:
            self.opening.cancel()


class Legs:
    """Opens a leg for each session that begins, and hangs it up when the session has ended, within `timeout_seconds` each.

    What it is told comes out of steps of actors, where no task is; `run` deals with it in its own.

    `fail` ends a session whose leg could not be opened, `note` puts a record into evidence. All calls are for the loop's
    thread.
    """

    def __init__(
        self,
        fail: Callable[[str], Awaitable[None]],
        note: Callable[[EvidenceRecord], None],
        timeout_seconds: float,
    ) -> None:
        self._fail = fail
        self._note = note
        self._timeout_seconds = timeout_seconds
        self._legs: dict[str, _Leg] = {}
        self._begun: deque[tuple[_Leg, bool]] = deque()
        self._news = anyio.Event()
        self._tasks: anyio.CancelScope | None = None
        self._over = False

    def began(self, session: VoiceSession, transport: Transport, *, resumed: bool) -> None:
        """A session began here, and its record is durable. The leg of one that was `resumed` was opened before."""
        leg = self._legs[session.session_id] = _Leg(session, transport)
        self._begun.append((leg, resumed))
        self._news.set()

    def ended(self, session: VoiceSession) -> None:
        """A session has stopped."""
        leg = self._legs.get(session.session_id)
        if leg is not None:
            leg.session = session
            leg.end()

    def end(self) -> None:
        """The service closes, and its last session has ended."""
        self._over = True
        self._news.set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Look after the legs until `end`, and until the last one was hung up or given up. A cancellation changes none of that;
        one that no shield holds off leaves legs behind, and says which."""
        try:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as tasks:
                    self._tasks = tasks.cancel_scope
                    task_status.started()
                    while not self._over:
                        await self._news.wait()
                        self._news = anyio.Event()
                        while self._begun:
                            tasks.start_soon(self._carry, *self._begun.popleft())
                    for leg in self._legs.values():
                        leg.end()
        finally:
            for leg in self._legs.values():
                self._say(leg, "hang_up", "the tasks of the voice service were cancelled")

    async def _carry(self, leg: _Leg, resumed: bool) -> None:  # noqa: FBT001 - by its task group
        session_id = leg.session.session_id
        if not leg.over.is_set() or resumed:
            if not resumed and not await self._opened(leg):
                await self._fail(session_id)
            await leg.over.wait()
            await self._hang_up(leg)
        del self._legs[session_id]

    async def _opened(self, leg: _Leg) -> bool:
        """Whether the leg was opened, or need not be any more because its session is over."""
        try:
            with anyio.move_on_after(self._timeout_seconds) as leg.opening, self._own_cancellation(leg.opening):
                await leg.transport.open_leg(leg.session)
                return True
        except Exception as error:  # noqa: BLE001 - the provider's fault must end this session and no other
            self._say(leg, "open", f"{type(error).__name__}: {error}")
            return False
        if not leg.over.is_set():
            self._say(leg, "open", f"it took more than {self._timeout_seconds:g} s")
        return leg.over.is_set()

    async def _hang_up(self, leg: _Leg) -> None:
        result = leg.session.result
        reason = EndReason.SHUTDOWN if result is None else result.reason
        try:
            with anyio.fail_after(self._timeout_seconds) as scope, self._own_cancellation(scope):
                await leg.transport.hang_up(leg.session, reason)
        except TimeoutError as error:
            self._say(leg, "hang_up", str(error) or f"it took more than {self._timeout_seconds:g} s")
        except Exception as error:  # noqa: BLE001 - as above
            self._say(leg, "hang_up", f"{type(error).__name__}: {error}")

    @contextmanager
    def _own_cancellation(self, scope: anyio.CancelScope) -> Iterator[None]:
        """Make an error of a cancellation that the provider brought on itself: on asyncio, of a task that it waited for. Such a
        cancellation must not end the legs of other sessions."""
        try:
            yield
        except anyio.get_cancelled_exc_class():
            if scope.cancel_called or self._tasks is None or self._tasks.cancel_called:
                raise
            raise RuntimeError("a task that it waited for was cancelled") from None

    def _say(self, leg: _Leg, step: str, problem: str) -> None:
        """Say in the log and in evidence that this leg may not be as it should be."""
        session, provider = leg.session, text_of(leg.session.provider)
        leg.problems += 1
        problem = without_secrets(problem)[:LONGEST_PROBLEM]
        log.error(
            "leg_failed",
            session_id=session.session_id,
            leg_id=leg.leg_id,
            provider=provider,
            step=step,
            problem=problem,
        )
        record = EvidenceRecord(
            id=record_id(leg.leg_id, leg.problems),
            request_id=leg.leg_id,
            connector_type=ConnectorType.CUSTOM,
            operation=LEG_FAILED,
            request_summary={"leg_id": leg.leg_id, "session_id": session.session_id, "provider": provider},
            response_summary={"step": step, "error": problem},
            status=RequestStatus.FAILED,
            metadata={
                "audit_trace_id": session.audit_trace_id,
                "risk_tier": session.risk_tier.value,
                "number": leg.problems,
            },
            created_at=utc_now(),
        )
        try:
            self._note(record)
        except Exception:  # nobody can be told more than the log was
            log.exception("leg_failed_without_record", leg_id=leg.leg_id)


class SessionSink:
    """Audio to the caller of one session, for as long as the session takes audio: the provider's sink, and its rules held."""

    def __init__(self, sink: AudioSink, session: Callable[[], VoiceSession | None], session_id: str) -> None:
        self._sink = sink
        self._session = session
        self._session_id = session_id

    @property
    def sample_rate(self) -> int:
        """Samples a second; they are mono, signed 16 bit little-endian."""
        return self._sink.sample_rate

    async def send(self, pcm: bytes) -> None:
        """Have these samples played behind those that wait; returns when more can be taken.

        Raises `InvalidState` when the session is ending or over, `InvalidRequest` for what are no whole samples, and `OSError`
        when the leg is gone.
        """
        self._check()
        if not isinstance(pcm, bytes | bytearray | memoryview) or len(pcm) % 2:
            raise InvalidRequest("pcm must be bytes of whole samples, two bytes each", field="pcm")
        await self._sink.send(bytes(pcm))

    async def clear(self) -> None:
        """Forget what was not played yet. Raises `InvalidState` and `OSError` as `send` does."""
        self._check()
        await self._sink.clear()

    def _check(self) -> None:
        session = self._session()
        state = VoiceSessionState.STOPPED if session is None else session.state
        if state not in TAKING_AUDIO:
            raise InvalidState(self._session_id, state, "nothing is played to its caller any more")
