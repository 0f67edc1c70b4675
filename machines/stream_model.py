"""The browser stream as a model: both ends of `stream.py` against each other, over connections that are cut at any point.

A frame's content is its number, so that what the session has taken shows whether anything came twice, in the wrong order or not
at all. A cut takes a suffix of what was under way; what came before may still arrive, on a connection that the server takes for
alive, also after the client has come back on another one. A server that dies loses what was not durable.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

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
from machines.session import VoiceSessionState
from machines.stream import AWAY, ENDED, ENDING, FAILED, GREETING, OPEN, OVER, ClientStream, Run, ServerStream
from machines.stream_messages import Ack, Bye, End, Gap, Hello, StreamCode, StreamFormat, StreamViolation, Welcome

FORMATS = (StreamFormat("pcm_s16le", 16_000),)
LOST = -1  # in what the session has taken: a frame that was declared lost
GONE = -2  # what a client would send of a frame that it does not have any more


class Closed(NamedTuple):
    """The server closed the connection; the last thing on its way down."""

    code: int


class State(NamedTuple):
    """Client, the connection that the server takes for live, and the one before it, each with what is under way.

    `taken` is what the session has: the content of each frame, or LOST. `cut_short` says that a death took frames which the
    client can't send again, because the session was ending: its last account declares them.
    """

    client: tuple[Any, ...]
    server: tuple[Any, ...] | None = None
    up: tuple[Any, ...] = ()
    down: tuple[Any, ...] = ()
    connected: bool = False
    old: tuple[Any, ...] | None = None
    old_up: tuple[Any, ...] = ()
    taken: tuple[int, ...] = ()
    durable: int = 0
    attempt: int = 0
    ending: bool = False
    stopped: bool = False
    died: bool = False
    cut_short: bool = False
    cuts: int = 0
    deaths: int = 0


class StreamModel(Model[State, tuple[str, int]]):
    """A stream of `frames` frames through a ring of `ring`, with at most so many cuts and deaths of the server.

    The server lets `window` frames come ahead of what it has taken; a message carries at most `most`.
    """

    name = "stream"

    def __init__(
        self, frames: int = 3, ring: int = 2, window: int = 2, most: int = 2, cuts: int = 1, deaths: int = 1
    ) -> None:
        self.frames, self.ring, self.window, self.most = frames, ring, window, most
        self.cuts, self.deaths = cuts, deaths

    def initial(self) -> Iterator[State]:
        """Nothing captured, nobody connected."""
        yield State(ClientStream(self.ring, "ticket").freeze(), cuts=self.cuts, deaths=self.deaths)

    def actions(self, state: State) -> Iterator[tuple[str, int]]:
        """What may happen next."""
        client = ClientStream.thaw(state.client)
        if not client.finished:
            yield ("capture", 1) if client.next < self.frames else ("finish", 0)
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
        if state.server is not None:
            server = ServerStream.thaw(state.server)
            if server.phase in {OPEN, ENDING} and server.ack(state.durable) is not None:
                yield "acknowledge", 0
            if server.phase == OPEN and server.limit < server.expected + self.window:
                yield "grant", 0
            if not state.connected:
                yield "notice", 0
        if state.ending and not state.stopped:
            yield "stop", 0

    def step(self, state: State, action: tuple[str, int]) -> State:
        """One thing happens."""
        name, number = action
        client = ClientStream.thaw(state.client)
        match name:
            case "capture":
                client.capture(number)
            case "finish":
                client.finish()
            case "connect":
                return self._connect(state, client)
            case "send":
                message = client.to_send(self.most)
                state = state._replace(up=(*state.up, self._with_content(message, client.kept)))
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

    @staticmethod
    def _with_content(message: Run | Gap | End | None, kept: int) -> Any:
        if isinstance(message, Run):
            numbers = range(message.first, message.first + message.count)
            return message, tuple(number if number >= kept else GONE for number in numbers)
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
        if isinstance(message, Closed):
            client.closed(message.code)
            state = state._replace(server=None, up=(), down=(), connected=False)
        else:
            client.receive(message)
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
        welcome = self._open(state, server, hello)
        if _phase(state.old) in {OPEN, ENDING}:  # of one that did not say hello yet nobody knows whose it is
            old = ServerStream.thaw(state.old or ())
            old.fence()
            state = state._replace(old=old.freeze())
        down = (*state.down, welcome) if state.connected else ()
        return state._replace(server=server.freeze(), attempt=hello.attempt, down=down)

    def _open(self, state: State, server: ServerStream, hello: Hello) -> Welcome:
        taken = len(state.taken)
        numbers = server.open(hello, state.attempt, taken, state.durable, taken + self.window)
        active, no_verdict = VoiceSessionState.ACTIVE, FrozenDict[Any]()
        return Welcome("session", "token", FORMATS[0], *numbers, active, no_verdict, 1, 1)

    @staticmethod
    def _close(state: State, code: int, *last_words: Bye) -> State:
        down = (*state.down, *last_words, Closed(code)) if state.connected else ()
        return state._replace(server=None, up=(), down=down)

    @staticmethod
    def _take(state: State, server: ServerStream, message: Any) -> State:
        if isinstance(message, tuple):
            run, content = message
            server.audio(run.first, run.count, 0, last=run.last)
            return state._replace(taken=state.taken + content)
        found = server.heard_of(message)
        if isinstance(found, Gap):
            return state._replace(taken=state.taken + (LOST,) * found.count)
        return state._replace(ending=state.ending or isinstance(found, End))

    def _serve(self, state: State, name: str) -> State:
        if name == "store":
            return state._replace(durable=len(state.taken))
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
        ack = server.ack(state.durable)
        down = (*state.down, ack) if state.connected else ()
        return state._replace(server=server.freeze(), down=down)

    @staticmethod
    def _die(state: State, client: ClientStream) -> State:
        if state.connected:
            client.closed(StreamCode.LOST)
        return State(
            client=client.freeze(),
            taken=state.taken[: state.durable],
            durable=state.durable,
            stopped=state.ending,
            cut_short=state.ending and state.durable < len(state.taken),
            cuts=state.cuts,
            deaths=state.deaths - 1,
            died=True,
        )

    # --- what is claimed -------------------------------------------------------------------------------------------

    def properties(self) -> Sequence[Property]:
        """What holds of a stream, whatever is cut."""
        return (
            always("every frame is taken once and in order, or declared lost", _in_order),
            always("what is declared lost fell off the ring", _lost_fell_off),
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
                if self.ring < self.frames
                else ()
            ),
        )

    def _nothing_lost(self, state: State) -> bool:
        return self.ring < self.frames or LOST not in state.taken

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
        }

    def fields(self, state: State) -> Mapping[str, Any]:
        """Both ends by name."""
        shown = state._asdict()
        shown["client"] = ClientStream.thaw(state.client)
        for name in ("server", "old"):
            shown[name] = None if shown[name] is None else ServerStream.thaw(shown[name])
        return shown

    def label(self, action: tuple[str, int]) -> str:
        """What happens."""
        name, number = action
        return f"{name} after {number} messages" if name == "cut" else name

    def happenings(
        self,
        before: State,
        action: tuple[str, int],
        after: State,  # noqa: ARG002 - asked with more than it needs
    ) -> Sequence[Happening]:
        """Messages where one arrives, notes for the rest."""
        name, _ = action
        if name == "arrive":
            return [Happening("message", "client", _said(before.up[0]), "server")]
        if name == "arrive late":
            return [Happening("message", "client", f"late: {_said(before.old_up[0])}", "server")]
        if name == "hear":
            return [Happening("message", "server", _said(before.down[0]), "client")]
        kind = {"cut": "drop", "die": "crash"}.get(name, "note")
        at = "client" if name in {"capture", "finish", "connect", "send", "cut"} else "server"
        return [Happening(kind, at, self.label(action), "server" if kind == "drop" else "")]

    def pending(self, state: State) -> Mapping[str, Sequence[str]]:
        """What is under way."""
        ways = {"to the server": state.up, "to the client": state.down, "late, to the server": state.old_up}
        return {name: [_said(message) for message in way] for name, way in ways.items()}


def stream_model(frames: int = 3, ring: int = 2, cuts: int = 1, deaths: int = 1) -> StreamModel:
    """The browser stream, for `agentos-voice check`."""
    return StreamModel(frames=frames, ring=ring, cuts=cuts, deaths=deaths)


def _client(state: State) -> ClientStream:
    return ClientStream.thaw(state.client)


def _phase(connection: tuple[Any, ...] | None) -> str:
    return "" if connection is None else ServerStream.thaw(connection).phase


def _open(state: State) -> bool:
    return _client(state).phase == OPEN


def _ended(state: State) -> bool:
    return state.stopped and _client(state).phase == ENDED


def _in_order(state: State) -> bool:
    return all(content in (LOST, number) for number, content in enumerate(state.taken))


def _lost_fell_off(state: State) -> bool:
    # By what was captured, not by what the client says it keeps: it may have let go of a frame too early.
    oldest = _client(state).next - _client(state).capacity
    return all(number < oldest for number, content in enumerate(state.taken) if content == LOST)


def _in_agreement(state: State) -> bool:
    refused = [one for one in state.down if isinstance(one, Closed) and one.code != StreamCode.DONE]
    return not refused and _client(state).phase != FAILED


def _complete(state: State) -> bool:
    client = _client(state)
    return not state.stopped or state.cut_short or (client.finished and len(state.taken) == client.next)


def _said(message: Any) -> str:
    if isinstance(message, tuple) and not isinstance(message, Closed):
        return f"audio {', '.join(map(str, message[1]))}"
    if isinstance(message, Ack | End | Gap):
        return repr(message)
    return f"closed {message.code}" if isinstance(message, Closed) else type(message).__name__.lower()
