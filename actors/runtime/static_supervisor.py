"""A supervisor for any fixed set of children: it starts them in order, begins them again when they end, and stops them.

It is a library for users' own actors. The voice service does not use it: its children are calls, which come and go and must
each end with a record, so it has a supervisor of its own, `actors.voice.supervisor`.

    running    Its children are up, or wait for their backoff to be over, or are done for good.
    ending     Children are being ended, one at a time, the youngest first: those of a group that will begin again, or all of
               them because the supervisor ends or fails.
    failed     All children are ended, since they crashed more often than the intensity allows. The next step raises, so that
               the supervisor's own parent decides; if that begins it again, its children begin again at their addresses.

A child is ended in two steps. If it handles `Shutdown` it is told, and has its `shutdown` seconds to finish and to stop itself.
At that deadline, or at once if it can't be told, it is held: its incarnation is over whether it likes or not. What a child had
outside of the actors when its deadline passed, a process say, nobody has ended; so the listener is told `Abandoned`.

A child's address stays the same over a restart. One that crashed under `ONE_FOR_ONE` goes on from its journal; one that ended
by itself, or was ended with its group, begins anew, since what it knew is what its group is to be rid of. A child that is
done by itself at the moment at which its group is ended counts as ended with the group, as in OTP.

A supervisor that crashes leaves its children running. It goes on where its journal stands and asks for the effects of its last
step again, all of which are void when they were carried out before.
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from actors.runtime.actor import IGNORE, SHUTDOWN, Actor, Exited, Out, Shutdown
from actors.runtime.child_spec import AutoShutdown, ChildSpec, Restart, Strategy, Supervision
from actors.runtime.mailbox import SYSTEM, Ref
from machines.restart import CrashLog, Streak

UP: Final = "up"
WAITING: Final = "waiting"  # held, to begin again
DONE: Final = "done"  # stopped for good

TO_RESTART: Final = "restart"  # what the ending of children is for
TO_STOP: Final = "stop"
TO_FAIL: Final = "fail"

DEADLINE: Final = "deadline"  # the timer of the child that is being ended
BACKOFF: Final = "backoff"  # the timer of a group; that of a single child has its name behind it


class Child(Struct, frozen=True):
    """A child's address, how it stands, whether it can be told to shut down, and its crashes in a row."""

    ref: Ref
    told: bool
    stands: str = UP
    streak: Streak = Streak()


class Abandoned(Struct, frozen=True):
    """Told to a supervisor's listener: a child did not shut down within its deadline, and what it held outside is left alone.

    It is told at least once: again if the supervisor crashes in the step that tells it.
    """

    name: str
    ref: Ref


class GoOn:
    """What a supervisor tells itself, so that news of exits that wait already come first."""

    lane = SYSTEM
    __slots__ = ()


GO_ON: Final = GoOn()


class SupervisionFailed(Exception):
    """The children of a supervisor crashed more often than its intensity allows."""


