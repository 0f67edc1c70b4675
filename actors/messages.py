"""What the voice actors say to each other, and to and from their ports.

Every message is frozen and names the lane it travels in. Audio bytes are never in a message: frames are named by number
and count, and the ports find the bytes. A run of frames travels as one message.
"""

from typing import Any, ClassVar

from msgspec import Struct

from actors.mailbox import AUDIO, CONTROL, SYSTEM
from machines.audio import AudioFormat
from machines.communication import PolicyVerdict, RequestStatus
from machines.events import VoiceEventType
from machines.evidence import record_id
from machines.recording import RecordingInfo
from machines.session import (
    AudioMismatch,
    EndReason,
    SessionResult,
    STTProvider,
    VoiceProvider,
    VoiceSessionState,
)

# --- audio ---------------------------------------------------------------------------------------------------------


class Frames(Struct, frozen=True, gc=False):
    """`count` frames from number `first` on are at the door: `n_bytes` in all, arrived at `at_ms` (monotonic).

    The first audio of a session may be less than a frame; then `count` is 0. `skipped` are the frames right before that were
    never to come, by reason.
    """

    lane: ClassVar[int] = AUDIO
    first: int
    count: int
    n_bytes: int
    at_ms: int
    skipped: tuple[tuple[str, int], ...] = ()


class Mismatched(Struct, frozen=True, gc=False):
    """So much audio came in so much time, by the clock of its capture, in milliseconds; `reason` says whether that is too much
    or too little. It travels behind the audio."""

    lane: ClassVar[int] = AUDIO
    reason: str
    audio_ms: int
    media_ms: int


class Drain(Struct, frozen=True, gc=False):
    """No more frames follow: finish what was handed over, then say so. It travels behind the audio."""

    lane: ClassVar[int] = AUDIO


# --- the recorder and its port -------------------------------------------------------------------------------------


class OpenMedia(Struct, frozen=True):
    """Port work: begin the account of a session's audio, and its recording when `recording` is set. One that can't be slowed
    goes on whatever waits; where `voices` is set, frames with voice are looked for."""

    session_id: str
    audio_format: AudioFormat
    recording: bool
    reply_to: Any
    can_be_slowed: bool = True
    voices: bool = False


class Keep(Struct, frozen=True, gc=False):
    """Port work: digest, measure and, when recording, write `count` frames from `first` on."""

    session_id: str
    first: int
    count: int


class CloseMedia(Struct, frozen=True, gc=False):
    """Port work: all frames were handed over; close the recording and tell the account."""

    session_id: str


class Kept(Struct, frozen=True, gc=False):
    """Port fact: every frame below `upto` is dealt with. Since the last such fact: `frames` kept, their mean square and peak
    (full scale 1.0), clipped and silent frames, and `voiced` ones, where these are looked for, of those that the disk refused
    too. Since the beginning of the call, so that no fact which is set aside is missed in the account: frames `kept`,
    `n_bytes`, and the running SHA-256, `digest`."""

    lane: ClassVar[int] = CONTROL
    upto: int
    frames: int
    mean_square: float
    peak: float
    clipped: int
    silent: int
    kept: int
    n_bytes: int
    digest: str
    voiced: int = 0


class MediaLost(Struct, frozen=True, gc=False):
    """Port fact: `count` frames from `first` on could not be kept, for `reason`; silence stands in their place."""

    lane: ClassVar[int] = CONTROL
    first: int
    count: int
    reason: str


class MediaClosed(Struct, frozen=True):
    """Port fact, the last one: the recording is closed (`recording` is None when none was made)."""

    lane: ClassVar[int] = CONTROL
    recording: RecordingInfo | None
    digest: str


class MediaSilent(Struct, frozen=True, gc=False):
    """Port fact: the port gives no sign of life. Who closes need not wait for it; who goes on may: no audio is lost yet."""

    lane: ClassVar[int] = CONTROL


# --- the transcriber and its port ----------------------------------------------------------------------------------


class Word(Struct, frozen=True):
    """A recognised word with its place in the call, in milliseconds of media time; confidence is 0 to 1 where known."""

    text: str
    start_ms: int
    end_ms: int
    confidence: float | None = None


class Listen(Struct, frozen=True):
    """Port work: begin to transcribe a session with `engine`."""

    session_id: str
    engine: STTProvider
    audio_format: AudioFormat
    reply_to: Any


class Hear(Struct, frozen=True, gc=False):
    """Port work: transcribe `count` frames from `first` on."""

    session_id: str
    first: int
    count: int


class Finish(Struct, frozen=True, gc=False):
    """Port work: no more audio; tell the last words, then `Finished`."""

    session_id: str


