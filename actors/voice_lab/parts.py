"""What is around the voice actors in their model: callers with the directory, the store, and the two audio ports.

They keep to the protocol of the real ones, and to their promises: frames are known by number and kept once, a record that comes
twice is stored once, a piece of work that was taken is answered once or, by a fault, never. What they may do wrong is
named as a fault, so that the model's budget decides how much of it happens.

The door of a call (where `LocalProvider`'s audio comes in) is opened by the news that the session exists and closed by the
actors' word; it belongs to `Callers`, with those who ask, speak and stop.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from msgspec.structs import replace

from actors.model.parts import Answer, Choice, Part
from actors.runtime.mailbox import Ref
from actors.voice import messages as m
from actors.voice.session import SessionLimits
from machines.events import VoiceEventType
from machines.reasons import DISK_FULL, SPEECH_SILENT, WORKER_DIED
from machines.recording import RecordingInfo, RecordingState
from machines.restart import Intensity
from machines.session import (
    EndReason,
    SessionResult,
    VoiceSessionState,
)

FRAME_BYTES = 640
FRAME_MS = 20
SILENCE_SECONDS = 20.0  # of a call that silence ends: before it is idle
LIMITS = SessionLimits(
    drain_seconds=10.0,
    evidence_seconds=2.0,
    idle_seconds=30.0,
    max_seconds=600.0,
    account_frames=1,
    restarts=Intensity(3, 30.0),
)


class Listened(NamedTuple):
    """What those who listen to a call were told: finished utterances in order, how many frames they last, how many frames were
    measured, the highest peak of these, and whether `voice` was among them. The frames below `durable` were acknowledged to the
    one who speaks."""

    finals: tuple[str, ...] = ()
    spoken: int = 0
    measured: int = 0
    peak: float = 0.0
    durable: int = 0
    voice: bool = False

    def told(self, news: m.Emit | m.Metered) -> "Listened":
        """With this, if it is something that a result speaks of."""
        if isinstance(news, m.Metered):
            measure = news.measure
            return Listened(
                self.finals,
                self.spoken,
                self.measured + measure.frames,
                max(self.peak, measure.peak),
                max(self.durable, measure.upto),
                self.voice or measure.voiced > 0,
            )
        said = dict(news.payload)
        if news.event_type is VoiceEventType.STT_FINAL:
            frames = (said["end_ms"] - said["start_ms"]) // FRAME_MS
            return self._replace(finals=(*self.finals, said["text"]), spoken=self.spoken + frames)
        return self


Told = Answer | m.Changed | m.Closed
"""News of a call: an answer to an ask, a state of the call, or the word to close its door."""

NOTHING_TOLD = Listened()


class Call(NamedTuple):
    """One session as callers and directory know it.

    `answer` is what the asking came to ("opened", "denied", "unevidenced"). `told` are the states that the directory was told,
    each once; `closed` is set by the word to close the door, `route` is where audio goes, and stops. `sent` frames were let in,
    `owed` of them before the first stop; `stops` were asked for, `cancels` of them by the host and `vanished` for a caller that
    was gone, and `ended` has for each answered one as what the end was told: "durable", "spilled" or "lost". Who asked may be
    `gone` before there is an answer. `heard` is what listeners were told. Its audio may not fit its clock: the door has told
    that once, when it is `mismatched`.
    """

    session_id: str
    asked: bool = False
    answer: str = ""
    told: tuple[VoiceSessionState, ...] = ()
    route: Ref | None = None
    open: bool = False
    closed: bool = False
    sent: int = 0
    owed: int = 0
    stops: int = 0
    cancels: int = 0
    vanished: int = 0
    ended: tuple[str, ...] = ()
    result: SessionResult | None = None
    gone: bool = False
    heard: "Listened" = NOTHING_TOLD
    mismatched: bool = False

    @property
    def over(self) -> bool:
        """Whether this call has come to its end, and all who waited for that know it."""
        if not self.asked or self.answer in {"denied", "unevidenced"}:
            return not self.open
        return self.told[-1:] == (VoiceSessionState.STOPPED,) and not self.open and len(self.ended) == self.stops


class Callers(Part):
    """Those who ask for sessions, speak, and stop them; and the directory, from which they learn what became of it."""

    faults = ("cancel", "clock")

    def __init__(self, calls: tuple[m.Facts, ...], *, frames: int, stops: int, in_turn: bool) -> None:
        super().__init__("callers")
        self.calls = calls
        self.frames = frames
        self.stops = stops
        self.in_turn = in_turn
        self.supervisor: Ref | None = None

    def initial(self) -> tuple[Call, ...]:
        """Nobody has asked yet."""
        return tuple([Call(facts.session_id) for facts in self.calls])

    def submit(self, state: tuple[Call, ...], work: Told | m.Emit | m.Metered) -> tuple[Call, ...]:
        """News for the directory, or the answer to an ask."""
        if isinstance(work, m.Emit | m.Metered):
            call = call_of(state, work.session_id)
            heard = call.heard.told(work)
            return state if heard is call.heard else _changed(state, work.session_id, call._replace(heard=heard))
        if isinstance(work, Answer):
            session_id = work.key[1]
        else:
            session_id = work.session_id if isinstance(work, m.Closed) else work.facts.session_id
        return _changed(state, session_id, informed(call_of(state, session_id), work))

    def choices(self, state: tuple[Call, ...]) -> Iterable[Choice]:
        """Ask, speak, stop; the host may cancel, once and again. In turn, nobody asks while another call runs."""
        earlier: list[Call] = []
        for call, facts in zip(state, self.calls, strict=True):
            if (
                self.in_turn
                and not call.asked
                and not all(other.over if other.told else other.asked for other in earlier)
            ):
                return
            earlier.append(call)
            for label, after, tells, fault in self._next(call, facts):
                text = f"{label} ({call.session_id})" if len(state) > 1 else label
                yield Choice(text, _changed(state, call.session_id, after), (tells,), fault=fault, fair=False)

    def _next(self, call: Call, facts: m.Facts) -> Iterator[tuple[str, Call, tuple[Ref | None, object], str]]:
        session_id = call.session_id
        if not call.asked:
            message = m.OpenSession(self.token(("open", session_id)), facts)
            yield "asks", call._replace(asked=True), (self.supervisor, message), ""
        elif not (call.answer or call.told or call.gone):
            unawaited = m.Unawaited(session_id)
            yield "waits no longer", call._replace(gone=True), (self.supervisor, unawaited), "cancel"
        if call.open and call.sent < self.frames:
            frames = m.Frames(call.sent, 1, FRAME_BYTES, 20 * call.sent)
            yield "speaks", call._replace(sent=call.sent + 1), (call.route, frames), ""
        if call.open and not call.mismatched:
            mismatched = m.Mismatched("too_much_audio", 2_000, 1_000)
            yield "has another clock", call._replace(mismatched=True), (call.route, mismatched), "clock"
        if call.route is None or call.told[-1:] == (VoiceSessionState.STOPPED,):
            return
        token = self.token(("stop", session_id, call.stops))
        owed = call.owed if call.stops else call.sent
        if call.stops - call.cancels < self.stops:
            stop = m.Stop(EndReason.STOPPED, call.sent, token)
            yield "stops", call._replace(stops=call.stops + 1, owed=owed), (call.route, stop), ""
        if call.cancels < 2:
            stop = m.Stop(EndReason.SHUTDOWN, call.sent, token)
            after = call._replace(stops=call.stops + 1, cancels=call.cancels + 1, owed=owed)
            yield ("is cancelled again" if call.cancels else "is cancelled"), after, (call.route, stop), "cancel"


def informed(call: Call, work: Told) -> Call:
    """The call after news of it: an answer to an ask, the word to close its door, or a state that it is in."""
    if isinstance(work, Answer):
        if work.key[0] == "stop":
            told = "durable" if work.value.durable else "spilled" if work.value.spilled else "lost"
            return call._replace(ended=(*call.ended, told))
        return call._replace(answer=type(work.value).__name__.lower())
    if isinstance(work, m.Closed):
        return call._replace(open=False, closed=True, route=None if work.gone else call.route)
    if work.state is VoiceSessionState.STOPPED:
        call = call._replace(open=False, result=call.result or work.result)
    else:
        still_open = not call.closed and work.state is not VoiceSessionState.STOPPING
        call = call._replace(route=work.route, open=still_open)
    return call if call.told[-1:] == (work.state,) else call._replace(told=(*call.told, work.state))


def call_of(state: tuple[Call, ...], session_id: str) -> Call:
    """The call with this id."""
    return next(call for call in state if call.session_id == session_id)


def _changed(state: tuple[Call, ...], session_id: str, after: Call) -> tuple[Call, ...]:
    return tuple([after if call.session_id == session_id else call for call in state])


class Record(NamedTuple):
    """A record as the store has it: whose, which, and what it says the state is."""

    session_id: str
    record_id: str
    operation: str
    state: VoiceSessionState | None
    final: bool


class Records(NamedTuple):
    """The store: what is durable in order, what is spilled and whose could not be, which records can't be stored as they are,
    what waits, and whether it is "up", "down" or "silent"."""

    durable: tuple[Record, ...] = ()
    spilled: tuple[Record, ...] = ()
    unspilled: tuple[str, ...] = ()
    refused: tuple[Record, ...] = ()
    waiting: tuple[Any, ...] = ()
    condition: str = "up"


class Store(Part):
    """The evidence store: it answers in the order of the work, may fail or fall silent, and may come back.

    It may also refuse one record that it can't write (the fault "record"), and then always does.
    """

    faults = ("store", "spill", "record")

    def initial(self) -> Records:
        """Empty, and up."""
        return Records()

    def submit(self, state: Records, work: m.Append | m.SpillWork | m.Probe) -> Records:
        """Behind what waits."""
        return state._replace(waiting=(*state.waiting, work))

    def choices(self, state: Records) -> Iterable[Choice]:
        """Answer the oldest piece of work, or fail."""
        if state.condition != "up":
            yield Choice("is back", state._replace(condition="up"), fair=False)
        for at, work in enumerate(state.waiting):
            if isinstance(work, m.SpillWork):  # goes into a file beside the store, whatever the store does
                rest = (*state.waiting[:at], *state.waiting[at + 1 :])
                new = tuple([record for draft in work.drafts if (record := record_of(draft)) not in state.spilled])
                spilled = state._replace(waiting=rest, spilled=(*state.spilled, *new))
                done = m.SpillDone(work.owner, ok=True)
                yield Choice("spills", spilled, ((work.reply_to, done),), prompt=True)
                failed = m.SpillDone(work.owner, ok=False)
                unspilled = state._replace(waiting=rest, unspilled=(*state.unspilled, owner_of(work)))
                yield Choice("can't spill", unspilled, ((work.reply_to, failed),), fault="spill")
                yield Choice("never spills", unspilled, fault="spill")
                return
        if state.condition == "up" and any(not _is_in(state.durable, record) for record in state.spilled):
            durable = state.durable
            for record in state.spilled:
                durable = durable if _is_in(durable, record) else (*durable, record)
            yield Choice("takes in what was spilled", state._replace(durable=durable), fair=False)
        if not state.waiting or state.condition == "silent":
            return
        work, rest = state.waiting[0], state.waiting[1:]
        if isinstance(work, m.Probe):
            probed = m.Probed(ok=state.condition == "up")
            yield Choice("answers the probe", state._replace(waiting=rest), ((work.reply_to, probed),), prompt=True)
            return
        if state.condition == "up":
            record = record_of(work.draft)
            if not work.draft.refusal and all(known.record_id != record.record_id for known in state.durable):
                bad = record in state.refused
                unwritable = m.NotStored(((work.owner, work.draft.number),), "not JSON", store_down=False)
                known = state.refused if bad else (*state.refused, record)
                after = state._replace(waiting=rest, refused=known)
                label = f"can't write {record.operation}{', again' if bad else ''}"
                tells = ((work.reply_to, unwritable),)
                yield Choice(label, after, tells, fault="" if bad else "record", prompt=bad)
                if bad:
                    return
            durable = state.durable
            if not _is_in(durable, record):
                durable = (*durable, record)
            answer = m.Stored(((work.owner, work.draft.number),))
            after = state._replace(waiting=rest, durable=durable)
            yield Choice(f"stores {record.operation}", after, ((work.reply_to, answer),), prompt=True)
            unanswered = state._replace(waiting=rest, durable=durable, condition="silent")
            yield Choice(f"stores {record.operation} and falls silent", unanswered, fault="store")
            yield Choice("falls silent", state._replace(condition="silent"), fault="store")
        refused = m.NotStored(((work.owner, work.draft.number),), "disk full", store_down=True)
        after = state._replace(waiting=rest, condition="down")
        fault = "store" if state.condition == "up" else ""
        yield Choice(
            "refuses" if fault else "refuses again", after, ((work.reply_to, refused),), fault=fault, prompt=not fault
        )


def _is_in(durable: tuple[Record, ...], record: Record) -> bool:
    """Whether a store has a record, or the last one of its session, behind which nothing is stored."""
    return any(
        known.record_id == record.record_id or (known.final and known.session_id == record.session_id)
        for known in durable
    )


def owner_of(work: m.SpillWork) -> str:
    """The session whose records are to be spilled."""
    return str(work.owner.name)  # a session's actor has the session's name


def record_of(draft: m.Draft) -> Record:
    """A draft as promises look at it."""
    return Record(draft.facts.session_id, draft.record_id, draft.operation, draft.state, draft.result is not None)


class Track(NamedTuple):
    """One session's audio at a port: where its facts go, `got` frames below `upto` taken, `told` of them answered for, `lost`
    of these not kept; whether the end was asked for, and whether the port has fallen silent, whether that was `noticed`, and is
    still to be said to who `asks` for the end."""

    session_id: str
    reply_to: Ref | None
    upto: int = 0
    got: int = 0
    told: int = 0
    lost: int = 0
    ending: bool = False
    silent: bool = False
    noticed: bool = False
    asks: bool = False
    over: bool = False
    recording: bool = False


class _AudioPort(Part):
    """What the media and the speech-to-text port have in common: a track for each session, frames known by number."""

    def initial(self) -> tuple[Track, ...]:
        """No tracks."""
        return ()

    def _with(self, state: tuple[Track, ...], track: Track) -> tuple[Track, ...]:
        rest = [other for other in state if other.session_id != track.session_id]
        return tuple(sorted([*rest, track], key=lambda one: one.session_id))

    def _track(self, state: tuple[Track, ...], session_id: str) -> Track | None:
        return next((track for track in state if track.session_id == session_id), None)

    def _taken(self, state: tuple[Track, ...], work: m.Keep | m.Hear) -> tuple[Track, ...]:
        track = self._track(state, work.session_id)
        if track is None or track.ending:
            return state
        upto = max(track.upto, work.first + work.count)
        new = upto - max(track.upto, work.first)
        return self._with(state, track._replace(upto=upto, got=track.got + new)) if new > 0 else state

    def _opened(self, state: tuple[Track, ...], work: m.OpenMedia | m.Listen, *, recording: bool) -> tuple[Track, ...]:
        track = self._track(state, work.session_id) or Track(work.session_id, None, recording=recording)
        return state if track.over else self._with(state, track._replace(reply_to=work.reply_to))

    def _silences(self, state: tuple[Track, ...], track: Track, news: object) -> Iterator[Choice]:
        """How the port falls silent, what the health watch has it say then, and its return."""
        fault = self.name
        if not track.silent:
            fallen = track._replace(silent=True)
            yield self._choice("falls silent", state, fallen, (), fault)
            noticed = fallen._replace(noticed=True, asks=False)
            yield self._choice("falls silent, and it is noticed", state, noticed, (news,), fault)
            return
        if track.noticed and track.asks:
            yield self._choice("is known to be silent", state, track._replace(asks=False), (news,))
        if track.noticed:
            back = self._with(state, track._replace(silent=False, noticed=False, asks=False))
            yield Choice("answers again", back, fair=False)

    def _choice(
        self, label: str, state: tuple[Track, ...], track: Track, facts: tuple[object, ...], fault: str = ""
    ) -> Choice:
        text = f"{label} ({track.session_id})" if len(state) > 1 else label
        tells = tuple([(track.reply_to, fact) for fact in facts])
        return Choice(text, self._with(state, track), tells, fault=fault, prompt=not fault)


class Media(_AudioPort):
    """The media port: keeps frames, loses some when the disk refuses, closes recordings, or falls silent.

    `speaks` says of a session whether there is voice in what it keeps; None: there may be.
    """

    faults = ("media",)

    def __init__(self, name: str, *, speaks: Callable[[str], bool | None] = lambda _: False) -> None:
        super().__init__(name)
        self.speaks = speaks

    def submit(self, state: tuple[Track, ...], work: m.OpenMedia | m.Keep | m.CloseMedia) -> tuple[Track, ...]:
        """As `MediaPort`: a second opening only changes where facts go, frames are kept once, an end comes once."""
        if isinstance(work, m.OpenMedia):
            return self._opened(state, work, recording=work.recording)
        if isinstance(work, m.Keep):
            return self._taken(state, work)
        track = self._track(state, work.session_id)
        return (
            state if track is None or track.over else self._with(state, track._replace(ending=True, asks=track.noticed))
        )

    def choices(self, state: tuple[Track, ...]) -> Iterable[Choice]:
        """Tell what was kept, and the end; or lose it; or say nothing any more."""
        for track in state:
            if track.over:
                continue
            told = track._replace(told=track.got)
            count = track.got - track.told
            if track.silent or count or track.ending:
                yield from self._silences(state, track, m.MediaSilent())
            if track.silent:
                continue
            speaks, whole = self.speaks(track.session_id), track.got - track.lost
            sha, voiced = f"sha of {whole}", count if speaks else 0
            kept = m.Kept(track.upto, count, 0.25, 0.5, 0, 0, whole, whole * FRAME_BYTES, sha, voiced)
            if track.ending:
                samples = whole * 320
                info = _closed(samples) if track.recording else None
                closed = m.MediaClosed(info, sha)
                facts = (kept, closed) if count else (closed,)
                yield self._choice("closes", state, told._replace(over=True), facts)
                if track.recording:  # the disk took the frames, and not the end of the file
                    bare = told._replace(over=True, recording=False)
                    none = (*facts[:-1], m.MediaClosed(None, closed.digest))
                    yield self._choice("closes without a recording", state, bare, none, "media")
            if count:
                yield self._choice("keeps", state, told, (kept,))
                if speaks is None:
                    yield self._choice("keeps a voice", state, told, (replace(kept, voiced=count),))
                lost = m.MediaLost(track.upto - count, count, DISK_FULL)
                yield self._choice("loses", state, told._replace(lost=track.lost + count), (lost,), "media")


def _closed(samples: int) -> RecordingInfo:
    """A recording of which all is on the disk; what makes it one file belongs to no call."""
    return RecordingInfo("call.flac", 16_000, 1, samples, samples / 16_000, 1, state=RecordingState.FINISHING)


class Speech(_AudioPort):
    """The speech-to-text port: hears frames, loses some with a worker, tells the last words, or falls silent.

    `speaks` says of a session whether there are words in what it hears; None: there may be.
    """

    faults = ("speech",)

    def __init__(self, name: str, *, speaks: Callable[[str], bool | None] = lambda _: True) -> None:
        super().__init__(name)
        self.speaks = speaks

    def submit(self, state: tuple[Track, ...], work: m.Listen | m.Hear | m.Finish | m.Abandon) -> tuple[Track, ...]:
        """As `SpeechPort`: a second listening only changes where facts go, frames are heard once, abandoned ones never."""
        if isinstance(work, m.Listen):
            return self._opened(state, work, recording=False)
        if isinstance(work, m.Hear):
            return self._taken(state, work)
        track = self._track(state, work.session_id)
        if track is None or track.over:
            return state
        return self._with(state, track._replace(ending=True, asks=track.noticed, over=isinstance(work, m.Abandon)))

    def choices(self, state: tuple[Track, ...]) -> Iterable[Choice]:
        """Tell what was heard, and the end; or lose it; or say nothing any more."""
        for track in state:
            if track.over:
                continue
            told = track._replace(told=track.got)
            count = track.got - track.told
            if track.silent or count or track.ending:
                yield from self._silences(state, track, m.SpeechSilent(SPEECH_SILENT))
            if track.silent:
                continue
            end_ms = FRAME_MS * track.upto
            heard = m.Heard(track.upto, count)
            words = m.Utterance(f"words below {track.upto}", end_ms - FRAME_MS * count, end_ms, heard=heard)
            # Some of it is no speech, so that both kinds of news come.
            speaks = self.speaks(track.session_id)
            wordless = track.told % 2 or speaks is False
            news: tuple[object, ...] = (heard,) if wordless else (m.Partial("wor"), words)
            if track.ending:
                facts = (*news, m.Finished()) if count else (m.Finished(),)
                yield self._choice("finishes", state, told._replace(over=True), facts)
            if count:
                yield self._choice("hears", state, told, news)
                if speaks is None and not wordless:
                    yield self._choice("hears noise", state, told, (heard,))
                lost = m.Unheard(track.upto - count, count, WORKER_DIED)
                yield self._choice("loses a worker", state, told._replace(lost=track.lost + count), (lost,), "speech")
