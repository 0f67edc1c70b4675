"""The dispatcher's rules on values: `actors.runtime.system` for a state that is a few numbers instead of live actors.

Steps are those of the real actor classes, as `actors.model.stage` remembers them. What happens around steps (lanes, the ready
queue, commits before effects, crashes, restarts, stops) follows `ActorSystem` line by line.

So these rules stand twice, on purpose. The model has numbers for actors, mailboxes and remembered steps, the system has live
ones, and a definition for both would reach each field through a call. One call more for each effect already costs a message of
the running system a tenth, and the model four states in a hundred. `tests/actors/model/test_turns.py` holds the two together:
each of its scenes, and scripts drawn from seeds, is played by both, which must stand the same after each line, and
`actors.model.lockstep` does the same with any model of a user.

One rule is simpler: the living children of an actor are stopped and restarted in the reverse of the order in which any run
first spawned them, not in this run's order.
"""

from collections.abc import Callable
from typing import Any, Final

from actors.model.memory import ADDRESSES
from actors.model.open_state import OpenState
from actors.model.parts import ModelToken
from actors.model.stage import (
    ANSWERED,
    BODY,
    BROKEN,
    CANCEL_ALL,
    CRASHES,
    DEFERRED,
    HEAD,
    LANES,
    NOTES,
    SET_ASIDE,
    SLOT,
    STATUS,
    WATCHERS,
    Cell,
    Fired,
    Note,
    Tried,
    content_of,
    message_text,
    mistake_text,
    phase_text,
    value_text,
)
from actors.runtime.actor import (
    CANCEL_TIMER,
    HOLD,
    KEEP_TIMER,
    PORT,
    POSTPONE,
    REFUSE,
    REPLY,
    RESTART,
    SET_TIMER,
    SPAWN,
    STOP,
    TELL,
    UNWATCH,
    WATCH,
    Exited,
    Gone,
    Shutdown,
)
from actors.runtime.mailbox import (
    AUDIO,
    CONTROL,
    HELD,
    IDLE,
    KEEP_MAIL,
    READY,
    STOPPED,
    SYSTEM,
    UNBORN,
    MailRule,
)
from actors.runtime.system import BUDGET, TOP_INTENSITY
from machines.checker.model import ModelError

NO_STEP: Final = -1
WHOLE: Final = -2  # a crash before the step: the message is tried again
CUT_HERE: Final = -3  # no crash: the turn ends here
POISON: Final = -4  # a crash before the step, and again at the retry: the message is set aside
DIED_AGAIN: Final = (-1, 0)  # the step that poison strikes the second time; it takes no other fault

Faulty = tuple[int, ...]
"""The crashes in a turn, three numbers each: the step, counted from 0; after how many of its effects, or WHOLE, or POISON; and
the step's actor. A cut may come last: after how many steps, CUT_HERE, and 0."""

_NEVER: Final = (NO_STEP, WHOLE)


