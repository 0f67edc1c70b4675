"""Messages to the directory, which tells them to those outside."""

from msgspec import Struct

from actors.runtime.mailbox import Ref
from actors.voice.messages.media import Kept
from actors.voice.messages.sessions import Facts
from machines.communication import PolicyVerdict
from machines.session import SessionResult, VoiceSessionState


class Changed(Struct, frozen=True):
    """Directory work: the session is in `state` now, and the record of that is durable; the end is told even when it can't be.
    After a crash halfway through telling it, it is told again.

    `verdict` is the policy's, `result` comes with the last one. `route` is the session's address.
    """

    facts: Facts
    state: VoiceSessionState
    route: Ref | None
    verdict: PolicyVerdict | None = None
    result: SessionResult | None = None


class Closed(Struct, frozen=True, gc=False):
    """Directory work: the session takes no more audio; its door is closed. With `gone` it has no address any more either: its
    supervisor ends it, and who wants to stop it has only to wait for that."""

    session_id: str
    gone: bool = False


class Metered(Struct, frozen=True, gc=False):
    """Directory work: audio was measured, and the session has it in its account: frames below the measure's `upto` may be
    called durable where they are on the disk, or declared lost. It is an AUDIO_RECEIVED event when somebody listens."""

    session_id: str
    measure: Kept
