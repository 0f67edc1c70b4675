"""The supervisor: it spawns policy, evidence and a session actor for each call, and owns the routing table.

Strategy: one for one. A child that crashes is restarted alone, at its old address and with its mail, as long as it does not
crash more often than its intensity allows. Beyond it, policy and evidence take the supervisor down with them (the system
restarts it from its journal, or fails); a session is told to end as failed; and a session that can't even do that is ended
here, with the final record that it would have written.

Restarts are immediate, and only their intensity bounds them: with a backoff, sessions would wait for evidence that waits, and
some would end without a durable record or turn a caller away, which a crash must not do (P8; the checker finds it with two
crashes). Policy and sessions have nothing to wait for: what may be down stands behind ports, which know how to wait.

It gives each session its routes when it spawns it, and new ones when evidence was restarted or its store is back. Frames
follow a route without passing through here.
"""

from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from actors.runtime.actor import PORT, REPLY, Actor, Effect, Exited, Gone, Out
from actors.runtime.mailbox import CONTROL_BOUND, Ref
from actors.voice.account import NOTHING_TOLD, final_record, frame_account, session_result
from actors.voice.call_part import CallPart, Ports, check_parts, parts_of, release_port
from actors.voice.evidence import EvidenceActor
from actors.voice.messages import (
    Changed,
    Closed,
    Denied,
    Draft,
    Durable,
    Ended,
    Evaluate,
    EvidenceBack,
    Facts,
    Fail,
    Judged,
    NotDurable,
    OpenSession,
    ResumeSession,
    Resumption,
    Routes,
    Stop,
    Unawaited,
    Unevidenced,
)
from actors.voice.outbox import Outbox
from actors.voice.policy import PolicyActor
from actors.voice.session import SessionActor, SessionLimits
from actors.voice.standard_parts import STANDARD_PARTS
from machines.communication import PolicyVerdict, RequestStatus
from machines.frozen import FrozenMap
from machines.operations import SESSION_DENIED
from machines.policy import VoicePolicy
from machines.reasons import SESSION_FAILED
from machines.restart import CrashLog
from machines.session import EndReason

V = TypeVar("V")

GIVEN_CHANCES = 2  # crashes while ending as failed, after which the supervisor ends the session itself


def control_bound(sessions: int, restarts: int) -> int:
    """How many control messages may wait at one actor of a service with so many sessions. Each session has a request or a
    record there, sent again for each restart of evidence and each return of the store, and a spill; all may come at once."""
    return CONTROL_BOUND + sessions * (3 + restarts)


class RoutedSession(Struct, frozen=True):
    """One row of the routing table: a session, its address, and its crashes."""

    facts: Facts
    verdict: PolicyVerdict
    ref: Ref
    crashes: CrashLog = CrashLog()
    failing: int = 0
    tokens: tuple[object, ...] = ()  # of stops that it crashed on
    error: str = ""  # that it is told to fail with


