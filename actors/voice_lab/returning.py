"""What a simulated caller goes on with that comes back after the death of a process: the account of its session up to there.

Known is what is on record, and of a recording what is on the disk, which may be more. What is known to nobody is sent again as
far as the caller has it, and is declared as lost behind that.
"""

from typing import Final, NamedTuple

from actors.simulation.plan import Chance
from actors.voice import messages as m
from actors.voice_lab.journal import Left
from actors.voice_lab.parts import FRAME_BYTES, Track
from machines.communication import PolicyVerdict, RequestStatus
from machines.losses import counted, total
from machines.reasons import PROCESS_DIED

APPROVED: Final = PolicyVerdict(status=RequestStatus.APPROVED, reason_code="OK", metadata={"risk_level": "low"})
UNSYNCED_FRAMES: Final = 250  # of a recording, that a power cut may take


class OnDisk(NamedTuple):
    """Of a recording: the frames that were written, the number behind the last of them, and how many below that its port has
    lost or never got."""

    written: int
    upto: int
    missing: int = 0


def on_disk(track: Track, chance: Chance, *, power: bool) -> OnDisk:
    """What a death leaves of a recording: all that was told of, and any part of what was not."""
    written = chance.between(track.told, track.got) - track.lost
    if power:
        written = chance.between(max(0, written - UNSYNCED_FRAMES), written)
    missing = track.lost + track.upto - track.got
    return OnDisk(written, track.upto - (track.got - track.lost - written), missing)


def resumption(left: Left, found: OnDisk | None, first: int, age_ms: int) -> m.Resumption:
    """What the session begins with; frames from `first` on can be sent again. `found` is None without a recording."""
    account = left.account
    lost, kept = account.lost, account.kept
    accepted = max(account.upto, kept + total(lost))
    if found is not None:
        accepted = max(accepted, found.upto)
        kept = max(0, min(found.written, accepted - total(lost)))
    accepted = max(accepted, first)
    missing = accepted - kept - total(lost)
    if missing:
        lost = counted(lost, PROCESS_DIED, missing)
    account = m.Account(accepted, kept, kept * FRAME_BYTES, f"sha of {kept}", lost)
    heard = m.Transcribed("", 0, ((PROCESS_DIED, accepted),) if accepted else ())
    return m.Resumption(left.state, left.number, account, heard, age_ms / 1000, account.detail())
