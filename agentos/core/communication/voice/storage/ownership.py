"""Whose sessions are whose: what a service holds as long as it lives, and what shows others that it died.

Every stored session names its owner. While an owner lives, nobody else touches its sessions. Whoever ends or resumes the
sessions of a dead owner takes the owner's place meanwhile, so that two never do it at once; if it dies too, the place is
free again. No process id and no clock decides: only something that the system takes away from a process with its life, such as
a file lock (`file_locks.py`) or a connection to a database server.

Every method may be called from any thread, and blocks. What fails raises `StoreError`; `LocksUnavailable` says that this place
can't tell who lives.
"""

from typing import Protocol


class Ownership(Protocol):
    """The place of one owner, held by this process."""

    @property
    def owner(self) -> str:
        """The owner's name."""
        ...

    def check(self) -> None:
        """Whether others still take this owner for alive. Raises `StoreError` "gone" when they don't: somebody may have taken
        its place. The owner takes no new call then, and only ends those that run; the chain keeps out what comes behind the
        final record of a session, whoever wrote that."""
        ...

    def sign(self) -> None:
        """Leave a sign of life, with the time."""
        ...

    def signed_ms(self) -> int:
        """When the owner left its last sign of life, or began if it left none, in milliseconds since the epoch. Taking the
        place of a dead owner is no sign of life."""
        ...

    def release(self) -> None:
        """Leave the place for good: nothing of this owner is left, and it is no longer among the names. A second time does
        nothing, and neither does one who has lost the place to another."""
        ...

    def forget(self) -> None:
        """Leave the place as a process that dies does: whoever looks next finds a dead owner, with its last sign of life."""
        ...


class Owners(Protocol):
    """All owners of one store, dead or alive."""

    def take(self, owner: str) -> Ownership:
        """Become `owner`, a name of letters, digits, `.`, `_` and `-` that nobody else has, before anything of this owner is
        stored.

        Raises `StoreError` "locked" when another process has the name.
        """
        ...

    def take_over(self, owner: str) -> Ownership | None:
        """Take the place of `owner` if it is dead, or never was; None while it lives, or while somebody else has its place. Of
        many that try at once one gets it."""
        ...

    def is_dead(self, owner: str) -> bool:
        """Whether nobody has the place of `owner` now, this process neither. Changes nothing."""
        ...

    def names(self) -> list[str]:
        """The owners that live, and the dead that were not released; sorted."""
        ...
