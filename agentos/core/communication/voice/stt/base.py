"""What a speech-to-text engine is, for the service that offers it and for the worker process that runs it.

An engine runs in a worker process, so it may block, hold the interpreter lock, or crash without harm to the calls. The service
knows its `SpeechEngine`: a name, where the engine is imported from, its configuration, and what a session may ask of it. The
worker imports it, makes an `Engine` of configuration and options, and feeds it. `registry` says which engines there are.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Protocol

from pydantic import BaseModel, ConfigDict

from actors.voice.messages import Word

SAMPLE_RATE: Final = 16_000


@dataclass(frozen=True, slots=True)
class PartialText:
    """What the current utterance looks like so far; it may still change."""

    text: str


@dataclass(frozen=True, slots=True)
class FinalText:
    """A finished utterance. Times are milliseconds from the first sample that the stream was fed."""

    text: str
    start_ms: int
    end_ms: int
    words: tuple[Word, ...] = ()


Result = PartialText | FinalText


class Engine(Protocol):
    """One stream at a time of mono signed 16 bit little-endian samples at 16 kHz, turned into text.

    After `finish` or `abort` the engine is used again, with `start`, for another session with the same options: nothing that it
    learned from one may show in the next. What a method raises ends the stream; the engine is then thrown away.
    """

    @property
    def settled_ms(self) -> int:
        """How much of the stream is dealt with for good: it is in a final result that was given out, or it is no speech.

        Milliseconds from the first sample; never goes back within a stream. Audio behind it is declared lost when the
        process dies.
        """
        ...

    def start(self, session: str) -> None:
        """Begin a stream. `session` is the session's id, for logs of remote engines."""
        ...

    def feed(self, pcm: bytes) -> list[Result]:
        """Take whole samples, in any amount; give what is new, in order."""
        ...

    def finish(self) -> list[Result]:
        """The stream is over: give the last results. Everything is settled then."""
        ...

    def abort(self) -> None:
        """Forget the stream."""
        ...


class NoOptions(BaseModel):
    """Of an engine that leaves a session nothing to choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, kw_only=True)
class SpeechEngine:
    """What a service knows of an engine; nothing of the engine itself is imported for it.

    `name` is what sessions call it, and what an entry point has to be called: the value of an `STTProvider` that this package
    has no engine for, or a name of its own. `factory` is `"module:attribute"`, imported in worker processes alone and called as
    `factory(configuration, options)`, which gives an `Engine`. `configuration` is JSON and the same for all sessions, such as
    model, region or key; it is in no evidence and no log. `options` is the pydantic model of what a session may ask for in
    `stt_options`: a field is a capability, and what it does not have is refused by name. `needs` are packages to be imported.
    """

    name: str
    factory: str
    configuration: Mapping[str, Any] = field(default_factory=dict, repr=False)
    options: type[BaseModel] = NoOptions
    needs: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """Why it can't run, None when all that it needs is installed and set. Called for each session that asks for it, in the
        loop's thread: it must be quick and import no engine. One that does not find its model tells so when it is made."""
        for package in (self.factory.partition(":")[0].partition(".")[0], *self.needs):
            if not is_installed(package):
                return f"the engine {self.name!r} needs the package {package!r}"
        return None


def make_engine(factory: str, configuration: Mapping[str, Any], options: Mapping[str, Any]) -> Engine:
    """A new engine, made where it is to run. Raises whatever its import and its making do."""
    module, _, attribute = factory.partition(":")
    made: Engine = getattr(import_module(module), attribute)(configuration, options)
    return made


def is_installed(package: str) -> bool:
    """Whether a package can be imported here; it is not."""
    try:
        return package in sys.modules or find_spec(package) is not None
    except (ImportError, ValueError):
        return False
