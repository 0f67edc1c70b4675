"""What a supervisor is told of its children, as data: who they are, in which order, and what their ends mean.

The words are those of Erlang/OTP. `Restart` says whose end calls for a new beginning, `Strategy` who else begins again with
them, `AutoShutdown` when the end of children that are `significant` is the end of the supervisor.
"""

from collections.abc import Callable, Mapping
from enum import Enum

from msgspec import Struct

from actors.runtime.actor import Actor
from actors.runtime.mailbox import KEEP_MAIL, MailRule, Ref
from machines.restart import Backoff, Intensity


class Restart(Enum):
    """Whether a child that ended begins again: always, only after a crash, or never."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


class Strategy(Enum):
    """Who begins again when one child must: it alone, all of them, or it and those that were started after it."""

    ONE_FOR_ONE = "one for one"
    ONE_FOR_ALL = "one for all"
    REST_FOR_ONE = "rest for one"


class AutoShutdown(Enum):
    """When a supervisor ends by itself: never, or when one or the last of its significant children has ended for good."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any significant"
    ALL_SIGNIFICANT = "all significant"


class SupervisionError(ValueError):
    """What a supervisor is to do with its children contradicts itself; the text says what to change."""


class ChildSpec(Struct, frozen=True):
    """One child. `make` gives a new actor; it is handed the addresses of the children before it, by their names.

    `shutdown` is for how many seconds a child that handles `Shutdown` may go on once it was told; one that does not handle it,
    or has 0 seconds, is ended at once. `mail` is what a restart does to its mailbox. A `significant` child counts for the
    supervisor's `auto_shutdown`.
    """

    name: str
    make: Callable[[Mapping[str, Ref]], Actor]
    restart: Restart = Restart.PERMANENT
    shutdown: float = 5.0
    mail: MailRule = KEEP_MAIL
    significant: bool = False

    def __post_init__(self) -> None:
        if self.shutdown < 0.0:
            raise SupervisionError(f"child {self.name!r}: shutdown is {self.shutdown} seconds, it can't be negative")
        if self.significant and self.restart is Restart.PERMANENT:
            raise SupervisionError(
                f"child {self.name!r} is significant and permanent, so it never ends: make it transient or temporary"
            )


class Supervision(Struct, frozen=True):
    """The children of one supervisor, in the order in which they are started; they are stopped in the reverse order.

    More restarts than `intensity` allows, of all children together, and the supervisor fails. Before that, each restart of a
    child waits as its `backoff` says.
    """

    children: tuple[ChildSpec, ...]
    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: Intensity = Intensity(3, 30.0)
    backoff: Backoff = Backoff()
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER

    def __post_init__(self) -> None:
        names = [child.name for child in self.children]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SupervisionError(f"two children have one name: {', '.join(twice)}")
        significant = [child.name for child in self.children if child.significant]
        if bool(significant) != (self.auto_shutdown is not AutoShutdown.NEVER):
            raise SupervisionError(
                f"auto_shutdown is {self.auto_shutdown.value!r}, and significant are: {', '.join(significant) or 'none'}; "
                "have both or neither"
            )
