"""The browser stream as a model: both ends of `ends.py` against each other, over connections that are cut at any point.

A frame's content is its capture time, so the frames that the session has taken show whether one came twice, in the wrong order,
at another time or not at all. A client may pause: our client declares the pause, a foreign one only shows it by its media time.
A cut drops the last messages under way; earlier ones may still arrive, on a connection that the server takes for alive, also
after the client has come back on another. A server that dies loses the frames that were not durable. Its disk may refuse
frames: they are lost, and the server counts them as durable like stored ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec.structs import astuple

from machines.audio import FRAME_MS
from machines.checker.model import (
    Happening,
    Model,
    Property,
    always,
    can_always_reach,
    leads_to,
    sometimes,
)
from machines.frozen import FrozenDict
from machines.losses import Losses, Lost
from machines.reasons import DISK_FULL
from machines.session import VoiceSessionState
from machines.stream.ends import AWAY, ENDED, ENDING, FAILED, GREETING, OPEN, OVER, ClientStream, FrameRun, ServerStream
from machines.stream.media_time import Mark, StreamTime
from machines.stream.messages import (
    Ack,
    Bye,
    End,
    Gap,
    Hello,
    Ping,
    Pong,
    StreamCode,
    StreamFormat,
    StreamViolation,
    Welcome,
)

FORMATS = (StreamFormat("pcm_s16le", 16_000),)
LOST = -1  # in `State.taken`: a frame that was declared lost
GONE = -2  # the content that a client would send for a frame that it has no more
REFUSED = -3  # in `State.taken`: a frame that the disk refused
PAUSED = -4  # in `State.slots`: a number for which nothing was captured
PAUSE: Final = 3  # frames: one more than jitter
LONGEST: Final = 1_000


class ServerClosed(NamedTuple):
    """The server closed the connection; the last message under way to the client."""

    code: int


class State(NamedTuple):
    """The client, the connection that the server takes for live, and the one before it, each with its messages under way.

    `slots` has the capture time of each of the client's frame numbers, and `clock` is the capture time of the next. `time` is
    the server's `StreamTime` of the client, and `marks` are the stored marks of it.

    `taken` has the content of each frame in the session, or LOST, or REFUSED. `told` are the frames that the server has
    declared lost to the client. `cut_short` says that the server died while the session was ending, with frames that the
    client can't send again: the session's last account declares them.
    """

    client: tuple[Any, ...]
    slots: tuple[int, ...] = ()
    clock: int = 0
    time: tuple[Any, ...] | None = None
    marks: tuple[Mark, ...] = ()
    server: tuple[Any, ...] | None = None
    up: tuple[Any, ...] = ()
    down: tuple[Any, ...] = ()
    connected: bool = False
    old: tuple[Any, ...] | None = None
    old_up: tuple[Any, ...] = ()
    taken: tuple[int, ...] = ()
    durable: int = 0
    told: frozenset[int] = frozenset()
    attempt: int = 0
    ending: bool = False
    stopped: bool = False
    died: bool = False
    cut_short: bool = False
    cuts: int = 0
    deaths: int = 0
    refusals: int = 0
    pauses: int = 0


class StreamModel(Model[State, tuple[str, int]]):
    """A stream of `frames` frames through a ring of `ring`, with at most so many cuts, deaths of the server, refusals of its
    disk and pauses of the client.

    The server lets `window` frames come ahead of those that it has taken; a message carries at most `most` frames. If the
    server does not `keep` the audio, nothing becomes durable. A client that does not `declare` its pauses sends no message
    with frames from both sides of a pause.
    """

    name = "stream"

    def __init__(  # noqa: PLR0913 - sizes and faults, all named
        self,
        *,
        frames: int = 3,
        ring: int = 2,
        window: int = 2,
        most: int = 2,
        cuts: int = 1,
        deaths: int = 1,
        refusals: int = 0,
        keep: bool = True,
        pauses: int = 0,
        declare: bool = True,
    ) -> None:
        self.frames, self.ring, self.window, self.most = frames, ring, window, most
        self.cuts, self.deaths, self.refusals, self.keep = cuts, deaths, refusals, keep
        self.pauses, self.declare = pauses, declare
        if not declare:
            self.most = 1

    def initial(self) -> Iterator[State]:
        """No frame captured, no connection."""
        client = ClientStream(self.ring, "ticket").freeze()
        yield State(client, cuts=self.cuts, deaths=self.deaths, refusals=self.refusals, pauses=self.pauses)

    def actions(self, state: State) -> Iterator[tuple[str, int]]:
        """The actions that are possible now."""
        client = ClientStream.thaw(state.client)
        if not client.finished:
            more = sum(slot != PAUSED for slot in state.slots) < self.frames
            yield ("capture", 1) if more else ("finish", 0)
            if more and state.pauses and (self.declare or state.slots):  # media time begins with the first frame
                yield "pause", 0
        if client.phase == AWAY:
            yield "connect", 0
        if client.to_send(self.most) is not None:
            yield "send", 0
        if state.up and state.server is not None:
            yield "arrive", 0
        if state.old_up and state.old is not None:
            yield "arrive late", 0
        if state.down:
            yield "hear", 0
        yield from self._server_actions(state)
        if state.connected and state.cuts:
            for survive in range(len(state.up) + 1):
                yield "cut", survive
        if state.deaths and not state.stopped:
            yield "die", 0

    def _server_actions(self, state: State) -> Iterator[tuple[str, int]]:
        if state.durable < len(state.taken):
            yield "store", 0
            if state.refusals:
                yield "refuse", 0
        if state.server is not None:
            server = ServerStream.thaw(state.server)
            if server.phase in {OPEN, ENDING} and server.has_news(*self._fate(state)):
                yield "acknowledge", 0
            if server.phase in {OPEN, ENDING} and server.asked is None and server.told > server.known:
                yield "ping", 0
            if server.phase == OPEN and server.limit < server.expected + self.window:
                yield "grant", 0
            if not state.connected:
                yield "notice", 0
        if state.ending and not state.stopped:
            yield "stop", 0

    def step(self, state: State, action: tuple[str, int]) -> State:
        """The state after this action."""
        name, number = action
        client = ClientStream.thaw(state.client)
        match name:
            case "capture":
                client.capture(number)
                state = state._replace(slots=(*state.slots, state.clock), clock=state.clock + 1)
            case "pause":
                state = state._replace(clock=state.clock + PAUSE, pauses=state.pauses - 1)
                if self.declare:
                    client.skip(PAUSE)
                    state = state._replace(slots=state.slots + (PAUSED,) * PAUSE)
            case "finish":
                client.finish()
            case "connect":
                return self._connect(state, client)
            case "send":
                message = client.to_send(self.most)
                state = state._replace(up=(*state.up, self._with_content(message, client.kept, state.slots)))
            case "arrive":
                return self._arrive(state._replace(up=state.up[1:]), state.up[0])
            case "arrive late":
                return self._arrive_late(state._replace(old_up=state.old_up[1:]), state.old_up[0])
            case "hear":
                return self._hear(state._replace(down=state.down[1:]), client, state.down[0])
            case "cut":
                client.closed(StreamCode.LOST)
                state = state._replace(up=state.up[:number], down=(), connected=False, cuts=state.cuts - 1)
            case "die":
                return self._die(state, client)
            case _:
                return self._serve(state, name)
        return state._replace(client=client.freeze())

    # --- the client ------------------------------------------------------------------------------------------------

    def _with_content(self, message: FrameRun | Gap | End | None, kept: int, slots: tuple[int, ...]) -> Any:
        if isinstance(message, FrameRun):
            numbers = range(message.first, message.first + message.count)
            media_ms = slots[message.first] * FRAME_MS if self.pauses else 0
            return message, tuple(slots[number] if number >= kept else GONE for number in numbers), media_ms
        return message

    @staticmethod
    def _connect(state: State, client: ClientStream) -> State:
        hello = client.hello(FORMATS)
        return state._replace(
            client=client.freeze(),
            server=ServerStream().freeze(),
            up=(hello,),
            down=(),
            connected=True,
            old=state.server if state.server is not None else state.old,
            old_up=state.up if state.server is not None else state.old_up,
        )

    @staticmethod
    def _hear(state: State, client: ClientStream, message: Any) -> State:
        if isinstance(message, ServerClosed):
            client.closed(message.code)
            state = state._replace(server=None, up=(), down=(), connected=False)
        else:
            answer = client.receive(message)
            if isinstance(answer, Pong):
                state = state._replace(up=(*state.up, answer))
            elif isinstance(answer, tuple):
                new = [frame for run in answer for frame in range(run.first, run.upto)]
                state = state._replace(told=state.told.union(new))
        return state._replace(client=client.freeze())

    # --- the server ------------------------------------------------------------------------------------------------

    def _arrive(self, state: State, message: Any) -> State:
        server = ServerStream.thaw(state.server or ())
        try:
            if isinstance(message, Hello):
                return self._welcome(state, server, server.greeted(message))
            return self._take(state, server, message)._replace(server=server.freeze())
        except StreamViolation as violation:
            return self._close(state, violation.code)

    def _arrive_late(self, state: State, message: Any) -> State:
        old = ServerStream.thaw(state.old or ())
        try:
            if not isinstance(message, Hello):
                return self._take(state, old, message)._replace(old=old.freeze())
            if not state.stopped:
                state = self._with_time(state)
                self._open(state, old, old.greeted(message))
                if _phase(state.server) == OPEN:
                    state = self._close(state, StreamCode.FENCED)
                return state._replace(old=old.freeze(), attempt=message.attempt)
        except StreamViolation:
            pass
        return state._replace(old=None, old_up=())

    def _welcome(self, state: State, server: ServerStream, hello: Hello) -> State:
        if state.stopped:
            return self._close(state, StreamCode.DONE, Bye(VoiceSessionState.STOPPED, "stopped"))
        state = self._with_time(state)
        welcome = self._open(state, server, hello)
        if _phase(state.old) in {OPEN, ENDING}:  # before its hello the server does not know whose it is
            old = ServerStream.thaw(state.old or ())
            old.fence()
            state = state._replace(old=old.freeze())
        down = (*state.down, welcome) if state.connected else ()
        return state._replace(server=server.freeze(), attempt=hello.attempt, down=down)

    def _open(self, state: State, server: ServerStream, hello: Hello) -> Welcome:
        expected = StreamTime(*state.time or ()).number(len(state.taken))
        durable, losses = self._fate(state)
        said = server.open(hello, state.attempt, expected, durable, expected + self.window, losses)
        active, no_verdict = VoiceSessionState.ACTIVE, FrozenDict[Any]()
        numbers = (said.received, said.durable, said.limit)
        return Welcome("session", "token", FORMATS[0], *numbers, active, no_verdict, 1, 1, said.lost)

    def _with_time(self, state: State) -> State:
        """The state with the server's `StreamTime`, which a restarted server makes from the stored marks."""
        if state.time is not None:
            return state
        time, skip = StreamTime.from_marks(state.marks, len(state.taken))
        return state._replace(time=astuple(time), taken=state.taken + (LOST,) * skip)

    def _fate(self, state: State) -> tuple[int | None, tuple[Lost, ...]]:
        """The server's durable limit and losses, in the client's numbers. A restarted server counts frames that the client
        declared lost as losses too, since it only sees that they are missing (left out if the disk refuses nothing)."""
        gone = {REFUSED, LOST} if state.died and self.refusals else {REFUSED}
        lost = Losses()
        for number, content in enumerate(state.taken[: state.durable]):
            if content in gone:
                lost.add(number, 1, DISK_FULL)
        time = StreamTime(*state.time or ())
        return (time.number(state.durable) if self.keep else None), time.losses(lost.between(0, state.durable))

    @staticmethod
    def _close(state: State, code: int, *last_words: Bye) -> State:
        down = (*state.down, *last_words, ServerClosed(code)) if state.connected else ()
        return state._replace(server=None, up=(), down=down)

    def _take(self, state: State, server: ServerStream, message: Any) -> State:
        if isinstance(message, tuple):
            run, content, media_ms = message
            server.check_audio(run.first, run.count, media_ms)
            if self.pauses:
                state = self._in_time(state, run, media_ms, fresh=server.media_ms is None)
            server.audio(run.first, run.count, media_ms, last=run.last)
            return state._replace(taken=state.taken + content)
        found = server.receive(message)
        if isinstance(found, Gap):
            return state._replace(taken=state.taken + (LOST,) * found.count)
        return state._replace(ending=state.ending or isinstance(found, End))

    @staticmethod
    def _in_time(state: State, run: FrameRun, media_ms: int, *, fresh: bool) -> State:
        """The state before audio is taken: with a pause that only the media time shows, and with its mark stored."""
        time, marks = StreamTime(*state.time or ()), state.marks
        if not fresh and time.follows(run.first, run.count, media_ms):
            return state._replace(time=astuple(time))
        change = time.change(run.first, media_ms, len(state.taken), longest=LONGEST, fresh=fresh)
        if change.mark is not None:
            marks = (*[mark for mark in marks if mark.number < change.mark.number], change.mark)
        return state._replace(time=astuple(time), marks=marks, taken=state.taken + (LOST,) * change.pause)

    def _serve(self, state: State, name: str) -> State:
        if name == "store":
            return state._replace(durable=len(state.taken))
        if name == "refuse":
            refused = tuple(LOST if content == LOST else REFUSED for content in state.taken[state.durable :])
            taken = state.taken[: state.durable] + refused
            return state._replace(taken=taken, durable=len(taken), refusals=state.refusals - 1)
        if name == "notice":
            return state._replace(server=None, up=())
        server = ServerStream.thaw(state.server) if state.server is not None else None
        if name == "stop":
            state = state._replace(stopped=True, durable=len(state.taken), old=None, old_up=())
            if server is None or server.phase == GREETING:
                return state
            return self._close(state, StreamCode.DONE, Bye(VoiceSessionState.STOPPED, "stopped"))
        assert server is not None  # noqa: S101 - enabled only then
        if name == "grant":
            server.grant(server.expected + 1)
            return state._replace(server=server.freeze())
        server.heard = name == "ping"  # so that the model has no timeouts for silence
        said = server.beat() if name == "ping" else server.ack(*self._fate(state))
        server.heard = False
        down = (*state.down, said) if state.connected else ()
        return state._replace(server=server.freeze(), down=down)

    @staticmethod
    def _die(state: State, client: ClientStream) -> State:
        if state.connected:
            client.closed(StreamCode.LOST)
        return State(
            client=client.freeze(),
            slots=state.slots,
            clock=state.clock,
            marks=state.marks,
            taken=state.taken[: state.durable],
            durable=state.durable,
            told=state.told,
            stopped=state.ending,
            cut_short=state.ending and state.durable < len(state.taken),
            cuts=state.cuts,
            deaths=state.deaths - 1,
            refusals=state.refusals,
            pauses=state.pauses,
            died=True,
        )

    # --- what is claimed -------------------------------------------------------------------------------------------

    def properties(self) -> Sequence[Property]:
        """The promises of a stream, wherever it is cut."""
        return (
            always("every frame is taken once and in order, or declared lost", _in_order),
            always("what is declared lost fell off the ring", _lost_fell_off),
            always("P10 what the client takes for safe is there or was declared lost", _durable_is_true),
            always("P10 what the server declares lost is lost, and counted once", _told_is_true),
            always("neither end breaks the protocol or is refused", _in_agreement),
            always("a session that ended has all of its audio", _complete),
            always("a ring that holds everything loses nothing", self._nothing_lost),
            can_always_reach("the stream can end", _ended),
            leads_to("a stream that was finished ends", lambda state: ClientStream.thaw(state.client).finished, _ended),
            sometimes("a client comes back and goes on", lambda state: _client(state).attempt > 1 and _open(state)),
            sometimes("a newer connection fences an older", lambda state: _phase(state.old) == OVER),
            sometimes(
                "a stream outlives its server", lambda state: state.died and _ended(state) and not state.cut_short
            ),
            *(
                (sometimes("a frame is declared lost", lambda state: LOST in state.taken),)
                if self.ring < self.frames or self.pauses
                else ()
            ),
            *(
                (
                    sometimes(
                        "a client that paused before the server died goes on behind its pause",
                        lambda state: state.died and _ended(state) and LOST in state.taken,
                    ),
                )
                if self.pauses and self.deaths
                else ()
            ),
            *(
                (
                    sometimes("the client hears of a loss", lambda state: bool(state.told)),
                    sometimes("the server knows that the client knows of a loss", _known_to_be_known),
                )
                if self.refusals
                else ()
            ),
        )

    def _nothing_lost(self, state: State) -> bool:
        return self.ring < self.frames or all(
            state.taken[slot] != LOST for slot in state.slots if 0 <= slot < len(state.taken)
        )

    def is_fair(self, action: tuple[str, int]) -> bool:
        """Faults need not happen."""
        return action[0] not in {"cut", "die"}

    # --- what reports show -----------------------------------------------------------------------------------------

    def configuration(self) -> Mapping[str, Any]:
        """The sizes and the faults."""
        return {
            "frames": self.frames,
            "ring": self.ring,
            "window": self.window,
            "cuts": self.cuts,
            "deaths": self.deaths,
            "refusals": self.refusals,
            "keep": self.keep,
            "pauses": self.pauses,
            "declare": self.declare,
        }

    def fields(self, state: State) -> Mapping[str, Any]:
        """The fields of the state by name, with both ends as objects."""
        shown = state._asdict()
        shown["client"] = ClientStream.thaw(state.client)
        for name in ("server", "old"):
            shown[name] = None if shown[name] is None else ServerStream.thaw(shown[name])
        return shown

    def label(self, action: tuple[str, int]) -> str:
        """The action in words."""
        name, number = action
        return f"{name} after {number} messages" if name == "cut" else name

    def happenings(
        self,
        before: State,
        action: tuple[str, int],
        after: State,  # noqa: ARG002 - asked with more than it needs
    ) -> Sequence[Happening]:
        """A message for each arrival, a note for every other action."""
        name, _ = action
        if name == "arrive":
            return [Happening("message", "client", _said(before.up[0]), "server")]
        if name == "arrive late":
            return [Happening("message", "client", f"late: {_said(before.old_up[0])}", "server")]
        if name == "hear":
            return [Happening("message", "server", _said(before.down[0]), "client")]
        kind = {"cut": "drop", "die": "crash"}.get(name, "note")
        at = "client" if name in {"capture", "pause", "finish", "connect", "send", "cut"} else "server"
        return [Happening(kind, at, self.label(action), "server" if kind == "drop" else "")]

    def pending(self, state: State) -> Mapping[str, Sequence[str]]:
        """The messages under way."""
        ways = {"to the server": state.up, "to the client": state.down, "late, to the server": state.old_up}
        return {name: [_said(message) for message in way] for name, way in ways.items()}


