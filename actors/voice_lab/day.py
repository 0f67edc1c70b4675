"""A simulated day of the voice service, as its plan has it: who calls when, how they speak, and how their calls end."""

from typing import Final, NamedTuple

from msgspec.structs import replace

from actors.simulation.plan import HOUR_MS, SECOND_MS, Chance
from actors.voice import messages as m
from actors.voice_lab.model import facts
from machines.frozen import frozen

CALLS_IN_A_DAY: Final = 220
RUSH_SHARE: Final = 1 / 3  # of the calls come in a rush hour's few minutes, one beside the other
RUSH_MS: Final = 600 * SECOND_MS
FRAME_MS: Final = 20
ENDINGS: Final = ("stop", "stop", "stop", "stop twice", "hang up", "silence", "stop at once", "overrun")
RESUMABLE: Final = 3  # each third call may come back when its process has died
SILENT: Final = 6  # each sixth call ends by silence
MUTED: Final = 12  # and in half of these nobody speaks
REFUSED: Final = 1 / 25  # each of them: against the policy, and such as no policy can read


class CallPlan(NamedTuple):
    """One call: it speaks `runs` runs of `frames` frames with `gap_ms` from one to the next, and ends by `ending`.

    With `silence` it ends when nobody speaks; nobody ever does in one that is `muted`, which sends noise for as long as it is
    let. `refused` tells why there will be no call: "policy", "malformed", or "" for one that is allowed. The caller of a
    `resumable` one comes back when its process has died, if it can.
    """

    runs: int
    frames: int
    gap_ms: int
    ending: str
    recording: bool
    engine: bool
    refused: str = ""
    resumable: bool = False
    silence: bool = False
    muted: bool = False


def drawn_calls(chance: Chance, until_ms: int) -> list[tuple[int, int, CallPlan]]:
    """The calls of so long a time, each with when it comes and how long its caller speaks."""
    count = max(1, CALLS_IN_A_DAY * until_ms // (24 * HOUR_MS))
    rushes = [chance.below(until_ms) for _ in range(1 + count // 60)]
    calls = [
        (
            _arrival(chance, until_ms, rushes),
            _call(chance)._replace(
                resumable=not number % RESUMABLE, silence=number % SILENT == 1, muted=number % MUTED == 1
            ),
        )
        for number in range(count)
    ]
    return [(at, SECOND_MS + call.runs * call.gap_ms, call) for at, call in calls]


def facts_of(number: int, plan: CallPlan) -> m.Facts:
    """What a call is asked for with."""
    asked = facts(number, recording=plan.recording, refused=plan.refused == "policy", silence=plan.silence)
    asked = replace(asked, resumable=plan.resumable)
    if plan.refused == "malformed":
        asked = replace(asked, metadata=frozen({"sensitive_data": "perhaps"}))
    if not plan.engine:
        asked = replace(asked, stt_engine=None, fallback="no engine")
    return asked


def _arrival(chance: Chance, until_ms: int, rushes: list[int]) -> int:
    if chance.happens(RUSH_SHARE):
        return min(until_ms - 1, chance.one_of(rushes) + chance.below(RUSH_MS))
    return chance.below(until_ms)


def _call(chance: Chance) -> CallPlan:
    ending = chance.one_of(ENDINGS)
    refused = "policy" if chance.happens(REFUSED) else "malformed" if chance.happens(REFUSED) else ""
    recording, engine = chance.happens(1 / 2), chance.happens(9 / 10)
    if ending == "overrun":
        return CallPlan(40, 1250, 25 * SECOND_MS, ending, recording, engine, refused)
    if ending == "stop at once":
        return CallPlan(0, 0, 0, ending, recording, engine, refused)
    if chance.happens(1 / 10 / (6 / 8)):  # a tenth of all: the others of these endings have no audio or a lot
        return CallPlan(chance.between(20, 60), 1, FRAME_MS, ending, recording, engine, refused)
    frames = chance.between(25, 900)
    return CallPlan(chance.between(1, 8), frames, FRAME_MS * frames, ending, recording, engine, refused)
