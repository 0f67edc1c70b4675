"""The actor system: one dispatcher runs the steps of every actor; an actor costs no task.

An actor with mail stands in the ready queue, which is drained in turn, one message each. An idle actor's step runs in the
turn of whoever tells it. What keeps that sound:

- While a step or its effects run, and while the ready queue is not empty, `tell` only enqueues. So no actor ever sees the
  world between two effects of one step, and nobody outside can overtake what waits.
- Whoever drains does so within a budget of steps; then the driver task goes on, so that an endless exchange between
  actors can't hold up the loop.
- Steps and effects never await. A port takes work in `submit`, which neither blocks nor tells; its results come later, as
  messages from its own task or, from a thread, through `post`.
- Another thread never runs a step: `post` appends to an inbox and wakes the loop once for a batch.
- An error in a step goes to the parent of its actor as `Exited`, never to the teller. The actor is held, its mail with
  it, until the parent restarts or stops it. A parent that does not handle `Exited` fails with its child. At the top the
  system restarts an actor itself, within an intensity; beyond it the system fails.
- A message whose step raised is tried again after the restart, since no effect of it went out; if it kills its actor
  twice it becomes a dead letter. A message that crashed halfway through its effects is not tried again, and neither is a
  timer: it died with its incarnation, and the first step of the next one arms what it needs. A timer that lasts (see
  `Actor.lasting`) stays armed while its actor is held, and one whose step raised is tried again until a step of it is whole.
- The children of a crashed actor go on. One that is held as well is begun again with its parent if the parent does not
  handle `Exited`; a parent that does has been told, or restarts them in its first step.

The model checker has these rules a second time, on numbers in the place of live actors: `actors.model.turns`, which says why
they can't be one definition. Whoever changes a rule here changes it there; `tests/actors/model/test_turns.py` plays the same
scenes in both and compares them after each line. The simulation repeats nothing: it runs this system with a ready queue of its
own (`actors.simulation.dispatch`).
"""

import sys
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import TaskStatus

from actors.runtime.actor import (
    KEEP_TIMER,
    PORT,
    START,
    START_AGAIN,
    Actor,
    Effect,
    Exited,
    Gone,
    Out,
    Retry,
    Shutdown,
    Start,
    Timer,
    content_of,
    refused,
)
from actors.runtime.loop import loop_clock, thread_waker
from actors.runtime.mailbox import (
    AUDIO_BOUND,
    BORN,
    CONTROL_BOUND,
    EMPTY,
    HELD,
    IDLE,
    KEEP_MAIL,
    READY,
    SPREAD,
    STOPPED,
    SYSTEM,
    UNBORN,
    LanePool,
    MailboxOverflow,
    MailRule,
    Message,
    Ref,
    depth,
    put,
    put_back,
    take_all,
    take_first,
    take_out,
    waiting,
    waiting_in,
)
from actors.runtime.timers import TimerQueue
from machines.restart import CrashLog, Intensity

T = TypeVar("T")

BUDGET: Final = 256  # steps in one drain: about 0.3 ms, then the loop gets its turn
DEAD_LETTERS_KEPT: Final = 100
FREE, CUT, RUNNING = 0, 1, 2  # what the dispatcher is doing: nothing, waiting for the driver, running a step
OWN_MAIL: Final = (Start, Timer)  # what an actor sends itself: nobody misses it
TOP_INTENSITY: Final = Intensity(limit=5, window=60.0)


class Port(Protocol):
    """What touches the world for actors: it takes work without blocking or telling, and tells results back later.

    `submit` runs in whatever context variables the teller happens to have, so it must not read any.
    """

    def submit(self, work: Any) -> None:
        """Take `work`. Raising is a crash of the actor that asked, halfway through its effects."""


class DeadLetter(NamedTuple):
    """A message that reached nobody: to whom, of which type, why, and the error that it caused, if any."""

    to: str
    kind: str
    reason: str
    error: str = ""


class SystemFailed(Exception):
    """An actor at the top crashed more often than it may be restarted; the system can't go on."""


class AskTimeout(TimeoutError):
    """An ask was not answered in time, or never will be, since the actor has stopped. A late answer will be a dead letter."""


class Token:
    """A one-shot place for the answer to an ask. Opaque: send it along, and reply to it once."""

    __slots__ = ("answered", "event", "value")

    def __init__(self) -> None:
        self.answered = False
        self.value: Any = None
        self.event: anyio.Event | None = None


