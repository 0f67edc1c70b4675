"""A session whose process died at any point of its life, as another process finds it, and as a model of what comes then.

What a dead process leaves is what is durable: the records in the store, and the frames on the disk. `deaths` finds every such
state in the voice service's own model. `resumed_model` begins with one: its caller comes back, or not.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from actors.model.actor_model import ActorModel, Scene
from actors.model.parts import Faults
from actors.voice import messages as m
from actors.voice.call_part import Ports
from actors.voice.supervisor import ChildFailed, Supervisor
from actors.voice_lab.conditions import RANK
from actors.voice_lab.model import PROBE_SECONDS, facts
from actors.voice_lab.parts import FRAME_BYTES, LIMITS, Call, Callers, Media, Record, Records, Speech, Store, Track
from actors.voice_lab.promises import promise
from machines.checker import check
from machines.communication import PolicyVerdict, RequestStatus
from machines.losses import counted
from machines.policy import VoicePolicy
from machines.reasons import PROCESS_DIED
from machines.recovery import ms_to_resume
from machines.session import VoiceSessionState

FACTS = facts(1, recording=True, refused=False)
VERDICT = PolicyVerdict(status=RequestStatus.APPROVED, reason_code="OK", metadata={"risk_level": "low"})
OTHERWISE = (
    "P3 without faults nothing is lost",  # some of it is lost before it begins
    "P4 who is on record has an end on record",  # who is refused has none, and waits on
    "P4 what a port lost, and that it failed, is on record",  # what was lost before is in the record of its resumption
)


class Left(NamedTuple):
    """What is durable: records in order, and of the frames up to `there` on the disk those that are not `lost`."""

    records: tuple[Record, ...]
    there: int = 0
    lost: int = 0

    @property
    def state(self) -> VoiceSessionState:
        """Where evidence has the session."""
        return max([record.state for record in self.records if record.state is not None], key=RANK.__getitem__)

    def resumption(self, first: int) -> m.Resumption:
        """What goes on, when frames from `first` on come again."""
        account = m.Account(first, self.there - self.lost, (self.there - self.lost) * FRAME_BYTES, "sha", ())
        for reason, frames in (("disk_full", self.lost), (PROCESS_DIED, first - self.there)):
            if frames:
                account = _losing(account, reason, frames)
        heard = m.Transcribed("", 0, ((PROCESS_DIED, first),) if first else ())
        return m.Resumption(self.state, len(self.records) + 1, account, heard, 0.0)


def _losing(account: m.Account, reason: str, frames: int) -> m.Account:
    lost = counted(account.lost, reason, frames)
    return m.Account(account.upto, account.kept, account.n_bytes, account.digest, lost)


def deaths(model: ActorModel) -> list[Left]:
    """What is left of a session of `model` that may be resumed, were its process killed in any state that it can be in."""
    found: set[Left] = set()

    def note(store: Records, media: tuple[Track, ...]) -> bool:
        track = media[0] if media else Track("", None)
        for there in range(track.told, track.got + 1):  # the disk may have what nobody was told
            found.add(Left(store.durable, there, track.lost))
        return True

    model.always("it is noted", note, of=["store", "media"])
    assert check(model).complete
    left = [one for one in found if one.records and ms_to_resume(one.state, wished=True, window_ms=1, silent_ms=0)]
    return sorted(left, key=lambda one: (len(one.records), one.there, one.lost, repr(one.records)))


class Returning(Callers):
    """Callers of a session that is left, who come back, or not."""

    def __init__(self, left: Left, first: int, *, frames: int, stops: int) -> None:
        super().__init__((FACTS,), frames=first + frames, stops=stops, in_turn=False)
        self.first = first
        self.resumption = left.resumption(first)

    def initial(self) -> Any:
        """What was let in before is let in."""
        return (Call(FACTS.session_id, sent=self.first),)

    def _next(self, call: Call, facts: m.Facts) -> Iterator[tuple[str, Call, tuple[Any, Any], str]]:
        for label, after, told, fault in super()._next(call, facts):
            if label == "asks":
                token = self.token(("open", call.session_id))
                message = m.ResumeSession(token, facts, VERDICT, self.resumption)
                yield "comes back", after, (self.supervisor, message), fault
            else:
                yield label, after, told, fault


class Home(Store):
    """A store with what is left."""

    def __init__(self, left: Left) -> None:
        super().__init__("store")
        self.left = left

    def initial(self) -> Any:
        """What is durable."""
        return Records(durable=self.left.records)


class Disk(Media):
    """The media port, which carries the recording on."""

    def __init__(self, left: Left, first: int) -> None:
        super().__init__("media")
        self.left, self.first = left, first

    def submit(self, state: Any, work: Any) -> Any:
        """As `MediaPort`: when the session is opened, what is on the disk is carried on."""
        if isinstance(work, m.OpenMedia) and not state:
            left = self.left
            state = (Track(work.session_id, None, self.first, left.there, left.there, left.lost, recording=True),)
        return super().submit(state, work)


def resumed_model(
    left: Left, *, gap: int = 0, frames: int = 1, stops: int = 1, faults: Faults | None = None
) -> ActorModel:
    """What becomes of a session that is `left`, `gap` frames of which can't be sent again; with the promises of the voice
    service, but for those that are `OTHERWISE`, and those that are its own."""
    first = left.there + gap
    callers = Returning(left, first, frames=frames, stops=stops)
    store, media, speech = Home(left), Disk(left, first), Speech("speech")

    def setup(scene: Scene) -> None:
        ports = Ports(*[scene.port(part) for part in (callers, media, speech, store)])
        callers.supervisor = scene.spawn(Supervisor(VoicePolicy(), LIMITS, ports, PROBE_SECONDS), "supervisor")

    model = ActorModel(
        "voice, resumed", setup, parts=[callers, store, media, speech], faults=faults, errors=(ChildFailed,)
    )
    promise(model, (FACTS,))
    total = model.faults.total
    model.always(
        "P3 what was kept before is kept, and all that comes then",
        lambda callers, unused: unused < total or _all_kept(callers[0], left, first),
        of=["callers", "@faults"],
    )
    model.always(
        "P4 who is refused has no end on record, and waits on",
        lambda callers, store: (
            callers[0].answer != "unevidenced" or total > 1 or not any(record.final for record in store.durable)
        ),
        of=["callers", "store"],
    )
    model.always(
        "P4 what a port loses from then on is on record",
        lambda callers, store: (
            callers[0].result is None
            or callers[0].result.frames.dropped.get("disk_full", 0) <= left.lost
            or any(record.operation == "audio_lost" for record in store.durable[len(left.records) :])
        ),
        of=["callers", "store"],
    )
    model.always(
        "P4 it goes on when that is on record",
        lambda callers, store: (
            callers[0].answer != "opened" or any(record.operation == "session_resumed" for record in store.durable)
        ),
        of=["callers", "store"],
    )
    model.sometimes("it goes on", lambda callers: callers[0].told != (), of=["callers"])
    return model


def _all_kept(call: Call, left: Left, first: int) -> bool:
    if call.result is None:
        return True
    frames = call.result.frames
    late = frames.dropped.get("late", 0)
    return (
        frames.accounted == left.there - left.lost + call.sent - first - late
        and frames.accepted == call.sent
        and frames.dropped.get(PROCESS_DIED, 0) == first - left.there
        and frames.transcribed == call.sent - first - late
    )
