"""The door of a session: it takes audio bytes in, cuts them into 20 ms frames, and keeps them for the ports.

Audio bytes never enter an actor. The door cuts the stream into frames, numbers them, keeps the bytes, and sends a `Frames`
message that names them; the ports fetch the bytes by session and number. Chunks may come in any size from any thread: an
unfinished frame waits for the next chunk.
"""

from collections import deque
from collections.abc import Callable
from sys import maxsize
from threading import Condition, RLock
from typing import Any

from actors.voice.messages import Frames, Mismatched
from agentos.core.communication.voice.errors import ChunkTooLarge, InvalidRequest, InvalidState
from agentos.core.time import monotonic_ms
from machines.audio import AudioFormat
from machines.losses import Losses, counted
from machines.reasons import LOST_ON_THE_WAY
from machines.session import VoiceSessionState

OPEN_STATES = (VoiceSessionState.CREATED, VoiceSessionState.ACTIVE)


NOTHING_LOST = Losses()


class FramesGivenUp(KeyError):
    """The door dropped the run for newer audio of a session that can't be slowed."""


class DoorLock:
    """The lock that all doors of one service share. A door holds it for some microseconds; a lock for each door would be one
    more object to touch for every frame."""

    __slots__ = ("more_room", "mutex")

    def __init__(self) -> None:
        self.mutex = RLock()
        self.more_room = Condition(self.mutex)


class _PortQueue:
    """The runs that one port has not fetched yet: nearly always none or one, so one run has fields of its own.

    `dealt` counts the frames that the port has fetched and handled, `lost` those that it will never ask for; `astray` has the
    frames of these that were here. No frame below `given_up` is here any more.
    """

    __slots__ = ("astray", "count", "data", "dealt", "first", "given_up", "lost", "more")

    def __init__(self, dealt: int) -> None:
        self.first = self.count = self.lost = self.given_up = 0
        self.astray: Losses | None = None
        self.dealt = dealt
        self.data: bytes | None = None
        self.more: deque[tuple[int, int, bytes]] | None = None

    def put_behind(self, first: int, count: int, data: bytes) -> None:
        """Keep a run behind others."""
        if self.more is None:
            self.more = deque([(first, count, data)])
        else:
            self.more.append((first, count, data))

    def take(self, first: int) -> bytes:
        """The run that begins with this number. Earlier runs got lost between the actors, which declare them."""
        while self.data is not None and self.first < first:
            self.lost += self.count
            if self.astray is None:
                self.astray = Losses()
            self.astray.add(self.first, self.count, LOST_ON_THE_WAY)
            self._next()
        if self.data is None or self.first != first:
            raise FramesGivenUp(first) if first < self.given_up else KeyError(first)
        data = self.data
        if self.more is None:
            self.data = None
        else:
            self._next()
        return data

    def give_up_oldest(self, before: int) -> None:
        """Give up the runs that begin before this frame, but not the newest one."""
        while self.more and self.first < before:
            self._next()
            self.given_up = self.first

    def clear(self) -> None:
        """Drop all runs."""
        self.data = self.more = None
        self.given_up = 0

    def _next(self) -> None:
        if self.more:
            self.first, self.count, self.data = self.more.popleft()
        else:
            self.data = self.more = None