class Abandon(Struct, frozen=True, gc=False):
    """Port work: forget the session at once; nothing more is told about it."""

    session_id: str


class Heard(Struct, frozen=True, gc=False):
    """Port fact: the engine has taken every frame below `upto` that was not declared lost, `frames` of them since the last such
    fact."""

    lane: ClassVar[int] = CONTROL
    upto: int
    frames: int


class Partial(Struct, frozen=True, gc=False):
    """Port fact: what the current utterance looks like so far. It may still change."""

    lane: ClassVar[int] = CONTROL
    text: str


class Utterance(Struct, frozen=True):
    """Port fact: a finished utterance, with word times where the engine has them; and what is `heard` with it, so that no
    account has words without their frames."""

    lane: ClassVar[int] = CONTROL
    text: str
    start_ms: int
    end_ms: int
    words: tuple[Word, ...] = ()
    heard: Heard | None = None


class Unheard(Struct, frozen=True, gc=False):
    """Port fact: `count` frames from `first` on will not be transcribed, for `reason` (worker_died, worker_hung, …)."""

    lane: ClassVar[int] = CONTROL
    first: int
    count: int
    reason: str


class Finished(Struct, frozen=True, gc=False):
    """Port fact, the last one: every frame is accounted for as heard or unheard and every utterance has been told."""

    lane: ClassVar[int] = CONTROL


class SpeechSilent(Struct, frozen=True, gc=False):
    """Port fact: the port, or the worker that has this session, gives no sign of life (`reason` says which). Who finishes need
    not wait for it; who goes on may: no audio is lost yet."""

    lane: ClassVar[int] = CONTROL
    reason: str


# --- what the parts tell their session -----------------------------------------------------------------------------


class Spoken(Struct, frozen=True, gc=False):
    """Transcriber to session: words were heard just now, in an utterance that goes on. Told where silence ends the call."""

    lane: ClassVar[int] = CONTROL


class PortFailed(Struct, frozen=True, gc=False):
    """Recorder or transcriber to session: `port` ("media" or "speech") stopped answering, for `reason`."""

    lane: ClassVar[int] = CONTROL
    port: str
    reason: str


class AudioLost(Struct, frozen=True, gc=False):
    """Recorder or transcriber to session: `count` frames from `first` on did not get through `port` ("media" or "speech"), for
    `reason`."""

    lane: ClassVar[int] = CONTROL
    port: str
    first: int
    count: int
    reason: str


class Account(Struct, frozen=True, gc=False):
    """Recorder to session: of the frames below `upto`, `kept` were accounted for (`n_bytes`, running `digest`); those in
    `lost` were not, by reason."""

    lane: ClassVar[int] = CONTROL
    upto: int
    kept: int
    n_bytes: int
    digest: str
    lost: tuple[tuple[str, int], ...]


class Counted(Struct, frozen=True, gc=False):
    """Recorder to session: its account so far; `due` is set when that is to go into evidence."""

    lane: ClassVar[int] = CONTROL
    account: Account
    due: bool


class Recorded(Struct, frozen=True):
    """Recorder to session, the last one: the final account and the closed recording."""

    lane: ClassVar[int] = CONTROL
    account: Account
    recording: RecordingInfo | None


class Transcribed(Struct, frozen=True, gc=False):
    """Transcriber to session, the last one: the whole text, frames heard, and frames not heard by reason."""

    lane: ClassVar[int] = CONTROL
    text: str
    heard: int
    unheard: tuple[tuple[str, int], ...]


class Settled(Struct, frozen=True):
    """Transcriber to session: what is settled so far. `news` is what came of it, for those who listen: the session passes it on
    once it has this in its account, so that no end can say less than they heard. `spoken` is set when words are among it."""

    lane: ClassVar[int] = CONTROL
    transcribed: Transcribed
    news: "Emit | None" = None
    spoken: bool = False


class Levels(Struct, frozen=True, gc=False):
    """Sums over the frames that were measured: `energy` of mean squares, the `peak`, clipped and silent frames; and the longest
    pause from one arrival to the next."""

    frames: int = 0
    energy: float = 0.0
    peak: float = 0.0
    clipped: int = 0
    silent: int = 0
    pause_ms: int = 0


class Measured(Struct, frozen=True):
    """Quality to session: how the audio was so far, and the measure that came last, of which the session tells those who listen
    once it has this in its account."""

    lane: ClassVar[int] = CONTROL
    levels: Levels
    measure: Kept


class Assessed(Struct, frozen=True, gc=False):
    """Quality to session, the last one: how all of the audio was."""

    lane: ClassVar[int] = CONTROL
    levels: Levels


