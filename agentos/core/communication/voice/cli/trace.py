"""`agentos-voice trace`: the steps of the actors of one running session."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from actors.runtime.tracing import TraceLine
from agentos.core.communication.voice.cli.exits import InputError
from agentos.core.communication.voice.cli.options import Home
from agentos.core.communication.voice.cli.services import Instance, Pid, chosen_services
from agentos.core.communication.voice.cli.stores import settings_of
from agentos.core.communication.voice.errors import SessionNotFound
from agentos.core.communication.voice.running.control.client import ControlClient
from agentos.core.communication.voice.running.control.protocol import TraceEnded, Tracing


def trace(
    session_id: Annotated[str, Parameter(help="The running session.")],
    /,
    *,
    pid: Pid = None,
    instance: Instance = None,
    home: Home = None,
    json_output: Annotated[
        bool, Parameter(name="--json", negative=(), help="Print each step as a JSON object on a line of its own.")
    ] = False,
) -> None:
    """The steps that the actors of a running session take from now on, until the session has stopped or Ctrl-C is pressed. A
    reader that is too slow misses steps; the last line says how many.

    A line has the seconds since the trace began, the actor, its phase, the message with its numbers and states, and the
    step's effects. A trace never shows what was said, only numbers, enum values, names
    of actors and timers, and the types of errors.
    """
    with suppress(KeyboardInterrupt), _tracing(settings_of(home).home, session_id, pid, instance) as (client, begun):
        if not json_output:
            _print(f"session {session_id} of {client.instance}, from {_clock(begun.started_at)} on")
        for step in client.steps():
            if json_output:
                _print(msgspec.json.encode(step).decode())
            else:
                _print(_ended(step) if isinstance(step, TraceEnded) else step_text(step))


@contextmanager
def _tracing(
    home: Path, session_id: str, pid: int | None, instance: str | None
) -> Iterator[tuple[ControlClient, Tracing]]:
    """The client of the service that runs the session, and the session's trace."""
    for path in chosen_services(home, pid, instance):
        with ControlClient(path) as client:
            try:
                begun = client.trace(session_id)
            except SessionNotFound:
                continue
            yield client, begun
            return
    raise InputError(f"no running service has a running session {session_id!r}; `agentos-voice sessions` lists them")


def step_text(line: TraceLine) -> str:
    """One step as a line of text."""
    moved = line.phase if line.phase == line.next_phase else f"{line.phase}>{line.next_phase}"
    again = f"#{line.incarnation}" if line.incarnation else ""
    fields = " ".join(f"{name}={_short(value)}" for name, value in line.fields.items())
    did = f"failed: {line.error}" if line.error else "; ".join(line.effects)
    return (
        f"{line.seconds:10.6f} {line.actor.rpartition('/')[2]}{again} [{moved}] {line.message}"
        f"{f'({fields})' if fields else ''}{f' -> {did}' if did else ''}"
    )


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)


def _ended(ended: TraceEnded) -> str:
    lost = f"; {ended.lost} steps were not told, since this reader was too slow" if ended.lost else ""
    return f"the session has stopped{lost}"


def _clock(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
