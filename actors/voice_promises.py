"""The promises of the voice service as properties of its model: P1 to P7 by name, and P8, that they hold whatever fails."""

from typing import Any

from actors import messages as m
from actors.evidence import DOWN, UP
from actors.model import ActorModel
from actors.model_parts import CRASH, CUT, LATE, Faults
from actors.voice_parts import FRAME_BYTES, LIMITS, Call, Record, Records, Track, call_of, owner_of
from machines.session import (
    EndReason,
    VoiceSessionState,
)

RANK = {state: rank for rank, state in enumerate(VoiceSessionState)}
PARTS = ("recorder", "transcriber", "quality")


def promise(model: ActorModel, asked: tuple[m.Facts, ...]) -> None:
    """Claim P1 to P7 of the model; and P8 as far as it says more than that they hold with faults."""
    paths = [f"supervisor/{one.session_id}" for one in asked]
    _promise_moves_and_ends(model, paths)
    _promise_records(model, asked, paths)
    model.always("P3 every frame is accounted for", _conserved, of=["callers", "media", "speech"])
    model.always("P3 without faults nothing is lost", _nothing_lost(model.faults.total), of=["callers", "@faults"])
    model.always("P6 nothing crosses from one session to another", _apart, of=["callers", "store"])
    for one, path in zip(asked, paths, strict=True):
        whose = _whose(path, paths)
        model.always(
            f"P7 after STOPPED nothing of a session is left{whose}",
            _released(one.session_id, path),
            of=["@timers", "supervisor", "media", "speech", path, *(f"{path}/{name}" for name in PARTS)],
        )
        model.always(f"P7 who is gone has closed the door{whose}", _door_closed(one.session_id), of=["callers", path])
    _promise_recovery(model, paths)
    model.sometimes(
        "a call is opened", lambda callers: any(call.answer == "opened" for call in callers), of=["callers"]
    )
    model.sometimes("audio is kept", lambda media: any(track.told for track in media), of=["media"])
    model.sometimes(
        "a call ends drained, with its audio",
        lambda callers: any(
            call.result is not None and call.result.drained and call.result.frames.accounted for call in callers
        ),
        of=["callers"],
    )


def _promise_moves_and_ends(model: ActorModel, paths: list[str]) -> None:
    model.always("P1 what is told of a session moves forward", _told_forward, of=["callers"])
    for path in paths:
        whose = _whose(path, paths)
        model.always_step(f"P1 only legal moves, STOPPED is final{whose}", _forward, of=[path])
        model.always(
            f"P2 the door of a stopped session is closed, whatever the store does{whose}",
            lambda callers, session: (
                not _settled(session)
                or session.phase is not VoiceSessionState.STOPPED
                or not call_of(callers, session.facts.session_id).open
            ),
            of=["callers", path],
        )
    model.always(
        "P2 without faults everybody gets a session, and every end is drained",
        lambda callers, left: (
            left < model.faults.total
            or all(call.answer != "unevidenced" and (call.result is None or call.result.drained) for call in callers)
        ),
        of=["callers", "@faults"],
    )
    model.can_always_reach(
        "P2 the end can be reached",
        lambda callers, *actors: all(call.over for call in callers) and not any(actor.alive for actor in actors),
        of=["callers", *paths],
    )
    model.leads_to(
        "P2 whoever asks for a session is answered",
        lambda callers: any(call.asked and not call.answer for call in callers),
        lambda callers: all(call.answer or not call.asked for call in callers),
        of=["callers"],
    )
    model.leads_to(
        "P2 whoever asks for the end gets it",
        lambda callers, *_: any(len(call.ended) < call.stops for call in callers),
        lambda callers, *actors: (
            all(len(call.ended) == call.stops and not call.open for call in callers)
            and not any(actor.alive for actor in actors)
        ),
        of=["callers", *paths],
    )


def _promise_records(model: ActorModel, asked: tuple[m.Facts, ...], paths: list[str]) -> None:
    model.always("P4 evidence first", _evidence_first(model.faults.total), of=["callers", "store"])
    if model.faults.total <= 1 and LATE not in _kinds(model.faults):
        model.always(
            "P4 what is kept is not called lost",
            lambda callers, store: all(
                "lost" not in call.ended or call.session_id in store.unspilled for call in callers
            ),
            of=["callers", "store"],
        )
    model.always("P4 each record once, in order, one final one, none after it", _in_order, of=["store"])
    model.always(
        "P4 no denial is forgotten",
        _remembered("supervisor"),
        of=["@timers", "store", "supervisor", "supervisor/evidence", "supervisor"],
    )
    for one, path in zip(asked, paths, strict=True):
        if model.faults.total <= 1:
            model.always(
                f"P4 who is on record has an end on record{_whose(path, paths)}",
                _end_on_record(one.session_id),
                of=["store", path],
            )
        model.always(
            f"P4 no record is forgotten{_whose(path, paths)}",
            _remembered(path),
            of=["@timers", "store", "supervisor", "supervisor/evidence", path],
        )
    model.leads_to(
        "P4 a store that is back is found out",
        lambda store, evidence: store.condition == "up" and evidence.alive and evidence.phase == DOWN,
        lambda store, evidence: store.condition != "up" or not evidence.alive or evidence.phase == UP,
        of=["store", "supervisor/evidence"],
    )
    model.always(
        "P5 a denied request never becomes a session", _denied_stays_out(asked), of=["callers", "store", *paths]
    )


