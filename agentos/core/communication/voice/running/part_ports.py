"""The ports of further parts of a call: opened with the service, given the calls' audio, closed with the service."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Full, Queue
from threading import Thread
from typing import Any, Final

from actors.runtime.actor import ActorDeclarationError
from actors.runtime.mailbox import Ref
from actors.voice.call_part import CallAudio, CallPart, PortOfPart, check_parts
from actors.voice.messages import Facts
from actors.voice.standard_parts import STANDARD_PARTS
from agentos.core.communication.voice.errors import UnusableExtension
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.sessions.directory import Directory
from machines.frozen import FrozenDict

PARTS: Final = "parts"
"""What an `UnusableExtension` calls the parts that a host brings."""

OWN_PORTS: Final = frozenset({"directory", "heads", "media", "recordings", "recovery", "speech", "store"})
MOST_WORK: Final = 100_000  # that may wait at a `ThreadPort`: half an hour of frames

log = logger(__name__)


class PortAudio:
    """The audio of running calls for the port `name`, as a `CallAudio`."""

    def __init__(self, name: str, directory: Directory, post: Callable[[Ref, object], None]) -> None:
        self._name = name
        self._directory = directory
        self._post = post

    def take(self, session_id: str, first: int) -> bytes:
        """The bytes of a run; see `CallAudio.take`."""
        return self._directory.take_tap(self._name, session_id, first)

    def tell(self, ref: Ref, message: object) -> None:
        """Put `message` into the mailbox at `ref`. Raises `TypeError` for another `ref`, here and not in the actors' turn."""
        if not isinstance(ref, Ref):
            raise TypeError(f"a message goes to the Ref of an actor, not to {ref!r:.80}")
        self._post(ref, message)


class ThreadPort:
    """A port with a thread of its own, for work that blocks or computes: a subclass says in `work` what is to be done.

    `submit` never blocks. What `work` raises is logged, and the next work goes on. At most `MOST_WORK` pieces wait; what comes
    then is dropped, and the log says so.
    """

    def __init__(self, audio: CallAudio) -> None:
        self.audio = audio
        self._waiting: Queue[Any] = Queue(MOST_WORK)
        self._closed = False
        self._thread = Thread(target=self._run, name=f"agentos-voice {type(self).__name__}", daemon=True)
        self._thread.start()

    def work(self, work: Any) -> None:
        """Do one piece of work that an actor handed over with `out.port`; runs in the thread."""
        raise NotImplementedError

    def submit(self, work: object) -> None:
        """Hand over a piece of work."""
        if self._waiting.full():
            log.error("part_work_dropped", port=type(self).__name__, waiting=MOST_WORK)
        else:
            self._waiting.put_nowait(work)

    def close(self, seconds: float) -> bool:
        """Do no more work; whether the thread has ended within so many seconds."""
        self._closed = True
        with suppress(Full):
            self._waiting.put_nowait(None)  # wakes a thread that has nothing to do
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            work = self._waiting.get()
            if self._closed:
                return
            try:
                self.work(work)
            except (Exception, SystemExit):  # whatever it raises, it has other calls to work for
                log.exception("part_work_failed", port=type(self).__name__)


class _Release:
    """A port, for the work that ends what it does for one call: what it raises is logged, and the call ends all the same."""

    def __init__(self, name: str, port: PortOfPart) -> None:
        self._name = name
        self._port = port

    def submit(self, work: object) -> None:
        """Hand over a piece of work."""
        try:
            self._port.submit(work)
        except Exception:  # whatever a port of a host's own raises
            log.exception("part_work_failed", port=self._name)


class PartPorts:
    """The parts that a host brings, and their ports. Raises `ActorDeclarationError` as `check_parts` does, and for a part whose
    port has the name of one of the service's own."""

    def __init__(self, parts: Iterable[CallPart]) -> None:
        self._added = tuple(parts)
        self.call_parts = (*STANDARD_PARTS, *self._added)
        check_parts(self.call_parts)
        for part in self._added:
            if part.port in OWN_PORTS:
                problem = f"the port {part.port!r} of the part {part.name!r} is one of the service's own"
                raise ActorDeclarationError(problem)
            try:
                part.begins_with(None)
            except Exception as error:
                raise ActorDeclarationError(f"begins_with(None) of the part {part.name!r} raised {error!r}") from error
        self._open: dict[str, PortOfPart] = {}

    def open(self, directory: Directory, post: Callable[[Ref, object], None]) -> FrozenDict[Any]:
        """Open the ports; by name. Raises `UnusableExtension` for a part that gives none, and what `open_port` raises."""
        for part in self._added:
            if part.port and part.port not in self._open:
                port: object = part.open_port(PortAudio(part.port, directory, post))
                if not (hasattr(port, "submit") and hasattr(port, "close")):
                    raise UnusableExtension(PARTS, part.name, f"open_port() gave no port, but {port!r:.80}")
                self._open[part.port] = port
        return FrozenDict(self._open)

    def releases(self) -> FrozenDict[Any]:
        """The open ports, for the work of `CallPart.release`; by name."""
        return FrozenDict({name: _Release(name, port) for name, port in self._open.items()})

    def taps(self, facts: Facts) -> tuple[str, ...]:
        """The ports that get the audio of a call with these facts. Raises `UnusableExtension` for a part that does not say
        whether the call has it."""
        taps: dict[str, None] = {}
        for part in self._added:
            try:
                taken = part.takes(facts)
            except Exception as error:
                raise UnusableExtension(PARTS, part.name, f"takes() raised {type(error).__name__}: {error}") from error
            if taken and part.port:
                taps[part.port] = None
        return tuple(taps)

    def close(self, seconds: float) -> dict[str, bool]:
        """Close the ports, each within so many seconds; by name, whether it was closed in time. Their errors are logged."""
        return {name: self._closed(name, port, seconds) for name, port in self._open.items()}

    @staticmethod
    def _closed(name: str, port: PortOfPart, seconds: float) -> bool:
        try:
            return port.close(seconds)
        except Exception:  # it must not keep the store from being closed
            log.exception("part_port_not_closed", port=name)
            return True
