"""What is put on record of a session whose process died: the moves that its machine allows it to the end."""

from typing import NamedTuple

from machines.session import END_TRIGGER, SESSION, EndReason, VoiceSessionState


class EndMove(NamedTuple):
    """One record of the end: its operation, the state that it tells, and whether it is the final one."""

    operation: str
    state: VoiceSessionState
    final: bool


def end_of_dead_session(state: VoiceSessionState) -> tuple[EndMove, ...]:
    """The records that move a session from `state` to STOPPED, in order; none for one that is STOPPED."""
    moves: list[EndMove] = []
    if state not in {VoiceSessionState.STOPPING, VoiceSessionState.STOPPED}:
        state = SESSION.fire(state, END_TRIGGER[EndReason.RECOVERED])
        moves.append(EndMove("session_stopping", state, final=False))
    if state is VoiceSessionState.STOPPING:
        state = SESSION.fire(state, SESSION.deadlines[state])
        moves.append(EndMove("session_stopped", state, final=True))
    return tuple(moves)
