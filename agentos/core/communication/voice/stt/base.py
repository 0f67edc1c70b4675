"""What a speech-to-text engine is, and which engines there are.

An engine runs in a worker process, so it may block, hold the interpreter lock, or crash without harm to the calls. Besides
the embedded one, any installed distribution can bring an engine: an entry point in the group `agentos_voice.stt`, named
with the value of an `STTProvider`, pointing at a class that is an `Engine` and is made without arguments.
"""

import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final, Protocol

from actors.voice.messages import Word
from machines.session import STTProvider

SAMPLE_RATE: Final = 16_000
ENTRY_POINT_GROUP: Final = "agentos_voice.stt"

ENGINES: Final = MappingProxyType(
    {STTProvider.POCKETSPHINX: "agentos.core.communication.voice.stt.pocketsphinx:PocketsphinxEngine"}
)
_NEEDS: Final = MappingProxyType({STTProvider.POCKETSPHINX: "pocketsphinx"})


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

    After `finish` or `abort` the engine is used again for another session with `start`: nothing that it learned from one
    may show in the next. What a method raises ends the stream; the engine is then thrown away.
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


class EngineUnavailable(Exception):
    """The engine can't be had; the text says why."""


def missing(provider: STTProvider) -> str | None:
    """Why `provider` can't be had, or None when it is installed. Imports no engine, so it is cheap.

    An installed engine may still fail to start, for a model file that is not there; the port then tells so.
    """
    if provider in ENGINES:
        needed = _NEEDS[provider]
        return None if _is_installed(needed) else f"the engine {provider.value!r} needs the package {needed!r}"
    points = _registered().select(name=provider.value)
    if not points:
        return f"no engine for {provider.value!r} is installed"
    module = next(iter(points)).module
    if not _is_installed(module.partition(".")[0]):
        return f"the engine for {provider.value!r} is registered, but its module {module!r} is not installed"
    return None


def make_engine(provider: STTProvider) -> Engine:
    """A new engine for `provider`; imports it. Raises `EngineUnavailable` when it is missing, or what its making raises."""
    problem = missing(provider)
    if problem is not None:
        raise EngineUnavailable(problem)
    if provider in ENGINES:
        module, _, name = ENGINES[provider].partition(":")
        factory = getattr(import_module(module), name)
    else:
        factory = next(iter(_registered().select(name=provider.value))).load()
    engine: Engine = factory()
    return engine


@cache
def _registered() -> EntryPoints:
    """The engines of other distributions. Looked up once: it reads the metadata of everything that is installed."""
    return entry_points(group=ENTRY_POINT_GROUP)


def _is_installed(package: str) -> bool:
    try:
        return package in sys.modules or find_spec(package) is not None
    except (ImportError, ValueError):
        return False
