"""The voice service as a model: its own actors, between callers and ports that do whatever real ones may do."""

from actors.model.actor_model import ActorModel, Scene, Schedule, Timers
from actors.model.parts import Faults, Part
from actors.voice import messages as m
from actors.voice.call_part import CallPart, Ports, parts_of
from actors.voice.standard_parts import STANDARD_PARTS
from actors.voice.supervisor import ChildFailed, Supervisor
from actors.voice_lab.parts import LIMITS, SILENCE_SECONDS, Callers, Media, Speech, Store
from actors.voice_lab.promises import promise
from machines.audio import AudioFormat
from machines.frozen import FrozenDict, frozen
from machines.policy import VoicePolicy
from machines.session import (
    STTProvider,
    VoiceProvider,
)

PROBE_SECONDS = 1.0


def facts(number: int, *, recording: bool, refused: bool, transcribed: bool = True, silence: bool = False) -> m.Facts:
    """The facts that call `number` is opened with; a `refused` call asks for more than its risk tier allows, and a call with
    `silence` ends when nobody speaks."""
    return m.Facts(
        session_id=f"voice-{number}",
        project_id="project",
        provider=VoiceProvider.LOCAL,
        stt_provider=STTProvider.POCKETSPHINX,
        stt_engine=STTProvider.POCKETSPHINX if transcribed else None,
        fallback="",
        audio_format=AudioFormat(),
        recording=recording,
        metadata=frozen({"requires_data_access": True} if refused else {}),
        audit_trace_id=f"audit-{number}",
        secret=f"secret-of-voice-{number}",
        admin_token_valid=False,
        created_at_ms=0,
        silence_seconds=SILENCE_SECONDS if silence else None,
    )


def voice_model(  # noqa: PLR0913 - each is a choice of its own
    *,
    sessions: int = 1,
    frames: int = 1,
    stops: int = 1,
    refused: int = 0,
    in_turn: bool = False,
    recording: bool = True,
    transcribed: bool = True,
    silence: bool = False,
    faults: Faults | None = None,
    schedule: Schedule = Schedule.TURNS,
    timers: Timers = Timers.DEADLINE,
    call_parts: tuple[CallPart, ...] = STANDARD_PARTS,
    more_ports: tuple[Part, ...] = (),
) -> ActorModel:
    """`sessions` calls of at most `frames` frames and `stops` stops each, the last `refused` of them against the policy;
    with the promises P1 to P7 and P10 as its properties, which hold whatever the `faults` (P8). With `in_turn` nobody asks for
    a call while another one runs; with `silence` calls end when nobody speaks in them, to an engine where they are
    `transcribed`. `call_parts` are the parts of every call; `more_ports` are the ports of further ones, by their names."""
    asked = tuple(
        [
            facts(
                number,
                recording=recording,
                refused=number > sessions - refused,
                transcribed=transcribed,
                silence=silence,
            )
            for number in range(1, sessions + 1)
        ]
    )
    callers = Callers(asked, frames=frames, stops=stops, in_turn=in_turn)
    store, media, speech = Store("store"), Media("media"), Speech("speech")
    if silence:
        media, speech = Media("media", speaks=lambda _: None), Speech("speech", speaks=lambda _: None)

    def setup(scene: Scene) -> None:
        others = FrozenDict({part.name: scene.port(part) for part in more_ports})
        directory, keeping, hearing, storing = [scene.port(part) for part in (callers, media, speech, store)]
        ports = Ports(directory=directory, media=keeping, speech=hearing, store=storing, others=others)
        supervisor = Supervisor(VoicePolicy(), LIMITS, ports, PROBE_SECONDS, call_parts)
        callers.supervisor = scene.spawn(supervisor, "supervisor")

    model = ActorModel(
        f"voice, {sessions} sessions, {frames} frames",
        setup,
        parts=[callers, store, media, speech, *more_ports],
        schedule=schedule,
        timers=timers,
        faults=faults,
        errors=(ChildFailed,),
        remember_turns=sessions > 1,
    )
    promise(model, asked, call_parts)
    for number, one in enumerate(asked, 1):
        path = f"supervisor/{one.session_id}"
        if number > sessions - refused:
            model.may_be_unborn(path)
        if not frames or number > sessions - refused:  # they come with the first audio
            model.may_be_unborn(*[f"{path}/{part.name}" for part in call_parts])
        else:
            there = parts_of(call_parts, one)
            model.may_be_unborn(*[f"{path}/{part.name}" for part in call_parts if part not in there])
    return model
