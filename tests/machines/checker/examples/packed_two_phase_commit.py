"""Two-phase commit as rules on bits, after the same TwoPhase.tla."""

from machines.checker.model import always, sometimes
from machines.checker.packed import Layout, PackedModel, Rule

WORKING, PREPARED, COMMITTED, ABORTED = range(4)


def packed_two_phase_commit(managers: int) -> PackedModel:
    """`managers` resource managers and one transaction manager."""
    each = range(managers)
    fields = {"master": 2, "commit": 1, "abort": 1}
    for at in each:
        fields |= {f"manager {at}": 2, f"told {at}": 1, f"prepared {at}": 1}
    bits = Layout(**fields)
    rules: list[Rule] = [
        bits.rule(
            "commit",
            when={"master": WORKING} | {f"told {at}": 1 for at in each},
            then={"master": COMMITTED, "commit": 1},
        ),
        bits.rule("abort", when={"master": WORKING}, then={"master": ABORTED, "abort": 1}),
    ]
    for at in each:
        me = f"manager {at}"
        rules += [
            bits.rule(f"told {at}", when={"master": WORKING, f"prepared {at}": 1}, then={f"told {at}": 1}),
            bits.rule(f"prepare {at}", when={me: WORKING}, then={me: PREPARED, f"prepared {at}": 1}),
            bits.rule(f"give up {at}", when={me: WORKING}, then={me: ABORTED}),
            bits.rule(f"hear commit {at}", when={"commit": 1}, then={me: COMMITTED}),
            bits.rule(f"hear abort {at}", when={"abort": 1}, then={me: ABORTED}),
        ]
    low = bits.pack({f"manager {at}": 1 for at in each})
    high = low << 1

    def is_consistent(state: int) -> bool:
        """Aborted is 3, committed 2: both bits of one manager, and the higher one alone of another."""
        return not (state & (state << 1) & high and state & high & ~(state << 1))

    return PackedModel(
        f"packed two-phase commit of {managers}",
        bits,
        rules,
        initial=[bits.pack()],
        properties=[
            always("consistent", is_consistent),
            sometimes("all commit", lambda state: state & (low | high) == high),
            sometimes("all abort", lambda state: state & (low | high) == low | high),
        ],
    )