class Door:
    """One session's way in; safe from many threads.

    `limit` is the number of frames that may wait inside, in the slower of the ports, of which there are `ports`, each known
    by its number. `deliver` puts a message into the mailbox at `ref`, and is called in the order of the frames; `ref` is set
    when the session is there. All doors of a service share one `lock`. The first frame gets the number `first`: those below
    came in through a door of another process. `taps` are further ports, by name, that hold nobody up.

    A session that can't be slowed (`can_be_slowed` is False) always has room. Of what its ports have not fetched the oldest
    runs go first, as soon as more than `limit` frames wait; a port that asks for them learns that they were given up. What a
    port has fetched, it bounds itself.

    Nearly all that is here runs for every frame of every session, and with a thousand sessions most of its cost is memory
    that is not in the cache. So it touches little: few objects, few fields, a look at the ports' progress only when the room
    that was there at the last look is used up, and locks taken without a `with`, which doubles their price.
    """

    __slots__ = (
        "_can_be_slowed",
        "_carry",
        "_deliver",
        "_frame_bytes",
        "_known_room",
        "_limit",
        "_lock",
        "_max_chunk",
        "_next",
        "_queues",
        "_sample_bytes",
        "_skipped",
        "_taps",
        "_waiters",
        "_waiting",
        "last_ms",
        "ref",
        "session_id",
        "state",
    )

    def __init__(  # noqa: PLR0913 - nearly all arguments are keywords
        self,
        session_id: str,
        audio_format: AudioFormat,
        *,
        ports: int,
        limit: int,
        max_chunk: int,
        deliver: Callable[[Any, Frames | Mismatched], None],
        lock: DoorLock,
        can_be_slowed: bool = True,
        first: int = 0,
        taps: tuple[str, ...] = (),
    ) -> None:
        self.session_id = session_id
        self.state = VoiceSessionState.CREATED
        self.ref: Any = None
        self._deliver = deliver
        self.last_ms = monotonic_ms()
        self._frame_bytes = audio_format.frame_bytes
        self._sample_bytes = audio_format.sample_bytes
        self._limit = limit
        self._max_chunk = max_chunk
        self._carry = b""
        self._next = first
        self._skipped: tuple[tuple[str, int], ...] = ()  # since the last frame, by reason
        self._can_be_slowed = can_be_slowed
        self._known_room = first + limit if can_be_slowed else maxsize  # frames below this number certainly have room
        self._queues = tuple(_PortQueue(first) for _ in range(ports))
        self._taps = {name: _PortQueue(first) for name in taps}
        self._lock = lock
        self._waiting = 0
        self._waiters: tuple[Callable[[], None], ...] = ()

    def offer(self, data: bytes) -> bool:
        """Take a chunk if there is room. Returns True if all of the chunk is in, False if none of it is.

        Raises `InvalidState`, naming the state, if the session takes no audio any more, `InvalidRequest` if `data` is no bytes,
        `ChunkTooLarge` if it is too long.
        """
        if data.__class__ is not bytes:
            data = _as_bytes(data)
        if len(data) > self._max_chunk:
            raise ChunkTooLarge(len(data), self._max_chunk)
        mutex = self._lock.mutex
        mutex.acquire()
        try:
            if self.state not in OPEN_STATES:
                raise InvalidState(self.session_id, self.state)
            begun = bool(self._carry)
            if begun:
                data = self._carry + data
            count = len(data) // self._frame_bytes
            if self._next + count > self._known_room and not self._has_room(count):
                return False
            cut = count * self._frame_bytes
            if cut != len(data):
                self._carry = data[cut:]
                data = data[:cut]
            elif self._carry:
                self._carry = b""
            if count:
                self._let_in(data, count)
            elif self._carry and not begun and not self._next:
                # Tell the session that audio has begun, though no frame is whole yet.
                self._deliver(self.ref, Frames(0, 0, 0, monotonic_ms()))
        finally:
            mutex.release()
        return True

    def offer_within(self, data: bytes, seconds: float) -> bool:
        """Like `offer`, but wait in this thread for room, up to `seconds`."""
        deadline = monotonic_ms() + int(seconds * 1000)
        with self._lock.mutex:
            self._waiting += 1
            try:
                while not self.offer(data):
                    if not self._lock.more_room.wait((deadline - monotonic_ms()) / 1000):
                        return self.offer(data)
            finally:
                self._waiting -= 1
        return True

    def finish(self) -> tuple[int, tuple[tuple[str, int], ...]]:
        """Let the unfinished frame in, as a last short frame of whole samples. Half a sample stays outside and is counted in
        `leftover`.

        Returns the number behind the last frame that came, and the skipped frames behind it, by reason, which no later frame
        shows."""
        with self._lock.mutex:
            whole = len(self._carry) - len(self._carry) % self._sample_bytes
            data, self._carry = self._carry[:whole], self._carry[whole:]
            if data and self.state in OPEN_STATES:
                self._let_in(data, 1)
            return self._next - sum(count for _, count in self._skipped), self._skipped

    def skip(self, count: int, reason: str) -> None:
        """Skip the next `count` frame numbers, for `reason`: these frames never come. The recipients of the frames see the hole
        in the numbers, and declare it.

        Raises `InvalidState`, naming the state, if the session takes no audio any more.
        """
        with self._lock.mutex:
            if self.state not in OPEN_STATES:
                raise InvalidState(self.session_id, self.state)
            self._next += count
            self._skipped = counted(self._skipped, reason, count)
            if self._can_be_slowed:
                self._known_room += count
            for queue in self._queues:
                queue.lost += count

    def mismatched(self, reason: str, audio_ms: int, media_ms: int) -> None:
        """Tell the session that its audio does not fit its capture clock: `audio_ms` of audio came in `media_ms`."""
        with self._lock.mutex:
            if self.state in OPEN_STATES:
                self._deliver(self.ref, Mismatched(reason, audio_ms, media_ms))

    @property
    def room_below(self) -> int:
        """Frames below this number have room now, in chunks of any size. The number never falls."""
        with self._lock.mutex:
            if not self._can_be_slowed:
                return self._next + self._limit
            self._has_room(0)
            return self._known_room

    @property
    def accepted(self) -> int:
        """The number of frames that were let in."""
        return self._next

    @property
    def skipped(self) -> tuple[tuple[str, int], ...]:
        """The skipped frames at the end, by reason."""
        return self._skipped

    @property
    def leftover(self) -> int:
        """The number of bytes that are not part of a frame (yet)."""
        return len(self._carry)

    def close(self) -> None:
        """Drop all frames, and wake all callers that wait for room; they get `InvalidState`."""
        with self._lock.mutex:
            if self.state in OPEN_STATES:
                self.state = VoiceSessionState.STOPPING
            for queue in self._queues:
                queue.clear()
            for tap in self._taps.values():
                tap.clear()
            self._wake()

    def take(self, port: int, first: int) -> bytes:
        """The bytes of the run that begins with frame `first`, for `port`; a port can fetch a run once.

        Raises `KeyError` if the run was fetched before, or the door is closed; `FramesGivenUp` if it was dropped for newer
        audio.
        """
        mutex = self._lock.mutex
        mutex.acquire()
        try:
            queue = self._queues[port]
            data = queue.data
            if data is None or queue.first != first or queue.more is not None:
                return queue.take(first)
            queue.data = None
            return data
        finally:
            mutex.release()

    def take_tap(self, tap: str, first: int) -> bytes:
        """The bytes of the run that begins with frame `first`, for the port called `tap`. Raises as `take` does."""
        with self._lock.mutex:
            return self._taps[tap].take(first)

    def astray(self, port: int) -> Losses:
        """The frames that `port` never fetched though it fetched later ones; waiting frames are not among them. From any
        thread."""
        return self._queues[port].astray or NOTHING_LOST

    def room(self, port: int, frames: int) -> None:
        """Note that `port` has handled so many frames; from that port's thread."""
        self._queues[port].dealt += frames
        if self._waiting or self._waiters:
            with self._lock.mutex:
                self._wake()

    def on_room(self, callback: Callable[[], None]) -> None:
        """Call `callback` the next time that there is more room; it may come from any thread."""
        with self._lock.mutex:
            self._waiters = (*self._waiters, callback)

    def _let_in(self, data: bytes, count: int) -> None:
        first = self._next
        self._next = first + count
        for queue in self._queues:
            if queue.data is None:
                queue.first, queue.count, queue.data = first, count, data
            else:
                queue.put_behind(first, count, data)
                if not self._can_be_slowed:
                    queue.give_up_oldest(self._next - self._limit)
        if self._taps:
            self._let_tap(first, count, data)
        self.last_ms = now = monotonic_ms()
        skipped, self._skipped = self._skipped, ()
        self._deliver(self.ref, Frames(first, count, len(data), now, skipped))

    def _let_tap(self, first: int, count: int, data: bytes) -> None:
        """Keep a run for the ports that hold nobody up: of each, the oldest runs go once more than the limit wait."""
        for tap in self._taps.values():
            if tap.data is None:
                tap.first, tap.count, tap.data = first, count, data
            else:
                tap.put_behind(first, count, data)
                tap.give_up_oldest(self._next - self._limit)

    def _has_room(self, count: int) -> bool:
        """Whether `count` frames have room, by the ports' progress. A chunk larger than the limit has room if no frame
        waits."""
        behind = max(0, *(self._next - queue.dealt - queue.lost for queue in self._queues))
        self._known_room = self._next + self._limit - behind
        return self._next + count <= self._known_room or not behind

    def _wake(self) -> None:
        self._lock.more_room.notify_all()
        waiters, self._waiters = self._waiters, ()
        for callback in waiters:
            callback()


def _as_bytes(data: object) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise InvalidRequest(f"audio_data must be bytes, got {type(data).__name__}", field="audio_data")
