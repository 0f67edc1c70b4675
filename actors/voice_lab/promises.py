"""The promises of the voice service as properties of its model: P1 to P7 and P10 by name, and P8, that they hold whatever
fails."""

from collections.abc import Callable
from typing import Any

from actors.model.actor_model import ActorModel, Aspect
from actors.model.parts import CRASH, CUT, LATE, POISON, Faults
from actors.runtime.actor import Exited
from actors.voice import messages as m
from actors.voice.call_part import CallPart
from actors.voice.evidence import DOWN, UP
from actors.voice.standard_parts import STANDARD_PARTS
from actors.voice_lab.conditions import (
    OF_PORTS,
    RANK,
    Condition,
    all_own,
    apart,
    called_durable,
    conserved,
    denied_in,
    denied_stays_out,
    evidence_first,
    in_order,
    nothing_lost,
    recording_told,
    safe_in,
    told_forward,
    told_no_less,
    told_why,
    tracks_ended,
)
from actors.voice_lab.parts import LIMITS, Call, Records, call_of, owner_of
from machines.operations import PORT_FAILED, RECORD_REFUSED, SESSION_DENIED, SESSION_RESUMED
from machines.session import (
    EndReason,
    VoiceSessionState,
)


def promise(model: ActorModel, asked: tuple[m.Facts, ...], call_parts: tuple[CallPart, ...] = STANDARD_PARTS) -> None:
    """Claim P1 to P7 and P10 of the model, whose calls have these parts; and P8 as far as it says more than that they hold with
    faults."""
    names = [part.name for part in call_parts]
    paths = [f"supervisor/{one.session_id}" for one in asked]
    _promise_moves_and_ends(model, asked, paths)
    _promise_records(model, asked, paths)
    model.always(
        "P3 every frame is accounted for",
        conserved,
        of=["callers", "media", "speech", Aspect("@set_aside", _losses_set_aside)],
    )
    if model.faults.total <= 1:
        silent = Aspect(
            "store", lambda store: frozenset(one.session_id for one in store.durable if one.operation == PORT_FAILED)
        )
        model.always("P3 a recording that was closed is in the result", recording_told, of=["callers", "media", silent])
    transcribed = all(one.stt_engine is not None for one in asked)
    if transcribed:
        model.always("P3 without faults nothing is lost", nothing_lost(model.faults.total), of=["callers", "@faults"])
    model.always(
        "P6 nothing crosses from one session to another",
        lambda callers, own: own and apart(callers),
        of=["callers", Aspect("store", all_own)],
    )
    for one, path in zip(asked, paths, strict=True):
        whose = _whose(path, paths)
        model.always(
            f"P7 after STOPPED nothing of a session is left{whose}",
            lambda timers, listed, media, speech, stopped, *parts: (
                not stopped or (not timers and not any(parts) and media and speech and not listed)
            ),
            of=[
                Aspect("@timers", _timers_of(path)),
                Aspect("supervisor", _lists(one.session_id)),
                Aspect("media", tracks_ended(one.session_id)),
                Aspect("speech", tracks_ended(one.session_id)),
                Aspect(path, _stopped),
                *(Aspect(f"{path}/{name}", _alive) for name in names),
            ],
        )
        model.always(
            f"P7 who is gone has closed the door{whose}",
            lambda call, stopped: call.closed or not (stopped or call.answer == "denied"),
            of=[_call(one.session_id), Aspect(path, _stopped)],
        )
    model.always("P10 a result says at least what its listeners were told", told_no_less, of=["callers"])
    model.always("P10 nothing is called durable that was not kept", called_durable, of=["callers", "media"])
    _promise_recovery(model, paths, call_parts)
    if any(one.silence_seconds is not None for one in asked):
        _promise_silence(model, transcribed=transcribed)
        if not transcribed:
            for one, path in zip(asked, paths, strict=True):
                model.always_step(
                    f"P2 no voice is found in a call behind its end by silence{_whose(path, paths)}",
                    lambda silent, voice, _, after: not silent or voice or not after,
                    of=[Aspect(path, _ends_silent), Aspect("callers", _voice_in(one.session_id))],
                )
    else:
        model.always("P2 nobody's silence ends a call", lambda callers: not any(map(_silent, callers)), of=["callers"])
        model.sometimes(
            "a call that has fallen silent ends",
            lambda callers: any(
                call.result is not None and call.result.reason is EndReason.IDLE and call.result.frames.accounted
                for call in callers
            ),
            of=["callers"],
        )
    if model.faults.total <= 1:
        _promise_ports(model)
    model.sometimes(
        "a call is opened", lambda callers: any(call.answer == "opened" for call in callers), of=["callers"]
    )
    if model.faults.total and transcribed:  # without one, every call drains
        model.sometimes(
            "a call ends undrained that was heard",
            lambda callers: any(
                call.result is not None and not call.result.drained and call.result.frames.transcribed
                for call in callers
            ),
            of=["callers"],
        )
    model.sometimes("audio is kept", lambda media: any(track.told for track in media), of=["media"])
    model.sometimes(
        "a call ends drained, with its audio",
        lambda callers: any(
            call.result is not None and call.result.drained and call.result.frames.accounted for call in callers
        ),
        of=["callers"],
    )