def stream_model(
    frames: int = 3,
    ring: int = 2,
    cuts: int = 1,
    deaths: int = 1,
    refusals: int = 0,
    pauses: int = 0,
    *,
    declare: bool = False,
) -> StreamModel:
    """The browser stream, for `agentos-voice check`; `declare` says that the client declares its pauses."""
    by_media_time = pauses > 0 and not declare
    return StreamModel(
        frames=frames, ring=ring, cuts=cuts, deaths=deaths, refusals=refusals, pauses=pauses, declare=not by_media_time
    )


def _client(state: State) -> ClientStream:
    return ClientStream.thaw(state.client)


def _phase(connection: tuple[Any, ...] | None) -> str:
    return "" if connection is None else ServerStream.thaw(connection).phase


def _open(state: State) -> bool:
    return _client(state).phase == OPEN


def _ended(state: State) -> bool:
    return state.stopped and _client(state).phase == ENDED


def _in_order(state: State) -> bool:
    return all(content in (LOST, REFUSED, number) for number, content in enumerate(state.taken))


def _lost_fell_off(state: State) -> bool:
    # By the captured frames, not by `client.kept`: the client may have let go of a frame too early.
    captured = [slot for slot in state.slots if slot != PAUSED]
    kept = captured[max(0, len(captured) - _client(state).capacity) :]
    return all(state.taken[slot] != LOST for slot in kept if slot < len(state.taken))


