"""Single-decree Paxos (Lamport, "Paxos Made Simple"): each request to write is a proposal with a ballot of its own."""

from typing import NamedTuple

from tests.machines.checker.examples.registers import Message, Registers, Sends

Ballot = tuple[int, int]
Proposal = tuple[int, int, str] | tuple[()]
"""The request, the client, the value; empty for none."""
Accepted = tuple[Ballot, Proposal] | tuple[()]


class Server(NamedTuple):
    ballot: Ballot = (0, 0)
    proposal: Proposal = ()
    prepares: tuple[tuple[int, Accepted], ...] = ()
    accepts: tuple[int, ...] = ()
    accepted: Accepted = ()
    is_decided: bool = False


class Paxos(Registers):
    """A read is answered by a server that knows the decision, and by no other."""

    def server(self, me: int) -> Server:
        return Server()

    def receive(self, me: int, state: Server, source: int, message: Message) -> tuple[Server, Sends] | None:  # noqa: PLR0911
        kind, *more = message
        if state.is_decided:
            if kind != "get":
                return None
            return state, [(source, ("get ok", more[0], state.accepted[1][2]))]
        if kind == "put" and not state.proposal:
            ballot = (state.ballot[0] + 1, me)
            begun = state._replace(
                ballot=ballot, proposal=(more[0], source, more[1]), prepares=((me, state.accepted),), accepts=()
            )
            return begun, self._all(me, ("prepare", ballot))
        if kind == "prepare" and state.ballot < more[0]:
            return state._replace(ballot=more[0]), [(source, ("prepared", more[0], state.accepted))]
        if kind == "prepared" and more[0] == state.ballot:
            return self._prepared(me, state, source, more[1])
        if kind == "accept" and state.ballot <= more[0]:
            return state._replace(ballot=more[0], accepted=(more[0], more[1])), [(source, ("accepted", more[0]))]
        if kind == "accepted" and more[0] == state.ballot:
            accepts = tuple(sorted({*state.accepts, source}))
            if len(accepts) != self.majority:
                return state._replace(accepts=accepts), []
            request, client, _ = state.proposal
            told = [*self._all(me, ("decided", state.ballot, state.proposal)), (client, ("put ok", request))]
            return state._replace(accepts=accepts, is_decided=True), told
        if kind == "decided":
            return state._replace(ballot=more[0], accepted=(more[0], more[1]), is_decided=True), []
        return None

    def _prepared(self, me: int, state: Server, source: int, accepted: Accepted) -> tuple[Server, Sends]:
        """One more server has promised; once a majority has, propose what the newest ballot among them accepted."""
        prepares = tuple(sorted({**dict(state.prepares), source: accepted}.items()))
        state = state._replace(prepares=prepares)
        if len(prepares) != self.majority:
            return state, []
        newest = max(last for _, last in prepares)
        proposal = newest[1] if newest else state.proposal
        accepts = tuple(sorted({*state.accepts, me}))
        state = state._replace(proposal=proposal, accepted=(state.ballot, proposal), accepts=accepts)
        return state, self._all(me, ("accept", state.ballot, proposal))

    def _all(self, me: int, message: Message) -> Sends:
        return [(peer, message) for peer in self.peers(me)]
