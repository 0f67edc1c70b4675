"""What a store must do: keep rows of the tables in `tables.py`, in transactions that are durable. Everything else is ours.

`VoiceStore` (`store.py`) makes of it the evidence chain, sessions, events and tokens, so that each rule of those stands once,
whatever keeps the rows. A store of a host's own implements the three protocols here and passes
`agentos.core.communication.voice.testing.store_conformance`.

**Threads.** Every method may be called from any thread, by several threads at once, and blocks. None of them is called by the
event loop's thread. No thread opens a block inside another block.

**Processes.** Several processes may have one store open, each through a `Database` of its own.

**Errors.** Whatever fails raises `StoreError`, whose `kind` says why: "full" (no space left), "locked" (another holds the store
for longer than it may be waited for), "corrupt" (what is stored can't be read), "readonly", "gone" (nobody would find what
is written), "io" (anything else, and a store that was closed). Nothing else is raised. A failed transaction has changed
nothing, or is whole: a store that lost the answer of its commit may raise although the transaction is stored, since whoever
appends evidence tries again and stores nothing twice. A store that failed goes on to work as soon as it can.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from agentos.core.communication.voice.storage.tables import R, Table

Where = Mapping[str, Sequence[str] | Sequence[int]]
"""For some columns the values that a row may have there; none, where the sequence is empty. There may be thousands."""


class Reading(Protocol):
    """One view of all tables: it does not change while its block is open, whatever others commit meanwhile."""

    def select(
        self,
        table: Table[R],
        where: Where | None = None,
        *,
        order: Sequence[str] = (),
        descending: bool = False,
        after: Sequence[str | int] | None = None,
        limit: int | None = None,
    ) -> Iterator[R]:
        """The rows that `where` admits, all of them without it; the iterator is good as long as the block.

        With `order` they come by the values of these columns, in the order of the numbers or of the text's code points,
        `descending` the other way round. `after` has a value for each column of `order`: only rows behind these come. At most
        `limit` come. Columns in `order` are never None.

        A table may have millions of rows: a store reads those that are asked for, and holds no more than some hundreds at
        once. These are asked for often, and worth an index: the key; `evidence` by id, and by request_id in the order of seq;
        `sessions` by project_id, by state and all of them, in the order of created_at and session_id; `recordings` by
        session_id and by state; `tokens` and `streams` by hash; `idempotency_keys` in the order of expires_at_ms.
        """
        ...

    def count(self, table: Table[R], where: Where | None = None) -> int:
        """How many rows `select` would give."""
        ...


class Writing(Reading, Protocol):
    """One transaction. It reads what it has written, and nobody else does before the commit.

    Transactions stand in one line: what one of them has read, no other one changes before its commit. The end of the chain is
    read and moved in one, so that two processes never add a link at one place.
    """

    def add(self, table: Table[R], rows: Sequence[R]) -> int:
        """Add these rows but those whose key is stored, which stay as they are, as does the first of two with one key here.
        Returns how many were added."""
        ...

    def put(self, table: Table[R], rows: Sequence[R]) -> None:
        """Add these rows, each in the place of the one with its key, if there is one."""
        ...

    def delete(self, table: Table[R], keys: Sequence[tuple[str | int, ...]]) -> None:
        """Remove the rows with these keys; one that is not there is none."""
        ...


class Database(Protocol):
    """A store, opened by this process."""

    @property
    def place(self) -> str:
        """Where it is, for messages: a path, a URL without a password."""
        ...

    def reading(self, *, damaged: bool = False) -> AbstractContextManager[Reading]:
        """A block in which one view of the store can be read. It waits for no transaction, and holds none up, as far as the
        store can do that.

        Text that was altered so that it is no UTF-8 raises `StoreError` "corrupt"; with `damaged` it comes with replacement
        characters, for a walk along the chain that says at which record it breaks.
        """
        ...

    def transaction(self) -> AbstractContextManager[Writing]:
        """A block that writes. When it is left, everything in it is durable, all at once, and outlives the process, and a power
        cut as far as the disk tells the truth. When it is left by an exception, nothing of it is stored.

        It waits a bounded time for others that write, and raises `StoreError` "locked" then. Raises "gone" as `check` does,
        also when that turns out behind the commit. Where ownership hangs on the store itself (`ownership.py`), an owner that
        another one has taken the place of gets "gone" too.
        """
        ...

    def check(self) -> None:
        """Whether what is written is where others will find it. Raises `StoreError` "gone" when the store was deleted, moved or
        replaced under this process."""
        ...

    def close(self) -> None:
        """Let go of it; later calls raise `StoreError`, a second close does nothing. A block that is open in another thread
        ends as it would have."""
        ...