def _durable_is_true(state: State) -> bool:
    # The client has declared the frames itself that fell off its ring unsent; it took all others for safe.
    return all(
        slot == PAUSED or _content(state, slot) in (LOST, slot) or number in state.told
        for number, slot in enumerate(state.slots[: _client(state).durable])
    )


def _told_is_true(state: State) -> bool:
    slots = [state.slots[number] for number in state.told]
    lost = all(slot == PAUSED or _content(state, slot) not in (None, slot) for slot in slots)
    return lost and len(state.told) == _client(state).missed


def _content(state: State, slot: int) -> int | None:
    return state.taken[slot] if slot < len(state.taken) else None


def _known_to_be_known(state: State) -> bool:
    return state.server is not None and ServerStream.thaw(state.server).known > 0 and bool(state.told)


def _in_agreement(state: State) -> bool:
    refused = [one for one in state.down if isinstance(one, ServerClosed) and one.code != StreamCode.DONE]
    return not refused and _client(state).phase != FAILED


def _complete(state: State) -> bool:
    client = _client(state)
    whole = state.slots[-1] + 1 if state.slots and state.slots[-1] != PAUSED else len(state.slots)
    return not state.stopped or state.cut_short or (client.finished and len(state.taken) == whole)


def _said(message: Any) -> str:
    if isinstance(message, tuple) and not isinstance(message, ServerClosed):
        return f"audio {', '.join(map(str, message[1]))}"
    if isinstance(message, Ack | End | Gap | Ping | Pong):
        return repr(message)
    return f"closed {message.code}" if isinstance(message, ServerClosed) else type(message).__name__.lower()
