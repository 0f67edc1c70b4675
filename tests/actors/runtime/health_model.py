"""A model of the health watch: ports that answer, hang and come back, and whoever is told.

It imports nothing of the tests, so that a patched copy of the actors can be checked with it too.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from actors.model.actor_model import ActorModel, Scene
from actors.model.parts import Choice, Faults, Part
from actors.runtime.health import Beat, HealthWatch, Heartbeat, PortSilent

EVERY, TIMEOUT = 1.0, 5.0


class Working(NamedTuple):
    """What a port has to answer, in order, and whether it hangs."""

    waiting: tuple[Heartbeat, ...] = ()
    hangs: bool = False


class Watchable(Part):
    """A port that answers in order; as a fault it hangs, and may come back."""

    faults = ("hangs",)

    def initial(self) -> Working:
        return Working()

    def submit(self, state: Working, work: Any) -> Working:
        return state._replace(waiting=(*state.waiting, work))

    def choices(self, state: Working) -> Iterable[Choice]:
        if state.hangs:
            yield Choice("comes back", state._replace(hangs=False), fair=False)
            return
        if state.waiting:
            first, *rest = state.waiting
            beat = (first.reply_to, Beat(first.number, first.port))
            yield Choice("answers", state._replace(waiting=tuple(rest)), (beat,), prompt=True)
        yield Choice("hangs", state._replace(hangs=True), fault="hangs")


class Told(NamedTuple):
    """The ports that are silent as far as was told, and whether something was told that was known."""

    silent: frozenset[str] = frozenset()
    repeated: bool = False


class Board(Part):
    """Who is told."""

    def initial(self) -> Told:
        return Told()

    def submit(self, state: Told, work: Any) -> Told:
        silent = state.silent | {work.port} if isinstance(work, PortSilent) else state.silent - {work.port}
        return Told(silent, state.repeated or silent == state.silent)


def health_model(names: Sequence[str] = ("a",), *, faults: Faults | None = None) -> ActorModel:
    """A watch of these ports; its promises hold whatever the faults, and that no port is told of where none may hang."""
    ports, board = [Watchable(name) for name in names], Board("board")

    def setup(scene: Scene) -> None:
        watched = tuple((port.name, scene.port(port)) for port in ports)
        scene.spawn(HealthWatch(watched, scene.port(board), EVERY, TIMEOUT), "health")

    model = ActorModel("health", setup, parts=[*ports, board], faults=faults)

    def promise(name: str) -> None:
        model.leads_to(
            f"{name}: silence is told",
            lambda port, _: port.hangs,
            lambda port, told: name in told.silent or not port.hangs,
            of=[name, "board"],
        )
        model.leads_to(
            f"{name}: so is its end",
            lambda port, told: name in told.silent and not port.hangs,
            lambda port, told: name not in told.silent or port.hangs,
            of=[name, "board"],
        )
        model.always(
            f"{name}: one heartbeat at a time, and one for each crash",
            lambda port: len(port.waiting) <= 1 + 2 * (faults.total if faults else 0),  # two for each that is poison
            of=[name],
        )

    for name in names:
        promise(name)
    if faults is not None and "hangs" in faults.kinds:
        model.sometimes("silence can be told", lambda told: bool(told.silent), of=["board"])
    else:
        model.always("one that answers is never told of", lambda told: not told.silent, of=["board"])
    return model
