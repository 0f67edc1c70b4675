"""Messages to the directory, which tells them to those outside."""

from msgspec import Struct

from actors.runtime.mailbox import Ref
from actors.voice.messages.media import Kept
from actors.voice.messages.sessions import Facts
from machines.communication import PolicyVerdict
from machines.session import SessionResult, VoiceSessionState


class Changed(Struct, frozen=True):
    """Directory work: the session is in `state` now, and the record of that state is durable. The end is told even where its
    record can't be durable. A session that crashed halfway through telling tells again.

    `verdict` is the policy's. STOPPED comes with the `result`. `route` is the session's address.
    """

    facts: Facts
    state: VoiceSessionState
    route: Ref | None
    verdict: PolicyVerdict | None = None
    result: SessionResult | None = None


class Closed(Struct, frozen=True, gc=False):
    """Directory work: the session takes no more audio, so its door is to be closed. With `gone` the session has no address any
    more either: its supervisor ends it, and a stop request has only to wait for that end."""

    session_id: str
    gone: bool = False


class Metered(Struct, frozen=True, gc=False):
    """Directory work: audio was measured, and the session has it in its account: frames below the measure's `upto` may be
    called durable where they are on the disk, or declared lost. Listeners get it as an AUDIO_RECEIVED event."""

    session_id: str
    measure: Kept