def _promise_moves_and_ends(model: ActorModel, asked: tuple[m.Facts, ...], paths: list[str]) -> None:
    model.always("P1 what is told of a session moves forward", told_forward, of=["callers"])
    for one, path in zip(asked, paths, strict=True):
        whose = _whose(path, paths)
        model.always_step(f"P1 only legal moves, STOPPED is final{whose}", _forward, of=[Aspect(path, _place)])
        model.always(
            f"P2 the door of a stopped session is closed, whatever the store does{whose}",
            lambda call, ended: not (ended and call.open),
            of=[_call(one.session_id), Aspect(path, lambda actor: _settled(actor) and _is(actor, "STOPPED"))],
        )
    model.always(
        "P2 without faults everybody gets a session, and every end is drained",
        lambda callers, left: (
            left < model.faults.total
            or all(call.answer != "unevidenced" and (call.result is None or call.result.drained) for call in callers)
        ),
        of=["callers", "@faults"],
    )
    model.always("P2 who is told of an end is told why", told_why, of=["callers"])
    living = [Aspect(path, _alive) for path in paths]
    known, aside = Aspect("supervisor", _known), Aspect("@set_aside", _unknown_to_supervisor)
    model.can_always_reach(
        "P2 the end can be reached",
        lambda callers, known, aside, *alive: (
            all(call.over or _unknown(call, known, aside) for call in callers) and not any(alive)
        ),
        of=["callers", known, aside, *living],
    )
    model.leads_to(
        "P2 whoever asks for a session is answered",
        lambda callers, *_: any(call.asked and not call.answer for call in callers),
        lambda callers, known, aside: all(
            call.answer or not call.asked or _unknown(call, known, aside) for call in callers
        ),
        of=["callers", known, aside],
    )
    model.leads_to(
        "P7 what nobody waits for keeps no room",
        lambda callers: any(map(_keeps_room, callers)),
        lambda callers: not any(map(_keeps_room, callers)),
        of=["callers"],
    )
    model.leads_to(
        "P2 whoever asks for the end gets it",
        lambda callers, *_: any(len(call.ended) < call.stops for call in callers),
        lambda callers, known, aside, *alive: (
            all((len(call.ended) == call.stops or _unknown(call, known, aside)) and not call.open for call in callers)
            and not any(alive)
        ),
        of=["callers", known, aside, *living],
    )


