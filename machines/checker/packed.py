"""Models whose states are bits of one int and whose actions are guarded rules on these bits: several times faster to search.

    bits = Layout(lamp=1, switch=2)
    rules = [bits.rule("press", when={"switch": 0}, then={"switch": 1, "lamp": 1}), ...]
    model = PackedModel("lamp", bits, rules, initial=[bits.pack()])

A rule is enabled if some bits have given values, and sets some bits to given values. So the search can look up many rules at
once: rules that touch the same few bits share a table from the values of these bits to the bits that each enabled rule flips.
"""

from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any, Final, NamedTuple

from machines.checker.explore import Search
from machines.checker.model import Model, Property

_MOST_BITS: Final = 16  # touched by the rules of one table, which holds only values that were met


class Rule(NamedTuple):
    """One action: enabled in `state` if `state & mask == value`; leads to `state & ~changed | put`."""

    name: str
    mask: int
    value: int
    changed: int
    put: int


class Layout:
    """The places of a state's fields: `Layout(name=bits, ...)`, with the first field in the lowest bits."""

    def __init__(self, **bits: int) -> None:
        self._places: dict[str, tuple[int, int]] = {}
        low = 0
        for name, width in bits.items():
            if width < 1:
                raise ValueError(f"the field {name!r} has {width} bits: it needs at least one")
            self._places[name] = (low, (1 << width) - 1)
            low += width

    def pack(self, values: Mapping[str, int] | None = None) -> int:
        """The state with these values, and 0 in every other field. Raises `ValueError` for a value that does not fit."""
        state = 0
        for name, value in (values or {}).items():
            low, most = self._places[name]
            if not 0 <= value <= most:
                raise ValueError(f"the field {name!r} has values from 0 to {most}, not {value}")
            state |= value << low
        return state

    def value(self, state: int, name: str) -> int:
        """The value of a field."""
        low, most = self._places[name]
        return state >> low & most

    def unpack(self, state: int) -> dict[str, int]:
        """All fields by name."""
        return {name: state >> low & most for name, (low, most) in self._places.items()}

    def mask(self, names: Iterable[str]) -> int:
        """The bits of these fields."""
        return self.pack({name: self._places[name][1] for name in names})

    def rule(self, name: str, *, when: Mapping[str, int], then: Mapping[str, int]) -> Rule:
        """The rule that is enabled if the fields have the values in `when`, and sets the fields in `then`."""
        return Rule(name, self.mask(when), self.pack(when), self.mask(then), self.pack(then))


class _Table(dict[int, tuple[int, ...]]):
    """A table from the values of the bits that some rules touch to the bits that each enabled rule flips; filled on demand."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        super().__init__()
        self.rules = tuple(rules)
        self.bits = 0
        for rule in rules:
            self.bits |= rule.mask | rule.changed

    def __missing__(self, values: int) -> tuple[int, ...]:
        enabled = (rule for rule in self.rules if values & rule.mask == rule.value)
        self[values] = flips = tuple((values & rule.changed) ^ rule.put for rule in enabled)
        return flips


class PackedModel(Model[int, str]):
    """A model of rules on bits; actions are the names of rules. Properties are conditions of an int.

    It can be checked like any other model; a breadth-first check with properties of states only uses a faster search. The order
    of actions is that of `rules`, grouped by the bits that they touch.
    """

    def __init__(
        self,
        name: str,
        layout: Layout,
        rules: Sequence[Rule],
        *,
        initial: Sequence[int],
        properties: Sequence[Property] = (),
    ) -> None:
        self.name = name
        self.layout = layout
        self.tables = [_Table(group) for group in _grouped(rules)]
        self._rules = [rule for table in self.tables for rule in table.rules]
        self._initial = tuple(initial)
        self._properties = tuple(properties)

    def initial(self) -> Sequence[int]:
        """The initial states given at construction."""
        return self._initial

    def actions(self, state: int) -> list[str]:
        """The names of the enabled rules."""
        return [rule.name for rule in self._rules if state & rule.mask == rule.value]

    def step(self, state: int, action: str) -> int:
        """The state to which a rule leads."""
        rule = next(rule for rule in self._rules if rule.name == action and state & rule.mask == rule.value)
        return state & ~rule.changed | rule.put

    def successors(self, state: int) -> list[tuple[str, int]]:
        """Every enabled rule with the state to which it leads."""
        return [
            (name, state & ~changed | put) for name, mask, value, changed, put in self._rules if state & mask == value
        ]

    def properties(self) -> Sequence[Property]:
        """The properties given at construction."""
        return self._properties

    def fields(self, state: int) -> Mapping[str, Any]:
        """The fields of the layout."""
        return self.layout.unpack(state)


def _grouped(rules: Sequence[Rule]) -> list[list[Rule]]:
    """The rules in groups that touch few bits: each rule joins the group to which it adds the fewest."""
    groups: list[list[Rule]] = []
    touched: list[int] = []
    for rule in rules:
        bits = rule.mask | rule.changed
        fits = [at for at, known in enumerate(touched) if (known | bits).bit_count() <= _MOST_BITS]
        if fits:
            best = min(fits, key=lambda at: (touched[at] | bits).bit_count() - touched[at].bit_count())
            groups[best].append(rule)
            touched[best] |= bits
        else:
            groups.append([rule])
            touched.append(bits)
    return groups


def packed_breadth_first(search: Search, model: PackedModel) -> None:
    """Search all states, nearest first, without asking the model: `search.seen` has the parent of each state."""
    search.parents_are_states = True
    level, first = search.begin(), 0
    while level and not search.stopped_by:
        if search.depth == search.options.max_depth:
            search.stopped_by = "max_depth"
            return
        below: list[int] = []
        done = 0
        while done < len(level):
            began = perf_counter()
            batch = level[done : done + search.batch]
            fresh = _expand_packed(search, model.tables, batch, first + done)
            search.findings.look(fresh, len(search.seen) - len(fresh))
            below += fresh
            done += len(batch)
            if not search.goes_on(perf_counter() - began, len(batch), len(level) - done + len(below)):
                break
        first += len(level)
        level = below
        search.depth += bool(level)


def _expand_packed(search: Search, tables: Sequence[_Table], states: Sequence[int], first: int) -> list[int]:
    # One loop with local names only: it runs once for each transition, and a call in it would be most of its time.
    seen, most = search.seen, search.most
    pairs = [(table.bits, table) for table in tables]
    fresh: list[int] = []
    append = fresh.append
    transitions = 0
    for number, state in enumerate(states, first):
        before = transitions
        for bits, table in pairs:
            flips = table[state & bits]
            transitions += len(flips)
            for flip in flips:
                after = state ^ flip
                if after not in seen:
                    seen[after] = state
                    append(after)
        if transitions == before:
            search.findings.look_at_end(state, number)
        elif len(seen) > most:
            while len(seen) > most:
                seen.popitem()
                fresh.pop()
            search.stopped_by = "max_states"
            break
    search.transitions += transitions
    return fresh
