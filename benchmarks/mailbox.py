"""What does a message cost? Tell, queued tell, ping-pong, fan-out and ask, supervision and accounting included."""

from typing import Any, ClassVar

import anyio
from msgspec import Struct

from actors.runtime.actor import Actor, Out
from actors.runtime.mailbox import CONTROL, Ref
from actors.runtime.system import ActorSystem
from benchmarks.yard import Figure, measure, measure_async

BURST = 64
FANS = (1_000, 10_000)


class Ping(Struct, frozen=True, gc=False):
    """A message with one number."""

    lane: ClassVar[int] = CONTROL
    left: int


class Ask(Struct, frozen=True, gc=False):
    """A question."""

    lane: ClassVar[int] = CONTROL
    token: Any


class Sink(Actor):
    """Counts, and answers at once."""

    __slots__ = ("count",)
    state = ("count",)
    handles = {Ping: "ping", Ask: "ask"}

    def __init__(self) -> None:
        self.count = 0

    def ping(self, _: Ping, __: Out) -> None:
        """Count one."""
        self.count += 1

    def ask(self, message: Ask, out: Out) -> None:
        """Answer with the count."""
        out.reply(message.token, self.count)


class Player(Actor):
    """Sends the ball back until it has been hit often enough."""

    __slots__ = ("peer",)
    state = ("peer",)
    handles = {Ping: "ping"}

    def __init__(self) -> None:
        self.peer: Ref | None = None

    def ping(self, message: Ping, out: Out) -> None:
        """Hit it back."""
        if message.left and self.peer is not None:
            out.tell(self.peer, Ping(message.left - 1))


class Fan(Actor):
    """Passes each message on to many."""

    __slots__ = ("many",)
    wiring = ("many",)
    handles = {Ping: "ping"}

    def __init__(self, many: tuple[Ref, ...]) -> None:
        self.many = many

    def ping(self, message: Ping, out: Out) -> None:
        """Pass it on."""
        for ref in self.many:
            out.tell(ref, message)


async def figures(loop: str, runs: int) -> list[Figure]:
    """All figures of this file, on the loop that is running."""
    found: list[Figure] = []
    async with anyio.create_task_group() as group:
        system = ActorSystem()
        await group.start(system.run)
        sink = system.spawn(Sink(), "sink")
        message = Ping(0)

        def tell(rounds: int) -> None:
            put = system.tell
            for _ in range(rounds):
                put(sink, message)

        def burst(rounds: int) -> None:
            put = system.tell
            for _ in range(rounds // BURST):
                with system.held_back():
                    for _ in range(BURST):
                        put(sink, message)

        found.append(measure("tell to an idle actor", loop, tell, 200_000, goal=10, runs=runs))
        found.append(measure("tell, queued in bursts of 64", loop, burst, 100_000, goal=14, runs=runs))

        left, right = Player(), Player()
        here, there = system.spawn(left, "left"), system.spawn(right, "right")
        left.peer, right.peer = there, here

        def ping_pong(rounds: int) -> None:
            system.tell(here, Ping(rounds))
            drain(system)

        found.append(measure("ping-pong, a message", loop, ping_pong, 100_000, goal=16, runs=runs))
        for width in FANS:
            fan = system.spawn(Fan(tuple(system.spawn(Sink(), "leaf") for _ in range(width))), "fan")

            def fan_out(rounds: int, fan: Ref = fan, width: int = width) -> None:
                for _ in range(max(1, rounds // width)):
                    system.tell(fan, message)
                    drain(system)

            goal = 18 if width == max(FANS) else None
            found.append(measure(f"fan-out to {width:,}, a message", loop, fan_out, 100_000, goal=goal, runs=runs))

        async def ask(rounds: int) -> None:
            for _ in range(rounds):
                await system.ask(sink, Ask, 1.0)

        found.append(await measure_async("ask of an idle actor", loop, ask, 50_000, goal=36, runs=runs))
        group.cancel_scope.cancel()
    return found


def drain(system: ActorSystem) -> None:
    """Go on where a drain ran out of its budget, as the driver would."""
    while system.has_work():
        system.turn()
