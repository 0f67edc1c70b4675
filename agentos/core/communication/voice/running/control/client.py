"""A connection to the control socket of a running service, for programs that block."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from actors.runtime.tracing import TraceLine
from agentos.core.communication.voice.errors import ServiceNotReachable, SessionNotFound
from agentos.core.communication.voice.running.control.folder import connect, folder_of, running
from agentos.core.communication.voice.running.control.protocol import (
    Answer,
    Follow,
    Inspect,
    Picture,
    Refused,
    Request,
    TraceEnded,
    TraceStep,
    Tracing,
    decode_answer,
    encode,
)
from agentos.core.communication.voice.running.inspection import ServicePicture

ANSWER_SECONDS: Final = 10.0  # a loop that is held up longer is itself the news


def services_of(home: Path) -> list[Path]:
    """The control sockets of the services that run in this home. Raises `ServiceNotReachable` when there is none."""
    found = running(home)
    if not found:
        raise ServiceNotReachable(
            f"no service answers in {folder_of(home)}: none runs with this home, or its setting control_socket is off"
        )
    return found


class ControlClient:
    """Asks the service behind one control socket; a context manager. `instance` is the service's name.

    Everything raises `ServiceNotReachable` when the service does not answer, or not in a form that is understood.
    """

    def __init__(self, path: Path) -> None:
        self.instance = path.stem
        self._path = str(path)
        try:
            self._connection = connect(path, ANSWER_SECONDS)
        except OSError as error:
            raise self._unreachable(f"it can't be connected to ({error.strerror or error})") from error
        self._answers = self._connection.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._answers.close()
        self._connection.close()

    def inspect(self, most_actors: int) -> ServicePicture:
        """The service now, with at most so many actors."""
        self._ask(Inspect(most_actors))
        answer = self._answer()
        if isinstance(answer, Picture):
            return answer.picture
        raise self._unreachable(f"it answered {answer!r}")

    def trace(self, session_id: str) -> Tracing:
        """Begin to trace a session; its `steps` follow. Raises `SessionNotFound` when it does not run there."""
        self._ask(Follow(session_id))
        answer = self._answer()
        if isinstance(answer, Tracing):
            return answer
        if isinstance(answer, Refused) and answer.kind == SessionNotFound.__name__:
            raise SessionNotFound(session_id)
        raise self._unreachable(f"it answered {answer!r}")

    def steps(self) -> Iterator[TraceLine | TraceEnded]:
        """The steps of the session that is traced as they come, and `TraceEnded` when it has stopped."""
        self._connection.settimeout(None)
        while isinstance(answer := self._answer(), TraceStep):
            yield answer.line
        if not isinstance(answer, TraceEnded):
            raise self._unreachable(f"it answered {answer!r}")
        yield answer

    def _ask(self, request: Request) -> None:
        try:
            self._connection.sendall(encode(request) + b"\n")
        except OSError as error:
            raise self._unreachable(f"it takes no request ({error.strerror or error})") from error

    def _answer(self) -> Answer:
        try:
            line = self._answers.readline()
        except OSError as error:
            raise self._unreachable(f"it does not answer ({error.strerror or error})") from error
        if not line:
            raise self._unreachable("it has ended, or does not talk to this client any more")
        try:
            return decode_answer(line)
        except msgspec.MsgspecError as error:
            raise self._unreachable(f"its answer is of another version ({error})") from error

    def _unreachable(self, problem: str) -> ServiceNotReachable:
        return ServiceNotReachable(f"the service {self.instance} can't be asked: {problem}", path=self._path)