class StaticSupervisor(Actor):
    """A supervisor of the children in `supervision`; see the module. `listener` is told `Abandoned`, if there is one.

    Tell it `Shutdown` to end it: its children end first, the last one first, and then it stops itself.
    """

    __slots__ = (
        "children",
        "crashes",
        "delay",
        "ending",
        "failures",
        "last_straw",
        "listener",
        "notice",
        "phase",
        "purpose",
        "supervision",
    )
    wiring = ("supervision", "listener")
    state = ("phase", "children", "crashes", "ending", "purpose", "delay", "last_straw", "failures", "notice")
    journal = state
    handles = {
        "running": {Exited: "exited", Shutdown: "shut_down", GoOn: "go_on"},
        "ending": {Exited: "exited", Shutdown: "shut_down", GoOn: IGNORE},
        "failed": {Exited: IGNORE, Shutdown: "shut_down", GoOn: "fail"},
    }
    holds_children = True

    def __init__(self, supervision: Supervision, listener: Ref | None) -> None:
        self.supervision = supervision
        self.listener = listener
        self.phase = "running"
        self.children: tuple[Child, ...] = ()
        self.crashes = CrashLog()
        self.ending: tuple[int, ...] = ()
        self.purpose = TO_RESTART
        self.delay = 0.0
        self.last_straw = ("", "")
        self.failures = 0
        self.notice: Abandoned | None = None

    def start(self, out: Out) -> None:
        """Start the children, in order."""
        for at in range(len(self.supervision.children)):
            self._spawn(at, out)

    def restarted(self, out: Out) -> None:
        """Go on where the journal stands; or, if it failed, begin all children again."""
        if len(self.children) < len(self.supervision.children):
            self.start(out)
        elif self.phase == "failed":
            self._begin_anew(out)
        else:
            self._go_on_after_crash(out)

    def _begin_anew(self, out: Out) -> None:
        self.phase, self.delay = "running", 0.0
        self.failures += 1
        self.crashes = CrashLog()
        for at, child in enumerate(self.children):
            if child.stands == DONE:
                self._spawn(at, out)
            else:
                out.hold(child.ref)
                self._begin(at, out, streak=Streak())

    def _go_on_after_crash(self, out: Out) -> None:
        if self.notice is not None and self.listener is not None:
            out.tell(self.listener, self.notice)
        in_group = self._in_groups or self.phase == "ending"
        for at, child in enumerate(self.children):
            if child.stands == DONE:
                out.stop(child.ref)
            elif child.stands == UP:
                out.adopt(child.ref)
                out.restart(child.ref, self._spec(at).mail)
            elif in_group:
                out.hold(child.ref)
            else:
                self._begin_later(at, out)
        if self.phase == "ending":
            self._end_next(out)
        elif self._in_groups and self._that_stand(WAITING):
            self._begin_group_later(out)

    # --- beginning -------------------------------------------------------------------------------------------------

    def _spawn(self, at: int, out: Out) -> None:
        elders = {self._spec(place).name: child.ref for place, child in enumerate(self.children[:at])}
        spec = self._spec(at)
        actor = spec.make(elders)
        told = any(Shutdown in table for table in actor.compiled.values())
        child = Child(out.spawn(actor, spec.name), told and spec.shutdown > 0.0)
        self.children = (*self.children[:at], child, *self.children[at + 1 :])

    def _begin(self, at: int, out: Out, **changes: Streak) -> None:
        self._change(at, stands=UP, **changes)
        out.restart(self.children[at].ref, self._spec(at).mail)

    def _begin_later(self, at: int, out: Out) -> None:
        seconds = self._seconds(at)
        if seconds:
            out.set_timer(f"{BACKOFF} {self._spec(at).name}", seconds)
        else:
            self._begin(at, out)

    def _begin_group_later(self, out: Out) -> None:
        if self.delay:
            out.set_timer(BACKOFF, self.delay)
        else:
            out.tell(out.me, GO_ON)

    def go_on(self, _: GoOn, out: Out) -> None:
        """A group was ended, and begins again at once."""
        self.notice = None
        if self._in_groups and not self.delay:
            self._begin_group(out)

    def _begin_group(self, out: Out) -> None:
        self.delay = 0.0
        for at in self._that_stand(WAITING):
            self._begin(at, out)

    def timeout(self, timer: str, out: Out) -> None:
        """A deadline or a backoff is over."""
        self.notice = None
        if timer == DEADLINE:
            self._abandon(out)
        elif self.phase == "ending":
            pass  # the children that wait end with the others
        elif timer == BACKOFF:
            self._begin_group(out)
        else:
            for at in self._that_stand(WAITING):
                if timer == f"{BACKOFF} {self._spec(at).name}":
                    self._begin(at, out)

    # --- ends ------------------------------------------------------------------------------------------------------

    def exited(self, message: Exited, out: Out) -> None:
        """A child crashed or stopped itself: decide what follows. News of one that was ended here are old."""
        self.notice = None
        at = next((at for at in self._that_stand(UP) if self.children[at].ref is message.ref), None)
        if at is None:
            return
        if self._is_done(at, message) and self.ending[:1] != (at,):
            self._done(at, out)
        elif at in self.ending:
            self._ended(at, out)
        else:
            self._crashed(at, message, out)

    def _is_done(self, at: int, message: Exited) -> bool:
        restart = self._spec(at).restart
        return restart is Restart.TEMPORARY or (restart is Restart.TRANSIENT and message.error is None)

    def _done(self, at: int, out: Out) -> None:
        """A child ended for good; perhaps the supervisor does too."""
        self.ending = tuple([place for place in self.ending if place != at])
        self._change(at, stands=DONE)
        out.stop(self.children[at].ref)
        if self._is_over and not (self.phase == "ending" and self.purpose == TO_FAIL):
            self._end(self._that_stand(UP), TO_STOP, out)

    def _crashed(self, at: int, message: Exited, out: Out) -> None:
        """A child must begin again, if it still may."""
        spec, child, supervision = self._spec(at), self.children[at], self.supervision
        self.crashes, allowed = self.crashes.after_crash(message.at, supervision.intensity)
        self._change(at, stands=WAITING, streak=child.streak.after_crash(message.at, supervision.backoff))
        if not allowed:
            self.last_straw = (spec.name, message.error or "it stopped itself")
            self._end(self._that_stand(UP), TO_FAIL, out)
        elif self._in_groups:
            out.hold(child.ref)
            out.cancel_timer(BACKOFF)
            self.delay = self._seconds(at)
            first = 0 if supervision.strategy is Strategy.ONE_FOR_ALL else at
            self._end(tuple([place for place in self._that_stand(UP) if place >= first]), TO_RESTART, out)
        else:
            self._begin_later(at, out)

    # --- ending ----------------------------------------------------------------------------------------------------

    def shut_down(self, _: Shutdown, out: Out) -> None:
        """End, the children first."""
        self.notice = None
        self._end(self._that_stand(UP), TO_STOP, out)

    def _end(self, children: tuple[int, ...], purpose: str, out: Out) -> None:
        """End these children, the last one first; one that is being ended already goes on with it."""
        begun = self.ending[:1]
        self.phase, self.purpose = "ending", purpose
        self.ending = tuple(sorted({*self.ending, *children}, reverse=True))
        if not begun or self.ending[:1] != begun:
            self._end_next(out)

    def _end_next(self, out: Out) -> None:
        while self.ending:
            child = self.children[self.ending[0]]
            if child.told:
                out.tell(child.ref, SHUTDOWN)
                out.set_timer(DEADLINE, self._spec(self.ending[0]).shutdown)
                return
            self._leave(self.ending[0], out)
        if self.purpose == TO_RESTART and self._is_over:
            self._end(self._that_stand(UP), TO_STOP, out)
        elif self.purpose == TO_STOP:
            out.stop()
        elif self.purpose == TO_FAIL:
            self.phase = "failed"
            out.tell(out.me, GO_ON)
        else:
            self.phase = "running"
            self._begin_group_later(out)

    def _ended(self, at: int, out: Out) -> None:
        """A child that is to end did, before it was its turn or in it."""
        being_ended = self.ending[0] == at
        self._leave(at, out)
        if being_ended:
            out.cancel_timer(DEADLINE)
            self._end_next(out)

    def _abandon(self, out: Out) -> None:
        at = self.ending[0]
        if self.listener is not None:
            self.notice = Abandoned(self._spec(at).name, self.children[at].ref)
            out.tell(self.listener, self.notice)
        self._leave(at, out)
        self._end_next(out)

    def _leave(self, at: int, out: Out) -> None:
        """The incarnation of this child is over."""
        self.ending = tuple([place for place in self.ending if place != at])
        again = self.purpose == TO_FAIL or (
            self.purpose == TO_RESTART and self._spec(at).restart is not Restart.TEMPORARY
        )
        self._change(at, stands=WAITING if again else DONE)
        if again:
            out.hold(self.children[at].ref)
        else:
            out.stop(self.children[at].ref)

    def fail(self, _: GoOn, __: Out) -> None:
        """All children are ended: let the parent decide."""
        raise SupervisionFailed("{} ended more often than it may be restarted: {}".format(*self.last_straw))

    # --- looking ---------------------------------------------------------------------------------------------------

    @property
    def _in_groups(self) -> bool:
        return self.supervision.strategy is not Strategy.ONE_FOR_ONE

    @property
    def _is_over(self) -> bool:
        """Whether those who are significant have ended for good, as many as it takes."""
        over = [
            child.stands == DONE
            for spec, child in zip(self.supervision.children, self.children, strict=True)
            if spec.significant
        ]
        return all(over) if self.supervision.auto_shutdown is AutoShutdown.ALL_SIGNIFICANT else any(over)

    def _spec(self, at: int) -> ChildSpec:
        return self.supervision.children[at]

    def _seconds(self, at: int) -> float:
        return self.supervision.backoff.seconds(self._spec(at).name, self.children[at].streak.crashes)

    def _that_stand(self, how: str) -> tuple[int, ...]:
        return tuple([at for at, child in enumerate(self.children) if child.stands == how])

    def _change(self, at: int, **changes: str | Streak) -> None:
        child = replace(self.children[at], **changes)
        self.children = (*self.children[:at], child, *self.children[at + 1 :])