@dataclass(frozen=True, slots=True)
class SystemStatistics:
    """How the system is.

    `actors` alive, `held` of them waiting for a supervisor's decision; `ready` actors in the ready queue; `inbox` messages
    from threads not yet taken; `timers` armed; `steps` run since the start; `crashes`, `restarts`; `cut` drains that ran
    out of their budget; `dead_letters` by reason; `overflowed` audio messages dropped at a bound; `slow_steps` that ran longer
    than they may.
    """

    actors: int
    held: int
    ready: int
    inbox: int
    timers: int
    steps: int
    crashes: int
    restarts: int
    cut: int
    overflowed: int
    dead_letters: dict[str, int]
    slow_steps: int = 0


class SlowStep(NamedTuple):
    """A step that ran for so many `seconds`, its effects included: the path of its `actor`, and which `message` it was, without
    what that said."""

    actor: str
    message: str
    seconds: float


class SlowSteps(NamedTuple):
    """Have `told` called with each step that runs longer than `seconds` by `clock`: while it ran, no other actor did.

    `clock` is read once for each step and once for each turn of the dispatcher. `told` is called in the loop's thread, behind
    the step, and must not raise.
    """

    clock: Callable[[], float]
    seconds: float
    told: Callable[[SlowStep], None]


class ActorSystem:
    """A set of actors and the dispatcher that runs them, on asyncio (uvloop too) and on trio.

    `clock` gives seconds and defaults to the clock of the loop that `run` is started in; `budget` is the number of steps
    of one drain, `control_bound` how many control messages may wait at one actor before that counts as its failure: more
    than all who tell it things can have under way. Until `run` has started, `tell` and `spawn` work and timers wait. With
    `slow_steps` it tells of steps that block; without, it does not look.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] | None = None,
        budget: int = BUDGET,
        control_bound: int = CONTROL_BOUND,
        slow_steps: SlowSteps | None = None,
    ) -> None:
        self.budget = budget
        self.control_bound = control_bound
        self._bound = min(AUDIO_BOUND, control_bound)  # below it, no lane is full
        self._slow_steps = slow_steps
        self._slow = 0
        self._out = Out(Ref)
        self._ready: deque[Ref] = deque()
        self._busy = FREE
        self._steps = 0
        self._pool = LanePool()
        self._timers = TimerQueue(clock, self._look_again)
        self._wake: anyio.Event | None = None
        self._inbox: deque[tuple[Ref, Message]] = deque()
        self._notified = False
        self._wake_from_thread: Callable[[], None] | None = None
        self._tops: dict[Ref, None] = {}  # the actors without a parent; all others are found from them
        self._top_crashes: dict[Ref, CrashLog] = {}
        self._failure: SystemFailed | None = None
        self._dead: Counter[str] = Counter()
        self.dead_letters: deque[DeadLetter] = deque(maxlen=DEAD_LETTERS_KEPT)
        self._crashes = self._restarts = self._cut = self._overflowed = 0
        self._perform: tuple[Callable[[Ref, Any, Any], None], ...] = (
            self._tell_effect,
            self._reply,
            self._port,
            self._timers.set,
            self._timers.cancel,
            self._spawn_effect,
            self._restart_effect,
            self._stop_effect,
            self._watch,
            self._unwatch,
            self._postpone,
            self._refuse,
            self._hold_effect,
            self._timers.keep,
        )
        assert len(self._perform) == KEEP_TIMER + 1

    # --- from outside ----------------------------------------------------------------------------------------------

    def spawn(self, actor: Actor, name: str) -> Ref:
        """Start an actor at the top of the system; the address that it answers at."""
        ref = Ref(actor, name, None)
        self._spawn(ref)
        if self._busy != RUNNING:
            self._go_on()
        return ref

    def stop(self, ref: Ref) -> None:
        """Stop an actor and its children, children first; waiting mail becomes dead letters. Twice is once."""
        self._stop(ref)
        if self._busy != RUNNING:
            self._go_on()

    def tell(self, ref: Ref, message: Message) -> None:  # noqa: C901, PLR0912, PLR0915 - on purpose, as its docstring says
        """Put `message` into the mailbox of `ref`; if the system is idle, run its step now and all that follows from it,
        within the budget.

        Call it in the loop's thread only, and never from a step. It does not raise what a step raises.

        Slot, step, effects, enqueue and the drain are in this one function on purpose: split into readable helpers the same
        work costs half as much again, and every message of every call passes here.
        """
        if self._busy or ref.status:
            if ref.status:
                self._push(ref, message)
            else:
                ref.status = READY
                ref.slot = message
                self._ready.append(ref)
            if self._busy != RUNNING:
                self._go_on()
            return
        self._busy = RUNNING
        ref.status = READY
        out = self._out
        effects = out.effects
        ready = self._ready
        budget = left = self.budget
        slow = self._slow_steps
        began = slow.clock() if slow is not None else 0.0
        try:
            while True:
                actor = ref.actor
                out.me = ref
                try:
                    phase = actor.phase  # type: ignore[union-attr]
                    ref.table[phase].get(message.__class__, refused)(actor, message, out)
                except Exception as error:  # noqa: BLE001 - any error of a step goes to the supervisor
                    effects.clear()
                    self._crash(ref, message, error)
                else:
                    journaled = ref.journaled
                    if journaled is not None:
                        ref.journal = journaled(actor)
                        if ref.cold is not None and actor.phase is not phase:  # type: ignore[union-attr]
                            self._take_deferred(ref)
                    if effects:
                        try:
                            for op, a, b in effects:
                                if not op:
                                    if a.status:
                                        self._push(a, b)
                                    else:
                                        a.status = READY
                                        a.slot = b
                                        ready.append(a)
                                elif op == PORT:
                                    a.submit(b)
                                else:
                                    self._perform[op](ref, a, b)
                        except Exception as error:  # noqa: BLE001 - a failing effect is a crash after k of n
                            self._crash(ref, EMPTY, error)
                        effects.clear()
                if ref.status == READY:
                    if ref.slot is EMPTY:
                        ref.status = IDLE
                    else:
                        ready.append(ref)
                left -= 1
                if slow is not None:
                    now = slow.clock()
                    if now - began > slow.seconds:
                        self._was_slow(slow, ref, message, now - began)
                        now = slow.clock()
                    began = now
                if not ready:
                    break
                if not left:
                    self._cut += 1
                    break
                ref = ready.popleft()
                while ref.status != READY:
                    if ref.status == BORN:
                        ref.status = READY
                        message = START
                        break
                    if not ready:  # held or stopped while it waited
                        return
                    ref = ready.popleft()
                else:
                    message = ref.slot
                    if message is not SPREAD:
                        ref.slot = EMPTY
                    else:
                        system, control, audio = ref.lanes  # type: ignore[misc]
                        lane = system or control or audio
                        message = lane.popleft()
                        if not lane and not (system or control or audio):
                            self._pool.give_back(ref.lanes)  # type: ignore[arg-type]
                            ref.lanes = None
                            ref.slot = EMPTY
        except BaseException as error:
            effects.clear()
            self._crash(ref, EMPTY, error)
            raise
        finally:
            self._steps += budget - left
            if ready:
                self._busy = CUT
                self._go_on()
            else:
                self._busy = FREE

    def _was_slow(self, slow: SlowSteps, ref: Ref, message: Message, seconds: float) -> None:
        self._slow += 1
        content = content_of(message)
        named = f"timer {content.key}" if isinstance(content, Timer) else type(content).__name__
        slow.told(SlowStep(_path(ref), "start" if message is START else named, seconds))

    async def ask(self, ref: Ref, make: Callable[[Token], object], seconds: float) -> Any:
        """Tell `ref` the message that `make(token)` builds, and wait for the reply to that token.

        An actor that answers at once is answered for without a checkpoint. Raises `AskTimeout` after `seconds`, and at once
        when `ref` had stopped before it was asked. If the caller is cancelled the token is dead and a late reply is a dead
        letter.
        """
        token = Token()
        had_stopped = ref.status == STOPPED
        self.tell(ref, make(token))
        if had_stopped:
            raise AskTimeout(f"{ref.name} has stopped and can't answer")
        if not token.answered:
            token.event = anyio.Event()
            with anyio.move_on_after(seconds):
                try:
                    await token.event.wait()
                finally:
                    if not token.answered:
                        token.answered, token.event = True, None
            if token.event is None:
                raise AskTimeout(f"{ref.name} did not answer within {seconds} s")
        return token.value

    def post(self, ref: Ref, message: object) -> None:
        """Like `tell`, from any thread: the message is in the inbox when this returns, its step runs later.

        After the system has ended the message is lost, which `post` does not notice.
        """
        self._inbox.append((ref, message))
        if not self._notified:
            self._notified = True
            wake = self._wake_from_thread  # read once: the loop's thread takes it away when it ends
            if wake is not None:
                with suppress(RuntimeError):  # the loop is over
                    wake()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Drive timers, the inbox, and what a drain left over, until cancelled.

        Raises `SystemFailed` when a top actor crashed too often.
        """
        if self._timers.clock is None:
            self._timers.run_by(loop_clock())
        self._wake = anyio.Event()
        self._wake_from_thread = thread_waker(self._take_inbox)
        if self._inbox:
            self._take_inbox()
        task_status.started()
        try:
            while True:
                self._wake = anyio.Event()
                wait = self.turn()
                if self._failure is not None:
                    raise self._failure
                if self._ready:
                    await anyio.lowlevel.checkpoint()
                elif wait is None:
                    await self._wake.wait()
                else:
                    with anyio.move_on_after(wait):
                        await self._wake.wait()
        finally:
            self._wake = None
            self._wake_from_thread = None

    def turn(self) -> float | None:
        """Fire the timers that are due and drain the ready queue, within the budget.

        The seconds until the next timer is due, or None when none is armed.
        """
        self._fire_due()
        if self._ready and self._busy != RUNNING:
            self._drain()
        at = self._timers.next_at()
        return None if at is None else max(0.0, at - self.now())

    def has_work(self) -> bool:
        """Whether a drain was cut and actors still wait for their turn."""
        return bool(self._ready)

    def now(self) -> float:
        """The system's clock, in seconds; 0 before it runs when no clock was given."""
        return self._timers.now()

    def progress(self) -> tuple[int, int]:
        """The steps run since the start, and how many actors and messages from threads wait for one. After so many more steps
        all that waits now has had its turn. Unlike `statistics`, which looks at every actor, it costs nothing."""
        return self._steps, len(self._ready) + len(self._inbox)

    def statistics(self) -> SystemStatistics:
        """How the system is at this moment; see `SystemStatistics`."""
        refs = [ref for ref, _ in self.refs()]
        return SystemStatistics(
            actors=len(refs),
            held=sum(1 for ref in refs if ref.status == HELD),
            ready=len(self._ready),
            inbox=len(self._inbox),
            timers=self._timers.armed,
            steps=self._steps,
            crashes=self._crashes,
            restarts=self._restarts,
            cut=self._cut,
            overflowed=self._overflowed,
            dead_letters=dict(self._dead),
            slow_steps=self._slow,
        )

    def refs(self) -> Iterator[tuple[Ref, int]]:
        """Every living actor's address with the number of messages that wait there; a child comes behind its parent."""
        found = list(self._tops)
        for ref in found:
            found.extend(reversed(list(ref.children())))
        return ((ref, depth(ref)) for ref in found)

    def waiting(self) -> Iterator[Ref]:
        """The actors in the ready queue, in their turn; some may have been held or stopped while they waited."""
        return iter(self._ready)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """While this is open, `tell` only enqueues; the queue is drained at the end.

        It is how a script can be run queued rather than inline, and how a batch is told without a step between.
        """
        was, self._busy = self._busy, RUNNING
        try:
            yield
        finally:
            self._busy = was
            if was != RUNNING:
                self._go_on()

    # --- the dispatcher --------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Run the ready queue, within the budget."""
        ready = self._ready
        while ready:
            ref = ready.popleft()
            if ref.status == BORN:
                message: Message = START
            elif ref.status == READY:
                message = take_first(ref, self._pool)
            else:
                continue  # held or stopped while it waited
            ref.status = IDLE
            self._busy = FREE
            self.tell(ref, message)
            return
        self._busy = FREE

    def _go_on(self) -> None:
        """See to it that the ready queue is drained: by the driver when a drain was cut, else now."""
        if self._busy == FREE:
            self._drain()
        elif self._wake is not None:
            self._wake.set()

    def _enqueue(self, ref: Ref, message: Message) -> None:
        if ref.status == IDLE:
            ref.status = READY
            ref.slot = message
            self._ready.append(ref)
        else:
            self._push(ref, message)

    def _push(self, ref: Ref, message: Any) -> None:
        """Put a message into a mailbox whose actor is not idle."""
        lanes = ref.lanes
        if lanes is not None:
            try:
                lane = lanes[message.lane]
                if len(lane) < self._bound:
                    lane.append(message)
                    return
            except AttributeError:
                pass  # a message without a lane: `put` knows what to do
        if ref.status >= STOPPED:
            self._letter(ref, message, "stopped")
            return
        try:
            gone = put(ref, message, self._pool, self.control_bound)
        except MailboxOverflow as error:
            self._letter(ref, message, "overflow")
            if ref.status != HELD:
                self._crash(ref, EMPTY, error)
            return
        if gone is not EMPTY:
            self._overflowed += 1
            self._letter(ref, gone, "overflow")

    def _take_deferred(self, ref: Ref) -> None:
        if ref.cold is not None:
            deferred, ref.cold.deferred = ref.cold.deferred, []
            for message in reversed(deferred):
                put_back(ref, message, self._pool)

    def _take_inbox(self) -> None:
        """Tell everything that threads had posted when the loop called this. What they post meanwhile wakes it again."""
        self._notified = False
        inbox = self._inbox
        for _ in range(len(inbox)):
            ref, message = inbox.popleft()
            self.tell(ref, message)

    # --- effects ---------------------------------------------------------------------------------------------------

    def _tell_effect(self, _: Ref, to: Ref, message: Message) -> None:
        self._enqueue(to, message)

    def _reply(self, ref: Ref, token: Token, value: object) -> None:
        if token.answered:
            self._letter(ref, value, "late reply")
            return
        token.answered = True
        token.value = value
        if token.event is not None:
            token.event.set()

    def _port(self, _: Ref, port: Port, work: object) -> None:
        port.submit(work)

    def _look_again(self) -> None:
        """A driver that sleeps until the next timer is due has an earlier one to wait for."""
        if self._wake is not None:
            self._wake.set()

    def _fire_due(self) -> None:
        now = self.now()
        while (timer := self._timers.pop_due(now)) is not None:
            self._enqueue(timer.ref, timer)

    def _spawn_effect(self, _: Ref, ref: Ref, __: None) -> None:
        self._spawn(ref)

    def _spawn(self, ref: Ref) -> None:
        if ref.status != UNBORN:
            return
        parent = ref.parent
        if parent is not None:
            if parent.status in {HELD, STOPPED}:  # it stopped itself in this very step
                ref.status = STOPPED
                return
            ref.join_family(parent)
        else:
            self._tops[ref] = None
        if ref.actor is not None and ref.actor.starts:
            ref.status = BORN
            self._ready.append(ref)
        else:
            ref.status = IDLE

    def _stop_effect(self, me: Ref, ref: Ref, _: None) -> None:
        parent = ref.parent
        by_itself = me is ref and ref.status != STOPPED
        if by_itself and parent is not None and parent.actor is not None and parent.actor.holds_children:
            self._hold(ref)
        else:
            self._stop(ref)
        if by_itself and parent is not None and Exited in parent.table.get(_phase(parent), ()):
            self._enqueue(parent, Exited(ref, None, self.now()))

    def _stop(self, ref: Ref) -> None:
        if ref.status == STOPPED:
            return
        while ref.youngest is not None:
            self._stop(ref.youngest)
        ref.status = STOPPED
        if ref.timers is not None:
            self._timers.cancel_all(ref)
        cold = ref.cold
        if ref.slot is not EMPTY or cold is not None:
            for message in take_all(ref, self._pool):
                if not isinstance(message, OWN_MAIL):
                    self._letter(ref, message, "stopped")
        if ref.parent is not None:
            ref.leave_family(ref.parent)
        else:
            self._tops.pop(ref, None)
            self._top_crashes.pop(ref, None)
        ref.actor = None
        ref.journal = ()
        if cold is not None:
            watchers, cold.watchers = cold.watchers, []
            for watcher in watchers:
                self._enqueue(watcher, Gone(ref))

    def _hold_effect(self, _: Ref, ref: Ref, __: None) -> None:
        self._hold(ref)

    def _hold(self, ref: Ref) -> None:
        if ref.status >= STOPPED:
            return
        while ref.youngest is not None:
            self._stop(ref.youngest)
        self._timers.cancel_all(ref)
        ref.journal = ()
        ref.status = HELD
        take_out(ref, lambda message: isinstance(content_of(message), Shutdown), self._pool)

    def _watch(self, me: Ref, ref: Ref, _: None) -> None:
        if ref.status == STOPPED:
            self._enqueue(me, Gone(ref))
        elif me not in ref.cold_fields.watchers:
            ref.cold_fields.watchers.append(me)

    def _unwatch(self, me: Ref, ref: Ref, _: None) -> None:
        if ref.cold is not None and me in ref.cold.watchers:
            ref.cold.watchers.remove(me)

    def _postpone(self, ref: Ref, message: Message, _: None) -> None:
        deferred = ref.cold_fields.deferred
        if len(deferred) >= self.control_bound:
            self._letter(ref, message, "overflow")
            raise MailboxOverflow(f"{ref.name}: more than {self.control_bound} messages are deferred")
        deferred.append(message)

    def _refuse(self, ref: Ref, message: Message, _: None) -> None:
        self._letter(ref, message, "unhandled")

    # --- failure ---------------------------------------------------------------------------------------------------

    def _crash(self, ref: Ref, message: Message, error: BaseException) -> None:
        """Hold the actor and tell its parent. `message` is what its step raised on, EMPTY when effects had gone out."""
        self._crashes += 1
        text = "".join(traceback.format_exception_only(error)).strip()
        if ref.status >= HELD:
            return  # it had ended already
        self._timers.cancel_all(ref, () if ref.actor is None else ref.actor.lasting)
        ref.status = HELD
        dropped = None
        if isinstance(message, OWN_MAIL):
            if isinstance(message, Timer) and message.live:
                put_back(ref, message, self._pool)
        elif message is not EMPTY:
            if isinstance(message, Retry):
                dropped = message.message
                self._letter(ref, dropped, "killed its actor twice", text)
            else:
                keeps = isinstance(message, Exited | Shutdown) and ref.actor is not None and ref.actor.holds_children
                put_back(ref, message if keeps else Retry(message), self._pool)
        parent = ref.parent
        if parent is None:
            self._crash_at_top(ref, text, error)
        elif Exited in parent.table.get(_phase(parent), ()):
            self._enqueue(parent, Exited(ref, text, self.now(), dropped, _last_words(ref)))
        else:
            self._crash(parent, EMPTY, error)

    def _crash_at_top(self, ref: Ref, text: str, error: BaseException) -> None:
        log, allowed = self._top_crashes.get(ref, CrashLog()).after_crash(self.now(), TOP_INTENSITY)
        self._top_crashes[ref] = log
        if allowed:
            self._restart(ref)
            return
        self._failure = SystemFailed(f"{ref.name} crashed more than {TOP_INTENSITY.limit} times: {text}")
        self._failure.__cause__ = error
        if self._wake is not None:
            self._wake.set()
        else:
            sys.excepthook(SystemFailed, self._failure, None)

    def _restart_effect(self, me: Ref, ref: Ref, mail: MailRule) -> None:
        holds = me.actor is not None and me.actor.holds_children
        if not (holds and any(isinstance(news, Exited) and news.ref is ref for news in waiting_in(me, SYSTEM))):
            self._restart(ref, mail)

    def _restart(self, ref: Ref, mail: MailRule = KEEP_MAIL) -> None:
        """Begin a held actor again: a new state from the journal, the mail that is kept, a first step before any of it."""
        if ref.status != HELD or ref.actor is None:
            return
        self._restarts += 1
        ref.cold_fields.incarnation += 1
        ref.actor = ref.actor.recover(ref.journal)
        ref.status = READY
        self._take_deferred(ref)
        put_back(ref, START_AGAIN, self._pool)
        if mail.most is not None:
            self._sort_out(ref, mail)
        self._ready.append(ref)
        if ref.youngest is not None and Exited not in ref.table.get(_phase(ref), ()):
            for child in ref.children():
                self._restart(child)

    def _sort_out(self, ref: Ref, mail: MailRule) -> None:
        """Make dead letters of the mail that the rule does not keep."""
        lanes = ref.lanes
        assert lanes is not None, "its first step waits in there"
        for lane in lanes[SYSTEM + 1 :]:
            kept, gone = mail.split(list(lane))
            if gone:
                lane.clear()
                lane.extend(kept)
            for message in gone:
                self._letter(ref, message, "dropped at restart")

    def _letter(self, ref: Ref, message: Message, reason: str, error: str = "") -> None:
        message = content_of(message)
        self._dead[reason] += 1
        self.dead_letters.append(DeadLetter(ref.name, type(message).__name__, reason, error))


def _path(ref: Ref) -> str:
    names = [ref.name]
    while ref.parent is not None:
        ref = ref.parent
        names.append(ref.name)
    return "/".join(reversed(names))


def _last_words(ref: Ref) -> tuple[Effect, ...]:
    """What a crashed actor has to say; nothing when it can't even do that, so that its parent is told of the crash at least."""
    if ref.actor is None or not ref.actor.has_last_words:
        return ()
    try:
        return ref.actor.recover(ref.journal).last_words(tuple([content_of(mail) for mail in waiting(ref)]))
    except Exception:  # noqa: BLE001 - its state may be what it crashed on
        return ()


def _phase(ref: Ref) -> object:
    return None if ref.actor is None else ref.actor.phase