class Turn(OpenState):
    """One opened state: outside events go in, the ready queue is drained, and the state is closed again."""

    __slots__ = ()

    def drain(  # noqa: C901, PLR0912, PLR0915 - on purpose, as its docstring says
        self, *, stop_after: int = NO_STEP, crashes: Faulty = ()
    ) -> None:
        """Run the ready queue to its end, or for `stop_after` steps, with these crashes in it.

        One loop does it all, as in `ActorSystem.tell`: every transition of every model passes here, and a call for each part
        would cost a tenth of the states a second.
        """
        queue, stage, steps, log = self.queue, self.stage, self.steps, self.log
        to_come = zip(crashes[::3], crashes[1::3], strict=True)
        crash_step, crash_effect = next(to_come, _NEVER)
        poisoned = poison = 0  # the actor and the message; 0 is none
        while queue and len(steps) != stop_after:
            ref = queue.popleft()
            cell = self.cell(ref)
            if cell[STATUS] != READY:
                continue
            message = cell[SLOT]
            if message:
                cell[SLOT] = 0
            else:
                system, control, audio = cell[LANES]
                message = (system or control or audio).pop(0)
                if not (system or control or audio):
                    cell[LANES] = ()
            body, effects, moved, error, step = stage.take(ref, cell[BODY], message)
            if len(steps) == BUDGET:
                raise ModelError(f"a turn has more than {BUDGET} steps; the last one is at {stage.addresses[ref]}")
            strike = NO_STEP
            if len(steps) == crash_step:
                strike = crash_effect
                crash_step, crash_effect = next(to_come, _NEVER)
                if strike == POISON:
                    strike, poisoned, poison = WHOLE, ref, self._put_back_as(ref, message)
            elif message == poison and ref == poisoned:
                strike, poison, step = WHOLE, 0, DIED_AGAIN
            steps.append(step)
            if error or strike == WHOLE:
                self._raised(ref, cell, message, error)
            else:
                cell[BODY] = body
                if cell[DEFERRED] and moved:
                    self._take_deferred(cell)
                for op, a, b in effects[:strike] if strike >= 0 else effects:
                    if op == TELL:
                        self.tell(a, b, stage.addresses[ref].path if log else "")
                    elif op == PORT:
                        error = self.submit(a, b, stage.addresses[ref].path if log else "")
                        if error:
                            break
                    elif op == BROKEN:
                        error = a
                        self.mistake("raised", ref, cell, message, error)
                        break
                    else:
                        self._perform(ref, op, a, b)
                if error or strike >= 0:
                    self.crash(ref, 0, error or "crashed")
            if cell[STATUS] == READY:
                if cell[SLOT] or cell[LANES]:
                    queue.append(ref)
                else:
                    cell[STATUS] = IDLE

    def _raised(self, ref: int, cell: Cell, message: int, error: str) -> None:
        unexpected = error.startswith("!")
        if unexpected:
            self.mistake("raised", ref, cell, message, error[1:])
        self.crash(ref, message, error.removeprefix("!") or "crashed")

    # --- outside events ---------------------------------------------------------------------------------------------

    def tell(self, ref: int, message: int, source: str) -> None:
        """Put a message into a mailbox."""
        stage = self.stage
        cell = self.cell(ref)
        status = cell[STATUS]
        if self.log is not None:
            kind = "drop" if status in {STOPPED, UNBORN} else "message"
            self.log(kind, source, message_text(stage, message), stage.addresses[ref].path)
        if status == IDLE:
            cell[STATUS] = READY
            cell[SLOT] = message
            self.queue.append(ref)
        elif status in {READY, HELD}:
            if not (cell[SLOT] or cell[LANES]):
                cell[SLOT] = message
                return
            number = stage.lanes[message]
            lane = self._lanes(cell)[number]
            if number == AUDIO and len(lane) >= stage.audio_bound:
                lane.pop(0)
            elif number == CONTROL and len(lane) >= stage.control_bound:
                if status != HELD:
                    self.crash(ref, 0, "MailboxOverflow")
                return
            lane.append(message)

    def submit(self, part: int, work: int, source: str) -> str:
        """Hand work to a part; return the error if the part raised one."""
        at = HEAD + part
        if at not in self.touched:
            self.touched.add(at)
            self.reads.append((at, self.numbers[at]))
        self.numbers[at], error = self.stage.submit(part, self.numbers[at], work)
        if self.log is not None:
            text = value_text(self.stage.values.values[work])
            self.log("drop" if error else "message", source, text, self.stage.parts[part].name)
        return error

    def fire(self, ref: int, key: str) -> None:
        """Let an armed timer come due."""
        self.arming.append((CANCEL_TIMER, ref, key, 0.0))
        if self.log is not None:
            self.log("timer", self.stage.addresses[ref].path, key, "")
        self._put(ref, self.stage.message(Fired(key)))

    def _put(self, ref: int, message: int) -> None:
        log, self.log = self.log, None
        self.tell(ref, message, "")
        self.log = log

    # --- effects ------------------------------------------------------------------------------------------------------

    def _perform(self, ref: int, op: int, a: Any, b: Any) -> None:  # noqa: C901, PLR0912 - a table, written out
        if op == SET_TIMER:
            if self.cell(ref)[STATUS] not in {HELD, STOPPED}:
                self._disarm(ref, a)
                self.arming.append((SET_TIMER, ref, a, b))
        elif op == KEEP_TIMER:
            self._keep_timer(ref, a, b)
        elif op == CANCEL_TIMER:
            self._disarm(ref, a)
        elif op == REPLY:
            self._reply(ref, a, b)
        elif op == SPAWN:
            self.spawn(a)
        elif op == RESTART:
            self._restart_effect(ref, a, b)
        elif op == STOP:
            self._stop_effect(ref, a)
        elif op == HOLD:
            self._hold(a)
        elif op == WATCH:
            if self.cell(a)[STATUS] == STOPPED:
                self._put(ref, self.stage.message(Gone(self.stage.addresses[a])))
            elif ref not in self.cell(a)[WATCHERS]:
                self.cell(a)[WATCHERS] = (*self.cell(a)[WATCHERS], ref)
        elif op == UNWATCH:
            cell = self.cell(a)
            cell[WATCHERS] = tuple([watcher for watcher in cell[WATCHERS] if watcher != ref])
        elif op == POSTPONE:
            if len(self.cell(ref)[DEFERRED]) >= self.stage.control_bound:
                self.crash(ref, 0, "MailboxOverflow")
            else:
                self.cell(ref)[DEFERRED] = (*self.cell(ref)[DEFERRED], a)
        elif op == REFUSE:
            self.mistake("unhandled", ref, self.cell(ref), a, "")
        else:
            raise ModelError(f"the model does not carry out the effect {op}, as the actor system does")

    def _disarm(self, ref: int, key: str) -> None:
        self.arming.append((CANCEL_TIMER, ref, key, 0.0))
        cell = self.cell(ref)
        if cell[SLOT] or cell[LANES]:
            self._void(cell, self.stage.message(Fired(key)).__eq__)

    def _disarm_all(self, ref: int, but: tuple[str, ...] = ()) -> None:
        self.arming.append((CANCEL_ALL, ref, but, 0.0))
        cell = self.cell(ref)
        if cell[SLOT] or cell[LANES]:
            values = self.stage.values.values
            self._void(cell, lambda message: isinstance(values[message], Fired) and values[message].key not in but)

    def _keep_timer(self, ref: int, key: str, seconds: float) -> None:
        cell, due = self.cell(ref), self.stage.message(Fired(key))
        waits = cell[SLOT] == due or (cell[LANES] and due in cell[LANES][SYSTEM])
        if cell[STATUS] not in {HELD, STOPPED} and not waits:
            self.arming.append((KEEP_TIMER, ref, key, seconds))

    def _reply(self, ref: int, token: int, work: int) -> None:
        if token in self.replied:
            return
        answered = token in self.stage.tuples.values[self.numbers[ANSWERED]]
        self.reads.append((-token, answered))
        if not answered:
            self.replied[token] = None
            asked: ModelToken = self.stage.values.values[token]
            part = self.stage.part(asked.part)
            error = self.submit(part, work, self.stage.addresses[ref].path if self.log else "")
            if error:
                raise ModelError(f"{asked.part!r} can't take an answer: {error}")

    def spawn(self, ref: int) -> None:
        """Start the actor at an address, unless it was started already."""
        cell = self.cell(ref)
        if cell[STATUS] != UNBORN:
            return
        address = self.stage.addresses[ref]
        parent = address.parent
        if parent is not None and self.cell(parent.number)[STATUS] in {HELD, STOPPED}:
            cell[STATUS] = STOPPED
            return
        if self.log is not None:
            self.log("spawn", address.path, "", "")
        cell[STATUS] = IDLE
        if self.stage.values.values[cell[BODY]].kind.starts:
            self._put(ref, self.stage.start)

    def _children(self, ref: int) -> list[int]:
        """The living children, the youngest first, in an order that does not depend on the path (see the module's
        docstring)."""
        me = self.stage.addresses[ref]
        addresses = self.stage.addresses
        self.reads.append((ADDRESSES, len(addresses)))
        mine = [address.number for address in addresses if address.parent is me]
        return [child for child in reversed(mine) if self.cell(child)[STATUS] not in {UNBORN, STOPPED}]

    def _stop_effect(self, me: int, ref: int) -> None:
        by_itself = me == ref and self.cell(ref)[STATUS] != STOPPED
        parent = self.stage.addresses[ref].parent
        if by_itself and parent is not None and self._holds_children(parent.number):
            self._hold(ref)
        else:
            self._stop(ref)
        if by_itself and parent is not None:
            above = self.cell(parent.number)
            if above[STATUS] != STOPPED and self.stage.handles_exits(above[BODY]):
                exited = Exited(self.stage.addresses[ref], None, 0.0)  # type: ignore[arg-type]
                self._put(parent.number, self.stage.message(exited))

    def _holds_children(self, ref: int) -> bool:
        cell = self.cell(ref)
        return cell[STATUS] != STOPPED and bool(self.stage.values.values[cell[BODY]].kind.holds_children)

    def _hold(self, ref: int) -> None:
        cell = self.cell(ref)
        if cell[STATUS] in {STOPPED, UNBORN}:
            return
        for child in self._children(ref):
            self._stop(child)
        cell[BODY] = self.stage.begun_anew(cell[BODY])
        self._disarm_all(ref)
        if self.log is not None:
            self.log("hold", self.stage.addresses[ref].path, "", "")
        cell[STATUS] = HELD
        values, start = self.stage.values.values, self.stage.start
        self._take_out(cell, lambda message: message == start or isinstance(content_of(values[message]), Shutdown))

    def _stop(self, ref: int) -> None:
        cell = self.cell(ref)
        if cell[STATUS] == STOPPED:
            return
        for child in self._children(ref):
            self._stop(child)
        self._disarm_all(ref)
        watchers = cell[WATCHERS]
        cell[:] = [0, STOPPED, 0, (), (), (), 0]
        if self.log is not None:
            self.log("stop", self.stage.addresses[ref].path, "", "")
        for watcher in watchers:
            self._put(watcher, self.stage.message(Gone(self.stage.addresses[ref])))  # type: ignore[arg-type]

    # --- failure ------------------------------------------------------------------------------------------------------

    def crash(self, ref: int, message: int, error: str) -> None:
        """Hold the actor and tell its parent. `message` is the message on which its step raised, 0 if effects had gone out."""
        stage = self.stage
        cell = self.cell(ref)
        if cell[STATUS] in {HELD, STOPPED}:
            return
        if self.log is not None:
            self.log("crash", stage.addresses[ref].path, error, "")
        self._disarm_all(ref, stage.values.values[cell[BODY]].kind.lasting)
        cell[STATUS] = HELD
        dropped = None
        if message and (not stage.is_own(message) or stage.lasts(cell[BODY], message)):
            back = self._put_back_as(ref, message)
            if back:
                self._put_first(cell, back)
            else:
                dropped = content_of(stage.values.values[message])
                if self.log is not None:
                    text = f"{message_text(stage, message)} is set aside, it killed its actor twice"
                    self.log("note", stage.addresses[ref].path, text, "")
                self.note((SET_ASIDE, stage.addresses[ref].path, stage.message(dropped)))
        parent = stage.addresses[ref].parent
        if parent is None:
            if cell[CRASHES] < TOP_INTENSITY.limit:
                cell[CRASHES] += 1
                self._restart(ref)
            else:
                self.mistake("failed", ref, cell, message, error)
            return
        above = self.cell(parent.number)
        if above[STATUS] != STOPPED and stage.handles_exits(above[BODY]):
            unread = (
                *([cell[SLOT]] if cell[SLOT] else [mail for lane in cell[LANES] for mail in lane]),
                *cell[DEFERRED],
            )
            words = stage.last_words(cell[BODY], unread)
            exited = Exited(stage.addresses[ref], error, 0.0, dropped, words)  # type: ignore[arg-type]
            self._put(parent.number, stage.message(exited))
        else:
            self.crash(parent.number, 0, error)

    def _put_back_as(self, ref: int, message: int) -> int:
        """The number of the message to be put back after its actor crashed on `message`; 0 if it was tried before, and is set
        aside."""
        what = self.stage.values.values[message]
        if what.__class__ is Tried:
            return 0
        if isinstance(what, Fired) or (isinstance(what, Exited | Shutdown) and self._holds_children(ref)):
            return message
        return self.stage.message(Tried(what))

    def _restart_effect(self, me: int, ref: int, mail: MailRule) -> None:
        cell = self.cell(me)
        if (cell[SLOT] or cell[LANES]) and self._holds_children(me):
            values, address = self.stage.values.values, self.stage.addresses[ref]
            waiting = cell[LANES][SYSTEM] if cell[LANES] else [cell[SLOT]]
            if any(isinstance(values[message], Exited) and values[message].ref is address for message in waiting):
                return
        self._restart(ref, mail)

    def _restart(self, ref: int, mail: MailRule = KEEP_MAIL) -> None:
        stage = self.stage
        cell = self.cell(ref)
        if cell[STATUS] != HELD:
            return
        if self.log is not None:
            self.log("restart", stage.addresses[ref].path, "", "")
        cell[BODY] = stage.recovered(cell[BODY])
        cell[STATUS] = READY
        if cell[DEFERRED]:
            self._take_deferred(cell)
        self._put_first(cell, stage.start_again)
        if mail.most is not None:
            self._sort_out(cell, mail)
        self.queue.append(ref)
        if not stage.handles_exits(cell[BODY]):
            for child in self._children(ref):
                self._restart(child)

    def _take_out(self, cell: Cell, gone: Callable[[int], bool]) -> None:
        """Remove messages from the slot, the lanes and the deferred messages."""
        cell[DEFERRED] = tuple([message for message in cell[DEFERRED] if not gone(message)])
        if not (cell[SLOT] or cell[LANES]):
            return
        lanes = self._lanes(cell)
        for lane in lanes:
            lane[:] = [message for message in lane if not gone(message)]
        if not any(lanes):
            cell[LANES] = ()

    def _sort_out(self, cell: Cell, mail: MailRule) -> None:
        """Drop the mail that the rule does not keep."""
        for lane in self._lanes(cell)[SYSTEM + 1 :]:
            lane[:], gone = mail.split(list(lane))
            if self.log is not None:
                for message in gone:
                    self.log("drop", "", message_text(self.stage, message), "")

    def _take_deferred(self, cell: Cell) -> None:
        for message in reversed(cell[DEFERRED]):
            self._put_first(cell, message)
        cell[DEFERRED] = ()

    def mistake(self, kind: str, ref: int, cell: Cell, message: int, error: str) -> None:
        """Note a failure that no run may have, as a part of the state, where a property finds it."""
        stage = self.stage
        body = cell[BODY]
        text = (
            kind,
            stage.values.values[body].kind.__name__,
            phase_text(stage.phase(body)),
            type(content_of(stage.values.values[message])).__name__,
            error,
        )
        if self.log is not None:
            self.log("note", stage.addresses[ref].path, mistake_text(text), "")
        self.note(text)

    def note(self, note: Note) -> None:
        """Keep a note on the way to a state for properties: once, however often it happened."""
        numbers, tuples = self.numbers, self.stage.tuples
        if NOTES not in self.touched:
            self.touched.add(NOTES)
            self.reads.append((NOTES, numbers[NOTES]))
        numbers[NOTES] = tuples.number(tuple(sorted({*tuples.values[numbers[NOTES]], note})))
