"""`agentos-voice top`: a running service, live on the terminal."""

import sys
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Group
from rich.live import Live

from agentos.core.communication.voice.cli.keyboard import Keyboard
from agentos.core.communication.voice.cli.options import Home, Json
from agentos.core.communication.voice.cli.outcome import CommandOutcome, terminal
from agentos.core.communication.voice.cli.service_view import FIXED_LINES, service_view
from agentos.core.communication.voice.cli.services import Instance, Pid, chosen_service
from agentos.core.communication.voice.cli.stores import settings_of
from agentos.core.communication.voice.running.control.client import ControlClient
from agentos.core.communication.voice.running.control.protocol import MAX_ACTORS
from agentos.core.time import monotonic_ms

REFRESH_SECONDS: Final = 1.0
ACTORS_ONCE: Final = 20
ACTORS_AS_JSON: Final = 1000
PAUSE_FACTOR: Final = 10  # a service that answers slowly is asked less often, so that the view is no load


def top(
    *,
    once: Annotated[bool, Parameter(negative=(), help="Print one picture and end.")] = False,
    actors: Annotated[
        int | None,
        Parameter(
            help="Show so many actors, the worst first; else as many as fit, 20 with --once and 1,000 with --json.",
            validator=Number(gte=0, lte=MAX_ACTORS),
        ),
    ] = None,
    pid: Pid = None,
    instance: Instance = None,
    home: Home = None,
    json_output: Json = False,
) -> CommandOutcome | None:
    """A running service of this home: sessions, actors with their mail, restarts, dead letters, timers, ports, loop lag.

    The view is refreshed every second until q or Ctrl-C is pressed. Without a terminal, and with --json, it is printed once.
    """
    with ControlClient(chosen_service(settings_of(home).home, pid, instance)) as client:
        if json_output:
            picture = client.inspect(ACTORS_AS_JSON if actors is None else actors)
            return CommandOutcome(msgspec.to_builtins(picture))
        if once or not sys.stdout.isatty():
            return CommandOutcome({}, service_view(client.inspect(ACTORS_ONCE if actors is None else actors)))
        _watch(client, actors)
    return None


def _watch(client: ControlClient, actors: int | None) -> None:
    console = terminal()
    try:
        with Keyboard() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
            pressed = ""
            while not {"q", "Q"} & set(pressed):
                fitting = max(1, console.height - FIXED_LINES)
                asked_ms = monotonic_ms()
                picture = client.inspect(fitting if actors is None else actors)
                took_seconds = (monotonic_ms() - asked_ms) / 1000
                live.update(Group(*service_view(picture)), refresh=True)
                pressed = keyboard.pressed(within_seconds=max(REFRESH_SECONDS, PAUSE_FACTOR * took_seconds))
    except KeyboardInterrupt:
        pass