def _promise_recovery(model: ActorModel, paths: list[str]) -> None:
    """What holds of the faults that are healed: P8 says that all else holds too."""
    kinds = _kinds(model.faults)
    crashing = model.faults.actors
    if model.faults.total <= 1:
        model.always(
            "P8 one fault fails no call",
            lambda callers: all(call.result is None or call.result.reason is not EndReason.FAILED for call in callers),
            of=["callers"],
        )
    if model.faults.total <= LIMITS.restarts.limit and kinds <= {CRASH, "cancel"}:
        model.always(
            "P8 crashes leave every end durable",
            lambda callers: all({*call.ended} <= {"durable"} for call in callers),
            of=["callers"],
        )
        model.always(
            "P8 crashes leave every end drained",
            lambda callers: all(call.result is None or call.result.drained for call in callers),
            of=["callers"],
        )
        model.always(
            "P8 crashes turn nobody away",
            lambda callers: all(call.answer != "unevidenced" for call in callers),
            of=["callers"],
        )
        if crashing is not None and crashing <= {*PARTS}:
            model.always("P8 a part that crashes loses no audio", _nothing_lost(0), of=["callers", "@faults"])
    if crashing is not None and len(crashing) == 1 and crashing <= {*PARTS} and kinds == {CRASH}:
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


def _kinds(faults: Faults) -> set[str]:
    """The kinds of faults that may happen; without limits of their own, all of them."""
    if faults.total and not faults.kinds:
        return {CRASH, CUT, LATE, "cancel", "store", "spill", "media", "speech"}
    return {kind for kind, limit in faults.kinds.items() if limit}


def _whose(path: str, paths: list[str]) -> str:
    return "" if len(paths) == 1 else f" ({path.rsplit('/', 1)[-1]})"


def _settled(actor: Any) -> bool:
    return bool(actor.alive and not actor.held and not actor.unread)


def _told_forward(callers: tuple[Call, ...]) -> bool:
    return all(
        RANK[earlier] < RANK[later]
        for call in callers
        for earlier, later in zip(call.told, call.told[1:], strict=False)
    )


def _forward(before: Any, after: Any) -> bool:
    if not before.alive:
        return bool(before.unborn or after.stopped)
    return after.stopped or RANK[before.phase] <= RANK[after.phase]


def _conserved(callers: tuple[Call, ...], media: tuple[Track, ...], speech: tuple[Track, ...]) -> bool:
    for call in callers:
        if call.result is None:
            continue
        account = call.result.frames
        kept = sum(track.told - track.lost for track in media if track.session_id == call.session_id)
        heard = sum(track.told - track.lost for track in speech if track.session_id == call.session_id)
        dropped, unheard = dict(account.dropped), dict(account.untranscribed)
        if (
            account.accepted != account.accounted + sum(dropped.values())
            or account.accepted != account.transcribed + sum(unheard.values())
            or min([0, *dropped.values(), *unheard.values()]) < 0
            or account.accepted > call.sent
            or account.accounted > kept
            or account.transcribed > heard
        ):
            return False
    return True


def _nothing_lost(total: int) -> Any:
    def holds(callers: tuple[Call, ...], left: int) -> bool:
        return left < total or all(
            call.result is None
            or (
                call.result.frames.accounted == call.result.frames.transcribed
                and call.result.frames.accounted + dict(call.result.frames.dropped).get("late", 0) == call.sent
            )
            for call in callers
        )

    return holds