def _promise_records(model: ActorModel, asked: tuple[m.Facts, ...], paths: list[str]) -> None:
    model.always("P4 evidence first", evidence_first(model.faults.total), of=["callers", Aspect("store", safe_in)])
    if model.faults.total <= 1:
        model.always(
            "P4 what is kept is not called lost",
            lambda callers, unspilled, early: all(
                "lost" not in call.ended or call.session_id in unspilled or call.session_id in early for call in callers
            ),
            of=[
                "callers",
                Aspect("store", lambda store: frozenset(store.unspilled)),
                Aspect("@early", _spills_unheard),
            ],
        )
    model.always("P4 each record once, in order, one final one, none after it", in_order, of=["store"])
    _promise_memory(model, "P4 no denial is forgotten", "supervisor")
    for one, path in zip(asked, paths, strict=True):
        if model.faults.total <= 1:
            model.always(
                f"P4 who is on record has an end on record{_whose(path, paths)}",
                lambda recorded, stopped: recorded or not stopped,
                of=[Aspect("store", _end_on_record(one.session_id)), Aspect(path, _stopped)],
            )
        _promise_memory(model, f"P4 no record is forgotten{_whose(path, paths)}", path)
        model.always(
            f"P4 a record that can't be written leaves a trace{_whose(path, paths)}",
            lambda traced, stopped: traced or not stopped,
            of=[Aspect("store", _refusals_traced(one.session_id, model.faults.total)), Aspect(path, _stopped)],
        )
    if _kinds(model.faults) <= {"record", "cancel"} and model.faults.total <= 1:
        model.always(
            "P4 a record that can't be written costs no end",
            lambda callers: all({*call.ended} <= {"durable"} for call in callers),
            of=["callers"],
        )
    model.leads_to(
        "P4 a store that is back is found out",
        lambda up, evidence: up and evidence == DOWN,
        lambda up, evidence: not up or evidence in {"", UP},
        of=[
            Aspect("store", lambda store: store.condition == "up"),
            Aspect("supervisor/evidence", lambda actor: actor.phase if actor.alive else ""),
        ],
    )
    model.always(
        "P5 a denied request never becomes a session",
        denied_stays_out(asked),
        of=["callers", Aspect("store", denied_in), *[Aspect(path, lambda actor: actor.unborn) for path in paths]],
    )


def _promise_recovery(model: ActorModel, paths: list[str], call_parts: tuple[CallPart, ...]) -> None:
    """What holds of the faults that are healed: P8 says that all else holds too."""
    kinds = _kinds(model.faults)
    crashing = model.faults.actors
    parts = {part.name for part in call_parts}
    essential = {part.name for part in call_parts if part.essential}
    if model.faults.total <= 1:
        model.always(
            "P8 one fault fails no call",
            lambda callers, unstoppable: all(
                call.result is None
                or call.result.reason is not EndReason.FAILED
                or call.session_id in unstoppable  # it ends as failed, by design
                for call in callers
            ),
            of=["callers", Aspect("@set_aside", _stops_set_aside)],
        )
    if model.faults.total <= LIMITS.restarts.limit and kinds <= {CRASH, "cancel"}:
        whole = Aspect("@set_aside", lambda aside: not aside)  # two crashes on one message are another matter: poison
        model.always(
            "P8 crashes leave every end durable",
            lambda callers, whole: not whole or all({*call.ended} <= {"durable"} for call in callers),
            of=["callers", whole],
        )
        model.always(
            "P8 crashes leave every end drained",
            lambda callers, whole: not whole or all(call.result is None or call.result.drained for call in callers),
            of=["callers", whole],
        )
        model.always(
            "P8 crashes turn nobody away",
            lambda callers, whole: not whole or all(call.answer != "unevidenced" for call in callers),
            of=["callers", whole],
        )
        if crashing is not None and crashing <= parts:
            model.always("P8 a part that crashes loses no audio", nothing_lost(0), of=["callers", "@faults"])
    if crashing is not None and len(crashing) == 1 and crashing <= essential and kinds == {CRASH}:
        for path in paths:
            model.always(
                f"P8 a part that crashes again and again ends its call{_whose(path, paths)}",
                lambda session, left: (
                    model.faults.total - left <= LIMITS.restarts.limit
                    or not _settled(session)
                    or session.phase is not VoiceSessionState.ACTIVE
                ),
                of=[path, "@faults"],
            )


def _promise_ports(model: ActorModel) -> None:
    """What holds of a port that fails while nothing else does."""
    model.always(
        "P8 a port whose silence is noticed holds up no end",
        lambda callers, *ports: all(
            call.result is None or call.result.drained
            for call in callers
            for track in (*ports[0], *ports[1])
            if track.noticed and track.session_id == call.session_id
        ),
        of=["callers", "media", "speech"],
    )
    model.always(
        "P4 what a port lost, and that it failed, is on record",
        lambda callers, recorded: all(
            (call.session_id, operation) in recorded
            for call in callers
            if call.result is not None
            for reason in {**call.result.frames.dropped, **call.result.frames.untranscribed}
            if (operation := OF_PORTS.get(reason))
        ),
        of=[
            "callers",
            Aspect("store", lambda store: frozenset((record.session_id, record.operation) for record in store.durable)),
        ],
    )


