"""Servers that keep one value between them and clients that write and read it: what Paxos and ABD have in common.

The network loses and duplicates nothing and delivers in any order. The clients' history is part of the state. A delivery that
changes nothing and sends nothing is pruned, so that such a message stays in the network, unless `pruned` is false.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from machines.checker.linearizability import History, Register, is_linearizable
from machines.checker.model import Model, Property, always, sometimes

UNWRITTEN = ""
SPEC = Register(UNWRITTEN)

Message = tuple[Any, ...]


class Envelope(NamedTuple):
    source: int
    target: int
    message: Message


class System(NamedTuple):
    servers: tuple[Any, ...]
    clients: tuple[tuple[int, int], ...]
    """For each client the request that it waits for, 0 for none, and how many operations it has begun."""
    network: tuple[Envelope, ...]
    history: History


Sends = list[tuple[int, Message]]

is_fine = lru_cache(maxsize=None)(lambda history: is_linearizable(history, SPEC))


class Registers(Model[System, Envelope]):
    """`scripts` has for each client its operations: a text is written, None reads. Servers have the lower numbers."""

    pruned: bool

    def __init__(self, servers: int, scripts: Sequence[Sequence[str | None]], *, pruned: bool = True) -> None:
        self.name = f"{type(self).__name__} of {servers} servers and {len(scripts)} clients"
        self.size = servers
        self.majority = servers // 2 + 1
        self.scripts = scripts
        self.pruned = pruned

    # --- a protocol says these -----------------------------------------------------------------------------------------

    def server(self, me: int) -> Any:
        raise NotImplementedError

    def receive(self, me: int, state: Any, source: int, message: Message) -> tuple[Any, Sends] | None:
        """The server's state after a message and what it sends; None if it takes no notice."""
        raise NotImplementedError

    # --- the model -------------------------------------------------------------------------------------------------

    def peers(self, me: int) -> list[int]:
        return [peer for peer in range(self.size) if peer != me]

    def initial(self) -> Sequence[System]:
        state = System(tuple(map(self.server, range(self.size))), (), (), History())
        for number, script in enumerate(self.scripts):
            state = state._replace(clients=(*state.clients, (0, 0)))
            if script:
                state = self._begin(state, number)
        return [state]

    def _begin(self, state: System, number: int) -> System:
        """The client begins its next operation: its requests are numbered, and go to one server after the other."""
        begun = state.clients[number][1]
        me = self.size + number
        value = self.scripts[number][begun]
        request = me * (begun + 1)
        message = ("get", request) if value is None else ("put", request, value)
        operation = ("read",) if value is None else ("write", value)
        clients = (*state.clients[:number], (request, begun + 1), *state.clients[number + 1 :])
        sent = Envelope(me, (me + begun) % self.size, message)
        return System(state.servers, clients, _with(state.network, sent), state.history.invoke(me, operation))

    def actions(self, state: System) -> Sequence[Envelope]:
        return list(dict.fromkeys(state.network))

    def step(self, state: System, action: Envelope) -> System | None:
        at = state.network.index(action)
        rest = state.network[:at] + state.network[at + 1 :]
        after = (
            self._server_step(state, action, rest)
            if action.target < self.size
            else self._client_step(state, action, rest)
        )
        if after is None and not self.pruned:
            return state._replace(network=rest)
        return after

    def _server_step(self, state: System, action: Envelope, rest: tuple[Envelope, ...]) -> System | None:
        me = action.target
        found = self.receive(me, state.servers[me], action.source, action.message)
        if found is None:
            return None
        server, sends = found
        network = _with(rest, *(Envelope(me, target, message) for target, message in sends))
        return state._replace(servers=(*state.servers[:me], server, *state.servers[me + 1 :]), network=network)

    def _client_step(self, state: System, action: Envelope, rest: tuple[Envelope, ...]) -> System | None:
        number = action.target - self.size
        kind, request, *answer = action.message
        waits, begun = state.clients[number]
        if kind not in ("put ok", "get ok") or request != waits:
            return None
        clients = (*state.clients[:number], (0, begun), *state.clients[number + 1 :])
        history = state.history.answer(action.target, answer[0] if answer else None)
        state = System(state.servers, clients, rest, history)
        return self._begin(state, number) if begun < len(self.scripts[number]) else state

    def properties(self) -> Sequence[Property]:
        return [
            always("linearizable", lambda state: is_fine(state.history)),
            sometimes("value chosen", _is_read),
        ]

    def label(self, action: Envelope) -> str:
        return f"{action.source} -> {action.target}: {' '.join(map(str, action.message))}"

    def fields(self, state: System) -> Mapping[str, Any]:
        return state._asdict()

    def pending(self, state: System) -> Mapping[str, Sequence[str]]:
        return {"network": [self.label(envelope) for envelope in state.network]}


def _with(network: tuple[Envelope, ...], *sent: Envelope) -> tuple[Envelope, ...]:
    """The network is sorted, so that it is the same whatever was sent first."""
    return tuple(sorted((*network, *sent)))


def _is_read(state: System) -> bool:
    return any(one.message[0] == "get ok" and one.message[2] != UNWRITTEN for one in state.network)


def one_write_one_read(clients: int) -> list[list[str | None]]:
    """Each client writes a letter of its own, then reads."""
    return [[chr(ord("A") + number), None] for number in range(clients)]