def _evidence_first(total: int) -> Any:
    """When not even the spill file takes the last records, the end is told all the same, and as lost. One fault can do that
    only at the spill file; of several, one may take away the word that the records should go there."""

    def holds(callers: tuple[Call, ...], store: Records) -> bool:
        spilled = {(record.session_id, record.state) for record in store.spilled}
        safe = spilled | {(record.session_id, record.state) for record in store.durable}
        final = {record.session_id for record in store.durable if record.final}
        kept = final | {record.session_id for record in store.spilled if record.final}
        given_up = {*store.unspilled, *(owner_of(work) for work in store.waiting if isinstance(work, m.SpillWork))}
        denied = {record.session_id for record in store.durable if record.operation == "session_denied"}
        for call in callers:
            excused = call.session_id in given_up or (total > 1 and not {"durable", "spilled"} & {*call.ended})
            lost = excused and (total > 2 or call.told[-1:] == (VoiceSessionState.STOPPED,))
            if (
                any((call.session_id, state) not in safe for state in call.told if not lost)
                or ("durable" in call.ended and call.session_id not in final)
                or ("spilled" in call.ended and call.session_id not in kept)
                or (call.answer == "opened" and (call.session_id, VoiceSessionState.CREATED) not in safe)
                or (call.answer == "denied" and call.session_id not in denied)
            ):
                return False
        return True

    return holds


def _remembered(path: str) -> Any:
    """What an owner has in its outbox is under way: at the store, or with a timer that will ask what became of it."""

    def holds(timers: Any, store: Records, supervisor: Any, evidence: Any, owner: Any) -> bool:
        if not all(_settled(actor) for actor in (supervisor, evidence, owner)) or not owner.outbox.waiting:
            return True
        asked = [work for work in store.waiting if not isinstance(work, m.Probe)]
        return (
            evidence.phase == DOWN
            or ("supervisor/evidence", "hang") in timers
            or any(work.owner.path == path for work in asked)
        )

    return holds


ORDER = ("session_created", "session_active", "session_stopping", "session_stopped")


def _in_order(store: Records) -> bool:
    ids = [record.record_id for record in store.durable]
    by_session: dict[str, list[Record]] = {}
    for record in store.durable:
        by_session.setdefault(record.session_id, []).append(record)
    for records in by_session.values():
        places = [ORDER.index(record.operation) for record in records if record.operation in ORDER]
        finals = [record.final for record in records]
        if places != sorted(set(places)) or True in finals[:-1]:
            return False
    return len(set(ids)) == len(ids)


def _end_on_record(session_id: str) -> Any:
    def holds(store: Records, session: Any) -> bool:
        records = [record for record in (*store.durable, *store.spilled) if record.session_id == session_id]
        spilling = any(isinstance(work, m.SpillWork) and owner_of(work) == session_id for work in store.waiting)
        return (
            not session.stopped
            or spilling
            or session_id in store.unspilled
            or all(record.operation == "session_denied" for record in records)
            or any(record.final for record in records)
        )

    return holds


def _denied_stays_out(asked: tuple[m.Facts, ...]) -> Any:
    unauthorized = {one.session_id for one in asked if one.metadata.get("requires_data_access")}

    def holds(callers: tuple[Call, ...], store: Records, *actors: Any) -> bool:
        denied = unauthorized | {record.session_id for record in store.durable if record.operation == "session_denied"}
        denied |= {call.session_id for call in callers if call.answer == "denied"}
        return all(
            call.session_id not in denied
            or (actor.unborn and not call.told and not call.open and call.answer != "opened")
            for call, actor in zip(callers, actors, strict=True)
        )

    return holds


def _apart(callers: tuple[Call, ...], store: Records) -> bool:
    own = all(f"-of-{record.session_id}-" in record.record_id for record in (*store.durable, *store.spilled))
    return own and all(
        call.result is None
        or (
            call.result.frames.bytes == call.result.frames.accounted * FRAME_BYTES
            and call.result.transcript in _transcripts(call.sent)
        )
        for call in callers
    )


def _transcripts(sent: int) -> set[str]:
    found = {""}
    for upto in range(1, sent + 1):
        found |= {f"{before} words below {upto}".strip() for before in found}
    return found


def _released(session_id: str, path: str) -> Any:
    def holds(timers: Any, supervisor: Any, media: Any, speech: Any, session: Any, *parts: Any) -> bool:
        if not session.stopped:
            return True
        tracks = [track for track in (*media, *speech) if track.session_id == session_id]
        settled = supervisor.alive and not supervisor.held and not supervisor.unread
        return (
            not any(owner == path or owner.startswith(f"{path}/") for owner, _ in timers)
            and not any(part.alive for part in parts)
            and all(track.ending or track.over for track in tracks)
            and not (settled and supervisor.sessions.get(session_id))
        )

    return holds


def _door_closed(session_id: str) -> Any:
    def holds(callers: tuple[Call, ...], session: Any) -> bool:
        call = call_of(callers, session_id)
        return call.closed or not (session.stopped or call.answer == "denied")

    return holds