# --- a session: asked for, judged, opened, ended -------------------------------------------------------------------


class Facts(Struct, frozen=True):
    """What is fixed about a session when it is asked for. Ids and chance are made by whoever asks.

    `can_be_slowed` is False where audio comes in real time whatever we do.
    `secret` is the unguessable part of its evidence ids; `stt_engine` is what will run (None: record only) and
    `fallback` says so when that is not what was asked. `metadata` is a frozen JSON object without any token.
    `silence_seconds` is how long nobody may speak before it ends; None: for ever.
    """

    session_id: str
    project_id: str
    provider: VoiceProvider
    stt_provider: STTProvider
    stt_engine: STTProvider | None
    fallback: str
    audio_format: AudioFormat
    recording: bool
    metadata: Any
    audit_trace_id: str
    secret: str
    admin_token_valid: bool | None  # None: none was given
    created_at_ms: int
    can_be_slowed: bool = True
    resumable: bool = False
    silence_seconds: float | None = None


class Resumption(Struct, frozen=True):
    """What is durable of a session whose process died, and what another process goes on with.

    `state` is where evidence has it, `number` that of its next record. `account` says what became of its frames: those below
    `upto` are not expected again. `heard` is its transcript so far. `age_seconds` is the time since it was asked for. `detail`
    goes into the record of its resumption. `mismatches` of audio and clock are on record.
    """

    state: VoiceSessionState
    number: int
    account: Account
    heard: Transcribed
    age_seconds: float
    detail: tuple[tuple[str, Any], ...] = ()
    mismatches: tuple[AudioMismatch, ...] = ()


class OpenSession(Struct, frozen=True):
    """To the supervisor: open this session, and reply `Opened`, `Denied` or `Unevidenced` to `token`."""

    lane: ClassVar[int] = CONTROL
    token: Any
    facts: Facts


class ResumeSession(Struct, frozen=True):
    """To the supervisor: go on with this session, which has its verdict, and reply `Opened` or `Unevidenced` to `token`."""

    lane: ClassVar[int] = CONTROL
    token: Any
    facts: Facts
    verdict: PolicyVerdict
    resumption: Resumption


class Unawaited(Struct, frozen=True, gc=False):
    """To the supervisor: nobody waits for the answer about this session any more. If nothing is known of it, because its
    request was set aside as a dead letter, the directory is told `Closed`."""

    lane: ClassVar[int] = CONTROL
    session_id: str


class Evaluate(Struct, frozen=True):
    """To the policy actor: judge this request and tell `Judged` to `reply_to`."""

    lane: ClassVar[int] = CONTROL
    facts: Facts
    reply_to: Any


class Judged(Struct, frozen=True):
    """The policy's verdict on a request."""

    lane: ClassVar[int] = CONTROL
    session_id: str
    verdict: PolicyVerdict


class Opened(Struct, frozen=True, gc=False):
    """Reply: the session exists and its creation is durable."""

    session_id: str


class Denied(Struct, frozen=True):
    """Reply: the policy refused, and the refusal is durable. No session was made."""

    verdict: PolicyVerdict


class Unevidenced(Struct, frozen=True, gc=False):
    """Reply: the evidence store did not take the record, so the request is refused."""

    error: str


class Routes(Struct, frozen=True):
    """Supervisor to session: where policy and evidence are now. `epoch` grows with each change; an older one is void."""

    lane: ClassVar[int] = CONTROL
    epoch: int
    policy: Any
    evidence: Any


class Stop(Struct, frozen=True):
    """End the session, for `reason`. Frames below `upto` were accepted before and still belong to it; so do the `skipped` ones
    behind them, of which it is known, by reason, that they never come.

    `token`, where given, gets `Ended` when the session is STOPPED.
    """

    lane: ClassVar[int] = SYSTEM
    reason: EndReason
    upto: int
    token: Any = None
    skipped: tuple[tuple[str, int], ...] = ()


class Fail(Struct, frozen=True):
    """Supervisor to session: it crashed too often, or on being stopped; end as failed. `tokens` wait for the end."""

    lane: ClassVar[int] = SYSTEM
    error: str
    tokens: tuple[Any, ...] = ()


class Ended(Struct, frozen=True, gc=False):
    """Reply: the session is STOPPED. `durable` is False when its final record is not in the store; `spilled` tells whether
    it is safe in the spill file."""

    session_id: str
    durable: bool
    spilled: bool


# --- evidence ------------------------------------------------------------------------------------------------------


