"""The register of Attiya, Bar-Noy and Dolev, "Sharing Memory Robustly in Message-Passing Systems": every operation asks a
majority for the newest value, then makes a majority keep it."""

from collections.abc import Sequence
from typing import NamedTuple

from tests.machines.checker.examples.registers import UNWRITTEN, Message, Registers, Sends

Sequencer = tuple[int, int]


class Query(NamedTuple):
    """Asking for the newest value; `write` is what is to be written, None for a read."""

    request: int
    client: int
    write: str | None
    answers: tuple[tuple[int, Sequencer, str], ...]


class Record(NamedTuple):
    """Having it kept; `read` is what will be answered, None for a write."""

    request: int
    client: int
    read: str | None
    acks: tuple[int, ...]


class Server(NamedTuple):
    newest: Sequencer
    value: str
    phase: Query | Record | None


class Abd(Registers):
    """`writes_back` is the second phase of a read; without it the register is a broken one."""

    def __init__(
        self, servers: int, scripts: Sequence[Sequence[str | None]], *, pruned: bool = True, writes_back: bool = True
    ) -> None:
        super().__init__(servers, scripts, pruned=pruned)
        self.writes_back = writes_back

    def server(self, me: int) -> Server:
        return Server((0, me), UNWRITTEN, None)

    def receive(self, me: int, state: Server, source: int, message: Message) -> tuple[Server, Sends] | None:  # noqa: PLR0911
        kind, request, *more = message
        phase = state.phase
        if kind in ("put", "get"):
            if phase is not None:
                return None
            asked = Query(request, source, more[0] if more else None, ((me, state.newest, state.value),))
            return state._replace(phase=asked), [(peer, ("query", request)) for peer in self.peers(me)]
        if kind == "query":
            return state, [(source, ("answer", request, state.newest, state.value))]
        if kind == "answer" and isinstance(phase, Query) and phase.request == request:
            asked = phase._replace(answers=tuple(sorted((*phase.answers, (source, *more)))))
            if len(asked.answers) < self.majority:
                return state._replace(phase=asked), []
            return self._decide(me, state, asked)
        if kind == "record":
            newest, value = more
            kept = state._replace(newest=newest, value=value) if newest > state.newest else state
            return kept, [(source, ("ack", request))]
        if kind == "ack" and isinstance(phase, Record) and phase.request == request and source not in phase.acks:
            acks = tuple(sorted((*phase.acks, source)))
            if len(acks) < self.majority:
                return state._replace(phase=phase._replace(acks=acks)), []
            return state._replace(phase=None), [(phase.client, _done(request, phase.read))]
        return None

    def _decide(self, me: int, state: Server, asked: Query) -> tuple[Server, Sends]:
        """A majority has answered: choose, and have it kept."""
        _, newest, value = max(asked.answers, key=lambda answer: answer[1])
        read: str | None = value
        if asked.write is not None:
            newest, value, read = (newest[0] + 1, me), asked.write, None
        elif not self.writes_back:
            return state._replace(phase=None), [(asked.client, _done(asked.request, read))]
        if newest > state.newest:
            state = state._replace(newest=newest, value=value)
        recording = Record(asked.request, asked.client, read, (me,))
        return state._replace(phase=recording), [
            (peer, ("record", asked.request, newest, value)) for peer in self.peers(me)
        ]


def _done(request: int, read: str | None) -> Message:
    return ("put ok", request) if read is None else ("get ok", request, read)
