"""The exit codes of the command, and the code of each error."""

import signal
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from agentos.core.communication.voice.secrets_in_text import without_secrets

OK, FAILED, USAGE, DENIED, EVIDENCE, UNAVAILABLE, FAILS, NOT_DECIDED, OLDER_HEAD, NO_DATABASE = range(10)
SIGNAL_BASE: Final = 128  # the shell's convention for a process that a signal ended

EXIT_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        OK: "done",
        FAILED: "it failed, or a check failed: the message says why",
        USAGE: "wrong usage or settings, an input file or a model that can't be used, or an unknown id",
        DENIED: "the policy denied it; the verdict says why and what would help",
        EVIDENCE: "evidence is not durable, or the chain is broken, was cut off, or is at odds with what is stored beside it",
        UNAVAILABLE: "not available now: overloaded, no speech-to-text engine, or the store or a service can't be reached",
        FAILS: "a property of a model or a promise of a simulation fails: the report has the run that breaks it",
        NOT_DECIDED: "not decided: a search ended before all was seen, or a kind of fault hardly came in a simulation",
        OLDER_HEAD: "head-before-carry-over: a noted head is one of the older chain that this one was made from",
        NO_DATABASE: "the file is no database, or one of something else",
        SIGNAL_BASE + signal.SIGINT: "interrupted (Ctrl-C); a call was stopped in order",
        SIGNAL_BASE + signal.SIGPIPE: "the reader of the output went away",
        SIGNAL_BASE + signal.SIGTERM: "asked to end (SIGTERM); a call was stopped in order",
    }
)
"""The meaning of each exit code."""


class Interrupted(Exception):
    """A signal, `signum`, came before there was a call to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}; nothing was done")
        self.signum = signum
        self.interrupted = True  # the same field as in the result of a call that a signal stopped


class InputError(ValueError):
    """An argument on the command line can't be used; the message says what is wrong and what to give."""


def first_error(error: BaseException) -> BaseException:
    """The error itself, out of the exception groups in which task groups wrap it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def exit_code(error: BaseException) -> int:
    """The exit code of an error."""
    from agentos.core.communication.voice import errors  # noqa: PLC0415 - `--help` must not load pydantic
    from agentos.core.communication.voice.audio.files import AudioFileError  # noqa: PLC0415 - nor numpy
    from machines.checker.model import ModelError  # noqa: PLC0415 - as above

    if isinstance(error, Interrupted):
        return SIGNAL_BASE + error.signum
    if isinstance(error, errors.NotADatabase):
        return NO_DATABASE
    if isinstance(error, errors.StoreError):
        return {"corrupt": EVIDENCE, "schema": USAGE}.get(error.kind, UNAVAILABLE)
    codes: tuple[tuple[tuple[type[BaseException], ...], int], ...] = (
        ((InputError, AudioFileError, ModelError, errors.SessionNotFound), USAGE),
        ((errors.InvalidRequest, errors.Unrecordable, errors.SettingsError, errors.ProviderNotConfigured), USAGE),
        ((errors.UnusableExtension,), USAGE),
        ((errors.PolicyDenied,), DENIED),
        ((errors.EvidenceNotDurable, errors.EvidenceUnavailable), EVIDENCE),
        ((errors.Overloaded, errors.Draining, errors.STTUnavailable), UNAVAILABLE),
        ((errors.ServiceNotReachable, errors.CannotListen), UNAVAILABLE),
    )
    return next((code for kinds, code in codes if isinstance(error, kinds)), FAILED)


def described(error: BaseException, code: int, message: str | None = None) -> dict[str, Any]:
    """The error as the JSON object that `--json` prints: type, message, exit code, and the error's own fields."""
    fields = {name: _plain(value) for name, value in vars(error).items() if not name.startswith("_")}
    known = {name: value for name, value in fields.items() if value is not None}
    text = one_line(message if message is not None else str(error))
    return {"error": {**known, "type": type(error).__name__, "message": text, "exit_code": code}}


def one_line(text: str) -> str:
    """`text` without line breaks."""
    return " ".join(text.split())


def _plain(value: object) -> Any:
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return without_secrets(value)
    return value if isinstance(value, int | float | bool) else None