class Supervisor(Actor):
    """The top of the voice service; see the module.

    `sessions` is the routing table; `owners` finds a session by its address; `asked` are requests that policy has not
    judged yet; `outbox` holds the records of refusals and of sessions ended here; `released` are the effects of the last record
    that was stored or refused, which are asked for again after a crash. `crashes` are those of
    policy and evidence, whose addresses are in `routes`.
    """

    __slots__ = (
        "asked",
        "call_parts",
        "crashes",
        "judge",
        "limits",
        "outbox",
        "owners",
        "ports",
        "probe_seconds",
        "released",
        "routes",
        "sessions",
    )
    wiring = ("judge", "limits", "ports", "probe_seconds", "call_parts")
    state = ("asked", "crashes", "outbox", "owners", "released", "routes", "sessions")
    journal = state
    handles = {
        OpenSession: "open_session",
        ResumeSession: "resume_session",
        Unawaited: "unawaited",
        Judged: "judged",
        Durable: "durable",
        NotDurable: "not_durable",
        EvidenceBack: "evidence_back",
        Exited: "exited",
        Gone: "gone",
    }

    def __init__(
        self,
        judge: VoicePolicy,
        limits: SessionLimits,
        ports: Ports,
        probe_seconds: float,
        call_parts: tuple[CallPart, ...] = STANDARD_PARTS,
    ) -> None:
        check_parts(call_parts)
        self.judge = judge
        self.limits = limits
        self.ports = ports
        self.probe_seconds = probe_seconds
        self.call_parts = call_parts
        self.asked: FrozenMap[str, OpenSession] = FrozenMap()
        self.sessions: FrozenMap[str, RoutedSession] = FrozenMap()
        self.owners: FrozenMap[Ref, str] = FrozenMap()
        self.crashes: tuple[tuple[Ref, CrashLog], ...] = ()
        self.outbox = Outbox()
        self.released: tuple[Effect, ...] = ()
        self.routes: Routes | None = None

    def start(self, out: Out) -> None:
        """Spawn policy and evidence, and make the first routes."""
        limits = self.limits
        policy = out.spawn(PolicyActor(self.judge), "policy")
        evidence = out.spawn(
            EvidenceActor(out.me, self.ports.store, limits.evidence_seconds, self.probe_seconds), "evidence"
        )
        self.routes = Routes(1, policy, evidence)

    def restarted(self, out: Out) -> None:
        """Go on where the journal stands: the children kept running, and those that are held begin again with it; what
        they were asked is asked again."""
        if self.routes is None:
            self.start(out)
            return
        for child in (self.routes.policy, self.routes.evidence, *(entry.ref for entry in _in_order(self.sessions))):
            out.adopt(child)
            out.restart(child)
        for entry in _in_order(self.sessions):
            out.watch(entry.ref)  # the news of its end may be what this actor died on
            if entry.failing:
                out.tell(entry.ref, Fail(entry.error, entry.tokens))
        self._reroute(out)  # the sessions may not have been told that the store is back
        out.release(self.released)
        self._ask_again(out)

    # --- opening ---------------------------------------------------------------------------------------------------

    def open_session(self, message: OpenSession, out: Out) -> None:
        """Have the request judged."""
        self.asked = self.asked.with_item(message.facts.session_id, message)
        out.tell(self._routes().policy, Evaluate(message.facts, out.me))

    def _ask_again(self, out: Out) -> None:
        """Ask policy again for the verdicts that are missing, since it may have died on them; a second verdict is ignored."""
        for asked in _in_order(self.asked):
            out.tell(self._routes().policy, Evaluate(asked.facts, out.me))

    def judged(self, message: Judged, out: Out) -> None:
        """Spawn the session, or refuse with the refusal in evidence first."""
        asked = self.asked.get(message.session_id)
        if asked is None:
            return
        self.asked = self.asked.without(message.session_id)
        if message.verdict.status is RequestStatus.APPROVED:
            self._spawn_session(asked.facts, message.verdict, asked.token, out)
            return
        detail = (("refused", message.verdict.reason_code), ("hint", message.verdict.hint))
        denied = (REPLY, asked.token, Denied(message.verdict))
        draft = Draft(
            asked.facts,
            self.outbox.next_number,
            SESSION_DENIED,
            message.verdict.status,
            message.verdict,
            detail=detail,
        )
        closed = (PORT, self.ports.directory, Closed(message.session_id))
        self.outbox = self.outbox.commit(out, self._routes().evidence, draft, (closed, denied))

    def resume_session(self, message: ResumeSession, out: Out) -> None:
        """Spawn a session that a dead process left, with the verdict of that process, unless the session runs here already."""
        facts, verdict = message.facts, message.verdict
        if facts.session_id in self.sessions:
            out.reply(message.token, Unevidenced("it is being resumed already"))
            return
        self._spawn_session(facts, verdict, message.token, out, message.resumption)

    def unawaited(self, message: Unawaited, out: Out) -> None:
        """The request was given up. A request that was set aside would keep its place in the directory for ever: close it."""
        session_id = message.session_id
        refused = any(waiting.draft.facts.session_id == session_id for waiting in self.outbox.waiting)
        if session_id not in self.asked and session_id not in self.sessions and not refused:
            out.port(self.ports.directory, Closed(session_id))

    def _spawn_session(
        self, facts: Facts, verdict: PolicyVerdict, token: object, out: Out, resumption: Resumption | None = None
    ) -> None:
        """Spawn the session, unless one of its parts can't begin."""
        try:
            parts = parts_of(self.call_parts, facts)
            actor = SessionActor(facts, verdict, self.limits, self.ports, parts, self._routes(), token, resumption)
        except Exception as error:  # noqa: BLE001 - of a part that a host brings; it must not end the other calls
            out.port(self.ports.directory, Closed(facts.session_id))
            out.reply(token, Unevidenced(f"a part of the call can't begin: {type(error).__name__}: {error}"))
            return
        ref = out.spawn(actor, facts.session_id)
        self.sessions = self.sessions.with_item(facts.session_id, RoutedSession(facts, verdict, ref))
        self.owners = self.owners.with_item(ref, facts.session_id)

    def _forget(self, session_id: str) -> None:
        entry = self.sessions.get(session_id)
        if entry is not None:
            self.sessions = self.sessions.without(session_id)
            self.owners = self.owners.without(entry.ref)

    # --- evidence of its own ---------------------------------------------------------------------------------------

    def durable(self, message: Durable, out: Out) -> None:
        """A record is in the store: release its effects."""
        if self.outbox.is_under_way(message.number):
            self.released = self.outbox.waiting[0].then
        self.outbox = self.outbox.acknowledged(message.number, out, self._routes().evidence)

    def not_durable(self, message: NotDurable, out: Out) -> None:
        """A record can't be made durable. A refused request stays refused; its answer says why the refusal is not on record."""
        if not self.outbox.is_under_way(message.number):
            return
        waiting = self.outbox.waiting[0]
        if waiting.draft.result is not None and not (message.refused and waiting.draft.refusal):
            if message.refused:
                self.outbox = self.outbox.refused(message.error, out, self._routes().evidence)
            return  # the end of a session waits until the store is back
        if waiting.draft.result is not None:
            self.released = tuple([_unevidenced(effect) for effect in waiting.then])
        else:
            error = Unevidenced(message.error)
            replies = tuple([(REPLY, token, error) for op, token, _ in waiting.then if op == REPLY])
            self.released = ((PORT, self.ports.directory, Closed(waiting.draft.facts.session_id)), *replies)
        out.release(self.released)
        self.outbox = self.outbox.dropped(out, self._routes().evidence)

    def evidence_back(self, _: EvidenceBack, out: Out) -> None:
        """The store takes records again: every session sends its waiting record again."""
        self._reroute(out)

    def _reroute(self, out: Out) -> None:
        routes = self.routes = replace(self._routes(), epoch=self._routes().epoch + 1)
        for entry in _in_order(self.sessions):
            out.tell(entry.ref, routes)
        self.outbox.send_again(out, routes.evidence)

    # --- failure ---------------------------------------------------------------------------------------------------

    def exited(self, message: Exited, out: Out) -> None:
        """A child crashed, or a session has said its last word and left. News of one that was ended here are old."""
        session_id = self.owners.get(message.ref)
        routes = self._routes()
        if message.error is None:
            self._forget(session_id or "")
        elif session_id is not None:
            self._session_crashed(session_id, message, out)
        elif message.ref in {routes.policy, routes.evidence}:
            self._own_child_crashed(message, out)

    def gone(self, message: Gone, _: Out) -> None:
        """A session that left while this actor was down."""
        self._forget(self.owners.get(message.ref) or "")

    def _own_child_crashed(self, message: Exited, out: Out) -> None:
        logs = dict(self.crashes)
        log, allowed = logs.get(message.ref, CrashLog()).after_crash(message.at, self.limits.restarts)
        logs[message.ref] = log
        self.crashes = tuple(logs.items())
        if not allowed:
            raise ChildFailed(f"{message.ref} crashes again and again: {message.error}")
        out.restart(message.ref)
        if message.ref is self._routes().evidence:
            self._reroute(out)
        else:
            self._ask_again(out)

    def _session_crashed(self, session_id: str, message: Exited, out: Out) -> None:
        entry = self.sessions.get(session_id)
        if entry is None:
            return
        log, allowed = entry.crashes.after_crash(message.at, self.limits.restarts)
        stopping = isinstance(message.dropped, Stop | Fail)
        if stopping:
            entry = replace(entry, tokens=tuple(dict.fromkeys((*entry.tokens, *_tokens(message.dropped)))))
        if entry.failing or not allowed or stopping:
            entry = replace(entry, failing=entry.failing + 1, error=message.error or "")
        if entry.failing > GIVEN_CHANCES:
            self._end_for(entry, message.last_words, out)
            return
        self.sessions = self.sessions.with_item(session_id, replace(entry, crashes=log))
        if entry.failing:
            out.tell(entry.ref, Fail(entry.error, entry.tokens))
        out.restart(entry.ref)

    def _end_for(self, entry: RoutedSession, last_words: tuple[Effect, ...], out: Out) -> None:
        """End a session that can't end itself: release its ports, write its final record, and answer its requests."""
        session_id, directory = entry.facts.session_id, self.ports.directory
        out.stop(entry.ref)
        self.sessions = self.sessions.without(session_id)
        self.owners = self.owners.without(entry.ref)
        last_news = [work for _, _, work in last_words if isinstance(work, Changed)]
        result = last_news[0].result if last_news else None
        if result is None:  # not even its last words could be had
            frames = frame_account(NOTHING_TOLD, 0, SESSION_FAILED, recorded=False, transcribed=False)
            result = session_result(EndReason.FAILED, NOTHING_TOLD, frames, drained=False)
        number = self.outbox.next_number
        draft = final_record(entry.facts, number, entry.verdict, result, error=entry.error, failed=True)
        closed = Closed(session_id)
        ended = Ended(session_id, durable=True, spilled=False)
        told = [token for _, token, _ in last_words]
        then: tuple[Effect, ...] = (
            (PORT, directory, closed),
            *last_words,
            *((REPLY, token, ended) for token in entry.tokens if token not in told),
        )
        self.outbox = self.outbox.commit(out, self._routes().evidence, draft, then)
        out.port(directory, Closed(session_id, gone=True))
        for part in parts_of(self.call_parts, entry.facts):
            release_port(part, entry.facts, self.ports, out)

    def _routes(self) -> Routes:
        if self.routes is None:
            raise ChildFailed("the supervisor was asked before it started")
        return self.routes


def _tokens(message: Stop | Fail) -> tuple[object, ...]:
    """The tokens of the requests behind this message."""
    if isinstance(message, Fail):
        return message.tokens
    return () if message.token is None else (message.token,)


def _unevidenced(effect: Effect) -> Effect:
    """This effect, with the end that it tells of as not durable, since its record can't be written."""
    kind, to, what = effect
    return (kind, to, replace(what, durable=False)) if isinstance(what, Ended) else effect


def _in_order(by_session: FrozenMap[str, V]) -> list[V]:
    """The values in the order of their session ids, so that one script always has the same effects."""
    return [value for _, value in sorted(by_session.items(), key=lambda item: item[0])]


class ChildFailed(Exception):
    """Policy or evidence crashed more often than they may be restarted."""