def _promise_silence(model: ActorModel, *, transcribed: bool) -> None:
    """Promise the ends of calls that silence ends. Silence comes due before idleness does, and anew with speech alone; an
    engine that has not got all of the audio, or has not answered, puts it off."""
    if _kinds(model.faults) <= {"cancel", "store", "spill", "record"}:
        model.always(
            "P2 a call in which nobody speaks ends by its silence",
            lambda callers: all(not _outlasted(call) or _spoken_in(call, transcribed=transcribed) for call in callers),
            of=["callers"],
        )
    model.sometimes(
        "a call in which nobody speaks ends by its silence", lambda callers: any(map(_silent, callers)), of=["callers"]
    )
    model.sometimes(
        "a call outlasts its silence when somebody speaks",
        lambda callers: any(_outlasted(call) and _spoken_in(call, transcribed=transcribed) for call in callers),
        of=["callers"],
    )


def _silent(call: Call) -> bool:
    return call.result is not None and call.result.reason is EndReason.SILENCE


def _ends_silent(session: Any) -> bool:
    ending = session.ending if session.alive else None
    return ending is not None and ending.reason is EndReason.SILENCE


def _voice_in(session_id: str) -> Callable[[Any], bool]:
    return lambda callers: call_of(callers, session_id).heard.voice


def _outlasted(call: Call) -> bool:
    """Whether it ended by a timer that is longer than its silence."""
    return call.result is not None and call.result.reason in {EndReason.IDLE, EndReason.OVERRUN}


def _spoken_in(call: Call, *, transcribed: bool) -> bool:
    """Whether anybody spoke, as far as those who listen were told: in words where an engine heard all, by voice where not."""
    heard_all = transcribed and call.result is not None and not call.result.frames.untranscribed
    return bool(call.heard.finals) or (call.heard.voice and not heard_all)


def _kinds(faults: Faults) -> set[str]:
    """The kinds of faults that may happen; without limits of their own, all of them."""
    if faults.total and not faults.kinds:
        return {CRASH, POISON, CUT, LATE, "cancel", "store", "spill", "record", "media", "speech"}
    return {kind for kind, limit in faults.kinds.items() if limit}


def _keeps_room(call: Call) -> bool:
    """Whether the directory has a place for a session that nobody was told of, and nobody waits for."""
    return call.gone and not call.told and not call.closed


def _unknown(call: Call, known: frozenset[str] | None, aside: frozenset[str]) -> bool:
    """Whether the supervisor knows nothing of a call that somebody waits for, which only a message that it set aside excuses:
    being at the top there is nobody who could answer instead, and who asked learns of it by the deadline of the ask."""
    return (
        call.session_id in aside
        and call.told[-1:] in {(), (VoiceSessionState.STOPPED,)}
        and not call.open
        and known is not None
        and call.session_id not in known
    )


def _unknown_to_supervisor(aside: tuple[tuple[str, object], ...]) -> frozenset[str]:
    """The sessions of whose request, or of whose crash on a stop, the supervisor set the news aside."""
    found = []
    for path, message in aside:
        if path == "supervisor" and isinstance(message, m.OpenSession | m.ResumeSession):
            found.append(message.facts.session_id)
        elif path == "supervisor" and isinstance(message, Exited) and isinstance(message.dropped, m.Stop):
            found.append(message.ref.name)
    return frozenset(found)


def _stops_set_aside(aside: tuple[tuple[str, object], ...]) -> frozenset[str]:
    """The sessions that set a stop aside."""
    return frozenset([path.rpartition("/")[2] for path, message in aside if isinstance(message, m.Stop)])


def _spills_unheard(early: tuple[tuple[str, str], ...]) -> frozenset[str]:
    """The sessions that gave up to hear that their last records are spilled."""
    return frozenset([path.rpartition("/")[2] for path, key in early if key == "spill"])


