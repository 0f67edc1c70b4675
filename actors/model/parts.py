"""The parts of a model beside its actors: ports, clients, channels; and the budget of faults.

A `Part` stands for something at the edge of the actors. As a port it takes their work; as a client it tells them messages. A
part decides nothing by itself: `choices` lists what it could do next, and the checker tries every choice in every order with
all other events. The same part can stand behind real actors in a test.
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
POISON = "poison"  # a message kills its actor twice: it is set aside, and the actor's parent is told
CUT = "cut"  # the dispatcher's budget runs out in the middle of a turn
LATE = "late"  # a timer comes due before an answer that a sound port would have given in time


class UnknownFault(ModelError):
    """A budget names a kind of fault that no part of the model can have; most likely it is mistyped."""


class Answer(NamedTuple):
    """Work for the part that made a token: the first reply to the token."""

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

    `label` names the choice in paths. `state` is the part's state afterwards; `tells` are messages to actors in order, `works`
    is work handed to other parts. `fault` is the kind of fault if the choice is one; the model's budget must allow it. A sound
    port takes a `prompt` choice in time: no timer comes due before it except by the fault `LATE`. A choice that is not `fair`
    need never be taken, however long it is possible; a fair choice is taken in the end while one with its label stays possible.
    """

    label: str
    state: Any
    tells: tuple[tuple[Any, Any], ...] = ()
    works: tuple[tuple["Part", object], ...] = ()
    fault: str = ""
    prompt: bool = False
    fair: bool = True


class Part:
    """The base of ports, clients and channels. A subclass keeps only settings in itself, and all that changes in its state.

    `faults` declares the kinds of faults of its choices; None declares nothing. If every part of a model declares them, a
    budget with any other kind is refused.
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
        """The kinds of faults that the part may have; None if it does not declare them."""
        return () if type(self).choices is Part.choices else self.faults

    def initial(self) -> Any:
        """The part's first state; immutable and hashable, as all states are."""
        return None

    def submit(self, state: Any, work: Any) -> Any:
        """The state after an actor, or another part, handed `work` over. An error raised here crashes the actor."""
        raise NotImplementedError(f"{self.name} takes no {type(work).__name__}")

    def choices(self, state: Any) -> Iterable[Choice]:
        """The part's choices, always in the same order."""
        return ()

    def token(self, key: Hashable) -> ModelToken:
        """A token whose reply comes to this part."""
        return ModelToken(self, key)

    def __repr__(self) -> str:
        return f"<part {self.name}>"


@dataclass(frozen=True)
class Faults:
    """The budget of faults in a run: `total` faults of any kind, and of each kind at most the number in `kinds`.

    Kinds are `CRASH`, `POISON`, `CUT`, `LATE`, and the parts' own; if `kinds` is given, no other kind may happen. `actors` are
    the names of the actors that may crash, also by poison; None for all. `in_a_turn` bounds the faults in one turn; None allows
    as many as the budget: one fault in each of many turns is as hard for the actors, with far fewer states.
    """

    total: int = 0
    kinds: Mapping[str, int] = field(default_factory=dict)
    actors: frozenset[str] | None = None
    in_a_turn: int | None = None

    def __post_init__(self) -> None:
        if self.total < 0 or any(limit < 0 for limit in self.kinds.values()):
            raise ValueError(f"a budget can't be negative: {self}")


class Connection(Part):
    """A byte stream of messages: first in, first out, none twice. When it is cut (the fault "cut off"), the messages under way
    are lost from some message on, `lost` tells the actors, and later messages go over a new connection.

    Work is `(ref, message)`. Its state has the messages under way.
    """

    faults = ("cut off",)

    def __init__(self, name: str, lost: Sequence[tuple[object, Message]] = ()) -> None:
        super().__init__(name)
        self._lost = tuple(lost)

    def initial(self) -> Any:
        """Nothing is under way."""
        return ()

    def submit(self, state: Any, work: Any) -> Any:
        """Put the message behind those under way."""
        return (*state, work)

    def choices(self, state: Any) -> Iterable[Choice]:
        """Deliver the oldest message; or cut the connection, after delivering any number of the oldest."""
        if not state:
            return
        yield Choice("delivers", state[1:], tells=(state[0],))
        for kept in range(len(state)):
            yield Choice(f"is cut behind {kept}", (), tells=(*state[:kept], *self._lost), fault="cut off")


class Outside(Part):
    """A network of datagrams: messages come in any order; lost or delivered twice by the faults "lost" and "duplicated".

    Work is `(ref, message)`. Its state has the messages under way, sorted by their text, since their order means nothing.
    """

    faults = ("lost", "duplicated")

    def initial(self) -> Any:
        """Nothing is under way."""
        return ()

    def submit(self, state: Any, work: Any) -> Any:
        """Put the message among those under way."""
        return tuple(sorted((*state, work), key=repr))

    def choices(self, state: Any) -> Iterable[Choice]:
        """Deliver, lose or double any message."""
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
    """The path of an actor from the top, "supervisor/door" say, for an address of a model or of a system."""
    return ref.name if ref.parent is None else f"{path_of(ref.parent)}/{ref.name}"


def found_at(path: str, living: Mapping[str, T]) -> T:
    """The value of `living` at a path. Raises `ModelError`, with the paths that do live, if the path is not among them."""
    if path in living:
        return living[path]
    like = get_close_matches(path, living)
    names = ", ".join(map(repr, like or sorted(living))) or "nobody"
    raise ModelError(f"no actor {path!r} lives by now; " + (f"did you mean {names}?" if like else f"there is {names}"))