class Draft(Struct, frozen=True):
    """An evidence record before it is stamped: whoever stores it adds the time.

    `number` counts the records of one session from 1 and makes the record's id, so that sending it twice stores it once.
    The final record of a session has its own name instead, so that there can only be one. `state` is where the session
    stands with this record (None: no session was made), `detail` what came of the operation.

    With a `refusal` it stands for a record that the store could not write, which says why: what can't be written in this
    one is left out.
    """

    facts: Facts
    number: int
    operation: str
    status: RequestStatus
    verdict: PolicyVerdict | None = None
    state: VoiceSessionState | None = None
    detail: tuple[tuple[str, Any], ...] = ()
    result: SessionResult | None = None
    refusal: str = ""

    @property
    def record_id(self) -> str:
        """`ev-…`, the same for the same record of the same session."""
        return record_id(self.facts.secret, None if self.result is not None else self.number)


class Commit(Struct, frozen=True):
    """To the evidence actor: store this record and tell `owner` `Durable` or `NotDurable`."""

    lane: ClassVar[int] = CONTROL
    owner: Any
    draft: Draft


class Durable(Struct, frozen=True, gc=False):
    """The record with this number is in the store, or was already."""

    lane: ClassVar[int] = CONTROL
    number: int


class NotDurable(Struct, frozen=True, gc=False):
    """The record with this number is not in the store, because of `error`. `perhaps` is set when it may still get there,
    `refused` when it can never be stored as it is, though the store is well."""

    lane: ClassVar[int] = CONTROL
    number: int
    error: str
    perhaps: bool
    refused: bool = False


class Spill(Struct, frozen=True):
    """To the evidence actor: put these records into the spill file; tell `owner` `Spilled`."""

    lane: ClassVar[int] = CONTROL
    owner: Any
    drafts: tuple[Draft, ...]


class Spilled(Struct, frozen=True, gc=False):
    """The records are in the spill file (`ok`), or could not be put there."""

    lane: ClassVar[int] = CONTROL
    ok: bool


class EvidenceBack(Struct, frozen=True, gc=False):
    """Evidence to supervisor: the store takes records again."""

    lane: ClassVar[int] = CONTROL


class Append(Struct, frozen=True):
    """Port work: append the record; tell `Stored` or `NotStored` with the ticket `(owner, number)`."""

    owner: Any
    draft: Draft
    reply_to: Any


class SpillWork(Struct, frozen=True):
    """Port work: put the records into the spill file; tell `SpillDone`."""

    owner: Any
    drafts: tuple[Draft, ...]
    reply_to: Any


class Probe(Struct, frozen=True):
    """Port work: try whether the store can be written; tell `Probed`."""

    reply_to: Any


Ticket = tuple[Any, int]


class Stored(Struct, frozen=True):
    """Port fact: these records are durable."""

    lane: ClassVar[int] = CONTROL
    tickets: tuple[Ticket, ...]


class NotStored(Struct, frozen=True):
    """Port fact: these records are not in the store. `store_down` is False when the records themselves were refused."""

    lane: ClassVar[int] = CONTROL
    tickets: tuple[Ticket, ...]
    error: str
    store_down: bool


class SpillDone(Struct, frozen=True):
    """Port fact: the records of `owner` are spilled, or not."""

    lane: ClassVar[int] = CONTROL
    owner: Any
    ok: bool


class Probed(Struct, frozen=True, gc=False):
    """Port fact: the store can be written, or not."""

    lane: ClassVar[int] = CONTROL
    ok: bool


# --- what the outside is told --------------------------------------------------------------------------------------


class Changed(Struct, frozen=True):
    """Directory work: the session is in `state` now, and the record of that is durable; the end is told even when it can't be.
    After a crash halfway through telling it, it is told again.

    `verdict` is the policy's, `result` comes with the last one. `route` is the session's address.
    """

    facts: Facts
    state: VoiceSessionState
    route: Any
    verdict: PolicyVerdict | None = None
    result: SessionResult | None = None


class Closed(Struct, frozen=True, gc=False):
    """Directory work: the session takes no more audio; its door is closed. With `gone` it has no address any more either: its
    supervisor ends it, and who wants to stop it has only to wait for that."""

    session_id: str
    gone: bool = False


class Emit(Struct, frozen=True):
    """Directory work: a `VoiceEvent` of this type for those who listen."""

    session_id: str
    event_type: VoiceEventType
    payload: tuple[tuple[str, Any], ...] = ()


class Metered(Struct, frozen=True, gc=False):
    """Directory work: audio was measured, and the session has it in its account: frames below the measure's `upto` may be
    called durable where they are on the disk, or declared lost. It is an AUDIO_RECEIVED event when somebody listens."""

    session_id: str
    measure: Kept
