"""The token watch ends streams whose access token was revoked or has expired.

A request is over before a revocation matters; a stream of audio or of events may go on for hours. Once in `LOOK_SECONDS` the
watch checks the tokens of all open streams together, whichever process revoked them.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
import anyio.to_thread

from agentos.core.communication.voice.errors import VoiceError
from agentos.core.communication.voice.gateway.access.control import LOCAL
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.measuring.looks import Look

LOOK_SECONDS: Final = 1.0

log = logger(__name__)


class TokenWatch:
    """Ends streams whose token is no longer valid. `standing` returns the valid ones of some token ids; it may block. For one
    event loop, in which `run` must be running."""

    def __init__(self, standing: Callable[[Collection[str]], Collection[str]]) -> None:
        self._standing = standing
        self._open: dict[str, set[Callable[[], None]]] = {}

    @contextmanager
    def open_for(self, token_id: str, end: Callable[[], None]) -> Iterator[None]:
        """Watch this token within the block: `end` is called, on the loop, when the token is no longer valid. Each call needs
        an `end` of its own."""
        if token_id == LOCAL.token_id:
            yield
            return
        ends = self._open.setdefault(token_id, set())
        ends.add(end)
        try:
            yield
        finally:
            ends.discard(end)
            if not ends and self._open.get(token_id) is ends:
                del self._open[token_id]

    async def run(self) -> None:
        """Check tokens until cancelled. While the store can't be read, all streams stay open."""
        look = Look("access tokens")
        while True:
            await anyio.sleep(LOOK_SECONDS)
            if self._open:
                with look:
                    await self._look()

    async def _look(self) -> None:
        asked = list(self._open)
        try:
            standing = await anyio.to_thread.run_sync(self._standing, asked, abandon_on_cancel=True)
        except VoiceError as error:
            log.warning("tokens_not_looked_at", problem=str(error))
            return
        for token_id in set(asked) - set(standing):
            ends = self._open.get(token_id, set())
            log.info("token_stands_no_longer", token_id=token_id, ended=len(ends))
            for end in tuple(ends):
                end()

    def __len__(self) -> int:
        """How many tokens are watched."""
        return len(self._open)
