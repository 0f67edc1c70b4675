"""What is in a model beside the actors: ports, clients, channels, and the faults that may happen.

A `Part` stands for something at the edge of the actors. As a port it takes their work; as a client it tells them things. It
decides nothing by itself: `choices` says what it could do next, and the checker tries all of it, in every order with
everything else. The same part can stand behind real actors in a test.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeVar

from actors.runtime.actor import is_suspended
from actors.runtime.mailbox import Message
from machines.checker.model import ModelError

T = TypeVar("T")

CRASH = "crash"  # an actor dies: before a step, or after k of its n effects
POISON = (
    "poison"  # a message kills its actor, and again when it is tried again: it is set aside, and its parent is told
)
CUT = "cut"  # the dispatcher's budget runs out in the middle of a turn
LATE = "late"  # a timer comes due before an answer that a sound port would have given by then


class UnknownFault(ModelError):
    """A budget names a kind of fault that nothing in the model can have: mistyped, most likely."""


class Answer(NamedTuple):
    """Work for the part that made a token: the reply to it, the first one only."""

    key: Any
    value: Any


class ModelToken:
    """The token of an ask that a part makes: the reply reaches that part as `Answer(key, value)`."""

    __slots__ = ("key", "part")

    def __init__(self, part: "Part", key: Hashable) -> None:
        self.part = part
        self.key = key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelToken) and self.part is other.part and self.key == other.key

    def __hash__(self) -> int:
        return hash((self.part.name, self.key))

    def __repr__(self) -> str:
        return f"<token {self.part.name}:{self.key}>"


class Choice(NamedTuple):
    """One thing that a part may do next.

    `label` names it in paths. `state` is the part's state afterwards; `tells` are messages to actors in order, `works` is work
    handed to other parts. `fault` names the kind of fault that it is, which the model's budget must allow. A `prompt` choice is
    what a sound port does in time: no timer comes due before it unless that is the fault (`LATE`). One that is not `fair` need
    never be taken, however long it could be; of those that are, one is taken in the end if one with its label stays possible.
    """

    label: str
    state: Any
    tells: tuple[tuple[Any, Any], ...] = ()
    works: tuple[tuple["Part", object], ...] = ()
    fault: str = ""
    prompt: bool = False
    fair: bool = True


class Part:
    """The base of what is not an actor. A subclass keeps settings in itself, and everything that changes in its state.

    `faults` are the kinds of faults that its choices name. Where every part of a model says so, a budget that names any other
    is refused; None says nothing.
    """

    faults: tuple[str, ...] | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("initial", "submit", "choices"):
            if is_suspended(getattr(cls, name), but_generators=name == "choices"):
                raise TypeError(f"{cls.__name__}.{name} is an async function or has a yield, and would never run")

    def __init__(self, name: str) -> None:
        self.name = name

    def kinds(self) -> tuple[str, ...] | None:
        """The kinds of faults that it may have, None if it does not say."""
        return () if type(self).choices is Part.choices else self.faults

    def initial(self) -> Any:
        """The state it begins in; immutable and hashable, as all states are."""
        return None

    def submit(self, state: Any, work: Any) -> Any:
        """The state after an actor, or another part, handed `work` over. Raising is a crash of the actor."""
        raise NotImplementedError(f"{self.name} takes no {type(work).__name__}")

    def choices(self, state: Any) -> Iterable[Choice]:
        """What it may do next, in an order that is always the same."""
        return ()

    def token(self, key: Hashable) -> ModelToken:
        """A token whose reply this part gets."""
        return ModelToken(self, key)

    def __repr__(self) -> str:
        return f"<part {self.name}>"


@dataclass(frozen=True)
class Faults:
    """How many faults a run may have: `total` of any kind, and of each kind at most what `kinds` says.

    Kinds are `CRASH`, `POISON`, `CUT`, `LATE`, and those that the parts' choices name; with `kinds` given, none but those may
    happen.
    `actors` are the names of those that may crash, of poison too; None for all. `in_a_turn` bounds how many strike in one turn;
    None for as many as the budget allows: a run with many is as cruel with one in each turn, and there are far fewer of these.
    """

    total: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    actors: frozenset[str] | None = None
    in_a_turn: int | None = None

    def __post_init__(self) -> None:
        if self.total < 0 or any(limit < 0 for limit in self.kinds.values()):
            raise ValueError(f"a budget can't be negative: {self}")


class Connection(Part):
    """A byte stream, as messages: first in, first out, nothing twice. When it is cut (the fault "cut off"), what was under way
    is lost from some message on, `lost` tells the actors, and what comes later goes over a new connection.

    Work is `(ref, message)`. Its state is what is under way.
    """

    faults = ("cut off",)

    def __init__(self, name: str, lost: Sequence[tuple[object, Message]] = ()) -> None:
        super().__init__(name)
        self._lost = tuple(lost)

    def initial(self) -> Any:
        """Nothing is under way."""
        return ()

    def submit(self, state: Any, work: Any) -> Any:
        """Behind what is under way."""
        return (*state, work)

    def choices(self, state: Any) -> Iterable[Choice]:
        """Deliver the oldest; or be cut, and deliver any number of the oldest before it."""
        if not state:
            return
        yield Choice("delivers", state[1:], tells=(state[0],))
        for kept in range(len(state)):
            yield Choice(f"is cut behind {kept}", (), tells=(*state[:kept], *self._lost), fault="cut off")


class Outside(Part):
    """Messages as the world carries them: in any order; lost or delivered twice as the faults "lost" and "duplicated".

    Work is `(ref, message)`. Its state is what is under way, sorted by how it looks, since order means nothing.
    """

    faults = ("lost", "duplicated")

    def initial(self) -> Any:
        """Nothing is under way."""
        return ()

    def submit(self, state: Any, work: Any) -> Any:
        """Among what is under way."""
        return tuple(sorted((*state, work), key=repr))

    def choices(self, state: Any) -> Iterable[Choice]:
        """Deliver, lose or double any of them."""
        for at, work in enumerate(state):
            if at and state[at - 1] == work:
                continue
            rest = (*state[:at], *state[at + 1 :])
            yield Choice(f"delivers {_text(work)}", rest, tells=(work,))
            yield Choice(f"loses {_text(work)}", rest, fault="lost")
            yield Choice(f"delivers {_text(work)}, and again later", state, tells=(work,), fault="duplicated")


def _text(work: tuple[object, Message]) -> str:
    return f"{work[1]!r} to {path_of(work[0])}"


def path_of(ref: Any) -> str:
    """Where an actor stands, from the top: "supervisor/door"; of an address in a model, or of one in a system."""
    return ref.name if ref.parent is None else f"{path_of(ref.parent)}/{ref.name}"


def found_at(path: str, living: Mapping[str, T]) -> T:
    """What lives at a path. Raises `ModelError` that tells what does live, if nothing lives there."""
    if path in living:
        return living[path]
    like = get_close_matches(path, living)
    names = ", ".join(map(repr, like or sorted(living))) or "nobody"
    raise ModelError(f"no actor {path!r} lives by now; " + (f"did you mean {names}?" if like else f"there is {names}"))
