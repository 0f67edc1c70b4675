"""What a simulated caller goes on with: what is on record, what is on the disk, and what can't be sent again."""

from dataclasses import dataclass

import pytest

from actors.simulation.plan import Chance
from actors.voice.messages import Account
from actors.voice.recorder import NOTHING_YET
from actors.voice_lab.journal import Left
from actors.voice_lab.parts import FRAME_BYTES, Track
from actors.voice_lab.returning import OnDisk, on_disk, resumption
from machines.session import VoiceSessionState

ON_RECORD = Account(50, 40, 40 * FRAME_BYTES, "sha of 40", (("disk_full", 10),))


def left(account: Account) -> Left:
    return Left("secret", VoiceSessionState.ACTIVE, 4, True, account, "id")


@dataclass
class Case:
    account: Account
    found: OnDisk | None
    first: int
    upto: int
    kept: int
    lost: dict[str, int]


@pytest.mark.parametrize(
    "case",
    [
        Case(NOTHING_YET, None, -250, 0, 0, {}),
        Case(NOTHING_YET, OnDisk(30, 30), 10, 30, 30, {}),
        Case(NOTHING_YET, OnDisk(30, 30), 45, 45, 30, {"process_died": 15}),
        Case(ON_RECORD, None, 0, 50, 40, {"disk_full": 10}),
        Case(ON_RECORD, OnDisk(60, 70), 0, 70, 60, {"disk_full": 10}),
        Case(ON_RECORD, OnDisk(25, 25), 0, 50, 25, {"disk_full": 10, "process_died": 15}),
    ],
    ids=["nothing", "disk", "gap", "record", "disk beyond the record", "a power cut took some"],
)
def test_every_frame_below_the_next_one_is_kept_or_declared(case: Case) -> None:
    begun = resumption(left(case.account), case.found, case.first, 2500)
    account = begun.account
    assert (account.upto, account.kept, dict(account.lost)) == (case.upto, case.kept, case.lost)
    assert account.upto == account.kept + sum(dict(account.lost).values())
    assert account.n_bytes == account.kept * FRAME_BYTES
    assert sum(dict(begun.heard.unheard).values()) == account.upto
    assert (begun.number, begun.age_seconds) == (4, 2.5)


def test_a_death_leaves_what_was_told_of_and_a_power_cut_may_take_the_last_of_it() -> None:
    track = Track("voice-1", None, upto=1000, got=900, told=800, lost=50, recording=True)
    chance = Chance(1, "test")
    died = {on_disk(track, chance, power=False).written for _ in range(200)}
    assert (min(died) >= 750, max(died) <= 850, len(died) > 50) == (True, True, True)
    cut = {on_disk(track, chance, power=True).written for _ in range(200)}
    assert min(cut) < 750 <= max(cut)
    whole = next(found for _ in range(1000) if (found := on_disk(track, chance, power=False)).written == 850)
    assert whole.upto == 1000