def _losses_set_aside(aside: tuple[tuple[str, object], ...]) -> frozenset[str]:
    """The sessions whose transcriber set aside the word that audio was not heard."""
    return frozenset([path.split("/")[1] for path, message in aside if isinstance(message, m.Unheard)])


def _known(supervisor: Any) -> frozenset[str] | None:
    """The sessions that a supervisor with nothing to do knows of; None while it has something to do."""
    if not _settled(supervisor):
        return None
    ending = [waiting.draft.facts.session_id for waiting in supervisor.outbox.waiting]
    own = [session_id for session_id, _ in (*supervisor.asked.items(), *supervisor.sessions.items())]
    return frozenset([*own, *ending])


def _whose(path: str, paths: list[str]) -> str:
    return "" if len(paths) == 1 else f" ({path.rsplit('/', 1)[-1]})"


def _settled(actor: Any) -> bool:
    return bool(actor.alive and not actor.held and not actor.unread)


def _alive(actor: Any) -> bool:
    return bool(actor.alive)


def _stopped(actor: Any) -> bool:
    return bool(actor.stopped)


def _is(actor: Any, state: str) -> bool:
    return bool(actor.phase is VoiceSessionState[state])


def _call(session_id: str) -> Aspect:
    return Aspect("callers", lambda callers: call_of(callers, session_id))


def _place(actor: Any) -> int:
    """How far a session has come: its state's rank, below all when unborn, above all when gone."""
    return RANK[actor.phase] if actor.alive else len(RANK) if actor.stopped else -1


def _forward(before: int, after: int) -> bool:
    return before <= after and (before < len(RANK) or after == before)


def _promise_memory(model: ActorModel, name: str, path: str) -> None:
    """Claim that what an owner has in its outbox is under way: at the store, or with a timer that will ask after it."""
    model.always(
        name,
        lambda timer, asked, supervisor, evidence, waiting: (
            timer or asked or not (supervisor and evidence and waiting) or evidence == DOWN
        ),
        of=[
            Aspect("@timers", lambda timers: ("supervisor/evidence", "hang") in timers or (path, "spill") in timers),
            Aspect("store", lambda store: any(_is_asked_by(work, path) for work in store.waiting)),
            Aspect("supervisor", _settled),
            Aspect("supervisor/evidence", lambda actor: actor.phase if _settled(actor) else ""),
            Aspect(path, lambda actor: _settled(actor) and bool(actor.outbox.waiting)),
        ],
    )


def _is_asked_by(work: Any, path: str) -> bool:
    return not isinstance(work, m.Probe) and bool(work.owner.path == path)


def _end_on_record(session_id: str) -> Condition:
    """Whether a session that is gone may be, by what the store has of it."""

    def holds(store: Records) -> bool:
        records = [record for record in (*store.durable, *store.spilled) if record.session_id == session_id]
        spilling = any(isinstance(work, m.SpillWork) and owner_of(work) == session_id for work in store.waiting)
        return (
            spilling
            or session_id in store.unspilled
            or all(record.operation == SESSION_DENIED for record in records)
            or any(record.final for record in records)
        )

    return holds


def _refusals_traced(session_id: str, faults: int) -> Condition:
    """Whether each record that the store could not write has one that says so, or its own id after all; unless nothing else of
    its session is on record, or other faults than this one may have kept it away. Who can't resume a session leaves none."""

    def holds(store: Records) -> bool:
        durable = [record for record in store.durable if record.session_id == session_id]
        ids = {record.record_id for record in durable}
        refused = [one for one in store.refused if one.session_id == session_id and one.operation != SESSION_RESUMED]
        lost = [one for one in refused if one.record_id not in ids]
        traces = sum(record.operation == RECORD_REFUSED for record in durable)
        return faults > 1 or not durable or traces >= len(lost)

    return holds


def _timers_of(path: str) -> Condition:
    return lambda timers: any(owner == path or owner.startswith(f"{path}/") for owner, _ in timers)


def _lists(session_id: str) -> Condition:
    return lambda supervisor: _settled(supervisor) and session_id in supervisor.sessions
