"""The voice service in the simulator: its own actors and supervisor, the store's rules over a journal on a simulated disk, and
days of calls with everything that goes wrong on them.

    day = voice_simulation().run(seed=7, hours=24)
"""

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from actors.simulation.plan import SECOND_MS, FaultKind
from actors.simulation.runner import Simulation
from actors.simulation.world import CRASH, DUPLICATE, HANG, JUMP, KILL, POISON, POWER, REORDER, SLOW, World
from actors.voice.call_part import Ports
from actors.voice.supervisor import Supervisor
from actors.voice_lab.callers import OF_CALLERS, AudioPort, VoiceCallers
from actors.voice_lab.day import drawn_calls
from actors.voice_lab.model import PROBE_SECONDS
from actors.voice_lab.parts import LIMITS, Media, Speech
from actors.voice_lab.store import OF_THE_DISK, JournalStore
from actors.voice_lab.watch import VoiceWatch
from machines.policy import VoicePolicy

FAULTS_IN_A_DAY: Final = 42.0  # at least twenty of them meet somebody
SIMULATED_LIMITS: Final = replace(LIMITS, account_frames=500)  # ten seconds of audio, as in a real service
OF_A_CALL: Final = ("SessionActor", "RecorderActor", "TranscriberActor", "QualityActor")
STEPS_BEFORE: Final = 60  # of its kind of actors, at most, before a crash: as many as a call has
OF_THE_SERVICE: Final = ("EvidenceActor", "PolicyActor")

FAULTS: Final[dict[str, FaultKind]] = {
    CRASH: FaultKind(
        (*OF_A_CALL, *OF_A_CALL, *OF_A_CALL[:1], *OF_THE_SERVICE, "Supervisor"), 0, 5 * STEPS_BEFORE, share=5
    ),
    POISON: FaultKind((*OF_A_CALL, *OF_THE_SERVICE), 0, STEPS_BEFORE),
    HANG: FaultKind((*OF_A_CALL, *OF_THE_SERVICE, "Supervisor"), 1000, 40_000),
    SLOW: FaultKind((*OF_A_CALL, *OF_THE_SERVICE, "Supervisor"), 1000, 30_000),
    JUMP: FaultKind(("",), 1000, 900_000),
    KILL: FaultKind(("process", "process", POWER), 100, 20 * SECOND_MS, share=2),
    DUPLICATE: FaultKind(("",), 1, 3000),
    REORDER: FaultKind(("",), 1, 30_000),
    "media": FaultKind(("",), 0, 7),
    "speech": FaultKind(("",), 0, 7),
    **OF_THE_DISK,
    **OF_CALLERS,
}
"""Every kind of fault that the voice service is given."""


def voice_simulation() -> Simulation:
    """Days of the voice service, watched for P1 to P10."""
    return Simulation(
        "voice",
        _start,
        parts=[_callers, _media, _speech, _store],
        faults=FAULTS,
        faults_in_a_day=FAULTS_IN_A_DAY,
        visits=drawn_calls,
        monitors=[_watch],
    )


def _callers(world: World) -> VoiceCallers:
    return VoiceCallers(world, "callers")


def _media(world: World) -> AudioPort:
    return AudioPort(world, Media("media", speaks=_speaks(world)))


def _speech(world: World) -> AudioPort:
    return AudioPort(world, Speech("speech", speaks=_speaks(world)))


def _speaks(world: World) -> Callable[[str], bool]:
    """Whether there is speech in the audio of a session, for ports that begin before those who know."""
    return lambda session_id: world.port(_callers).speaks(session_id)


def _store(world: World) -> JournalStore:
    return JournalStore(world, "store")


def _start(world: World) -> None:
    """A process starts, as `ServiceRuntime` starts one."""
    ports: Any = Ports(world.port(_callers), world.port(_media), world.port(_speech), world.port(_store))
    callers: VoiceCallers = world.port(_callers)
    callers.store, callers.media = world.port(_store), world.port(_media)
    callers.supervisor = world.spawn(Supervisor(VoicePolicy(), SIMULATED_LIMITS, ports, PROBE_SECONDS), "supervisor")


def _watch(world: World) -> VoiceWatch:
    return VoiceWatch(
        world, world.port(_callers), world.port(_media), world.port(_speech), world.port(_store), SIMULATED_LIMITS
    )
