"""`agentos-voice sessions` and `events`: the stored sessions and their events."""

import json
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.text import Text

from agentos.core.communication.voice.cli.options import Home, Json
from agentos.core.communication.voice.cli.outcome import CommandOutcome, table
from agentos.core.communication.voice.cli.stores import reading
from agentos.core.communication.voice.errors import SessionNotFound
from machines.session import VoiceSessionState

StateName = Literal["created", "active", "stopping", "stopped"]


def sessions(
    *,
    project: Annotated[str | None, Parameter(help="Only sessions of this project.")] = None,
    state: Annotated[StateName | None, Parameter(help="Only sessions in this state.")] = None,
    home: Home = None,
    json_output: Json = False,
) -> CommandOutcome:
    """The stored sessions, newest first: running ones, of any process, and stopped ones.

    The state of a session whose process died says so; `recover` ends it.
    """
    del json_output
    wanted = None if state is None else VoiceSessionState(state)
    with reading(home) as store:
        found = [] if store is None else store.sessions(project, wanted)
        left = (
            {session.session_id for session in store.sessions_of_the_dead()} if store is not None and found else set()
        )
    data = {
        "sessions": [session.model_dump(mode="json") for session in found],
        "unowned": [session.session_id for session in found if session.session_id in left],
    }
    if not found:
        return CommandOutcome(data, (Text("no sessions"),))
    rows = (
        (
            session.session_id,
            session.state.value + (", its process died" if session.session_id in left else ""),
            session.created_at.isoformat(timespec="seconds"),
            session.project_id,
            session.result.transcript if session.result is not None else "",
        )
        for session in found
    )
    return CommandOutcome(data, (table(("session", "state", "created", "project", "said"), rows),))


def events(
    session_id: Annotated[str, Parameter(help="The session.")],
    /,
    *,
    after: Annotated[int, Parameter(help="Only events with a higher number.")] = 0,
    home: Home = None,
    json_output: Json = False,
) -> CommandOutcome:
    """The stored events of a session. Partial results and levels are only told to listeners, and not stored."""
    del json_output
    with reading(home) as store:
        if store is None or store.session(session_id) is None:
            raise SessionNotFound(session_id)
        found = store.events(session_id, after)
    data = {"session_id": session_id, "events": [event.model_dump(mode="json") for event in found]}
    rows = (
        (str(event.number), event.event_type.value, json.dumps(event.model_dump(mode="json")["payload"]))
        for event in found
    )
    return CommandOutcome(data, (table(("number", "event", "payload"), rows),))
