"""What became of the frames of a running session, for one who brings its audio and keeps it until it is safe."""

from collections.abc import Callable
from typing import NamedTuple

from agentos.core.communication.voice.running.resources import MEDIA, ServiceResources
from agentos.core.communication.voice.sessions.door import Door
from machines.losses import Losses, Lost
from machines.session import VoiceSession


class Fate(NamedTuple):
    """What became of a session's frames: those below `durable` will not be asked for again, and `lost` are lost for good.
    `durable` is None where the session's audio is kept nowhere."""

    durable: int | None
    lost: tuple[Lost, ...]


def fates_of(
    resources: ServiceResources, session: VoiceSession, door: Door, *, resumable: bool
) -> Callable[[int], Fate]:
    """Asks what became of the frames of a running session; of losses below the frame that it is asked with nothing is said.

    A recording has those that are written, since the kernel has them; but only those count that the session has in its account,
    so that no end of it declares them lost. Without one, those count as durable that the last account in evidence has, in a
    session that another process may go on with (`resumable`): nobody asks for them again. Otherwise its audio is kept nowhere.
    """
    session_id, recorded = session.session_id, session.recording_enabled
    media, directory, accounted_below = resources.media, resources.directory, resources.store_port.accounted_below
    losses: Losses | None = None

    def fate(known: int) -> Fate:
        nonlocal losses
        losses = losses or media.losses(session_id)  # after the end of its work the port has forgotten the session
        if losses is None:
            return Fate(0 if recorded or resumable else None, ())
        astray = door.astray(MEDIA)
        settled = min(directory.accounted_below(session_id), losses.known_below, astray.known_below)
        durable = settled if recorded else min(settled, accounted_below(session_id)) if resumable else None
        lost, more = losses.between(known, settled), astray.between(known, settled)
        return Fate(durable, tuple(sorted((*lost, *more))) if more else lost)

    return fate
