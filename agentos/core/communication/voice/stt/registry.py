"""The engines of a service, by name: this package's own, those that the host handed over, and those that are installed."""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import PathFinder
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from agentos.core.communication.voice.errors import InvalidRequest, UnusableExtension
from agentos.core.communication.voice.extensions import EntryPointGroup, check_name
from agentos.core.communication.voice.settings import VoiceSettings
from agentos.core.communication.voice.stt.base import SpeechEngine
from agentos.core.communication.voice.stt.process import search_path
from machines.names import EngineName, text_of
from machines.session import STTProvider

ENGINES: Final = "agentos_voice.stt"
"""The group of entry points: a name, and a `SpeechEngine`, or a function that makes one of the service's settings."""

OWN: Final = (
    SpeechEngine(
        name=STTProvider.POCKETSPHINX.value,
        factory="agentos.core.communication.voice.stt.pocketsphinx:PocketsphinxEngine",
        needs=("pocketsphinx",),
    ),
)
_FACTORY: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class EngineUnavailable(Exception):
    """No engine with this name is registered or installed; the message has the name."""


class Engines:
    """Engines by name. The entry point of an installed engine is loaded when its name is first looked up. This process holds
    only the `SpeechEngine`; worker processes import the engine itself."""

    def __init__(self, settings: VoiceSettings, handed_over: Iterable[SpeechEngine] = ()) -> None:
        """Raises `UnusableExtension` for one in `handed_over` that is no `SpeechEngine`, is declared wrongly, or has an invalid
        or taken name."""
        self._settings = settings
        self._engines: dict[str, SpeechEngine] = {}
        self._installed = EntryPointGroup(ENGINES, tuple(engine.name for engine in OWN))
        for engine in (*OWN, *handed_over):
            if not isinstance(engine, SpeechEngine):
                raise UnusableExtension(ENGINES, f"{engine!r:.64}", "it is no SpeechEngine")
            name = check_name(ENGINES, engine.name)
            if name in self._engines:
                raise UnusableExtension(ENGINES, name, "the name is taken: give it another")
            problem = _problem(engine)
            if problem is not None:
                raise UnusableExtension(ENGINES, name, problem)
            self._engines[name] = engine

    def names(self) -> tuple[str, ...]:
        """All names that a session may ask for: first the members of `STTProvider`, also those without an engine. Nothing is
        imported."""
        known = (*(member.value for member in STTProvider), *self._engines, *self._installed.names())
        return tuple(dict.fromkeys(known))

    def taken(self) -> dict[str, str]:
        """By engine name: the distributions whose entry point has the name of an engine of this package. These entry points are
        not used."""
        return self._installed.taken()

    def named(self, name: object) -> STTProvider | EngineName:
        """The member of `STTProvider`, or else the `EngineName`, with this name; a member also where it has no engine. Raises
        `InvalidRequest` for any other unknown name."""
        plain = text_of(name) if isinstance(name, str) else None
        for member in STTProvider:
            if plain == member.value:
                return member
        if plain is not None and (plain in self._engines or plain in self._installed):
            return EngineName(plain)
        known = ", ".join(self.names())
        problem = f"stt_provider must be an STTProvider or a registered name ({known}), got {name!r:.80}"
        raise InvalidRequest(problem, field="stt_provider")

    def engine(self, name: STTProvider | str) -> SpeechEngine:
        """The engine of this name. Raises `EngineUnavailable`, and `UnusableExtension` for one that is installed and broken."""
        plain = text_of(name)
        if plain not in self._engines:
            if plain not in self._installed:
                raise EngineUnavailable(f"no engine for {plain!r} is installed")
            self._engines[plain] = self._loaded(plain)
        return self._engines[plain]

    def missing(self, name: STTProvider | str) -> str | None:
        """Why this engine can't run; None if no reason is known. The engine's entry point is loaded for that, its factory is
        not: only workers import the factory."""
        try:
            engine = self.engine(name)
        except (EngineUnavailable, UnusableExtension) as error:
            return str(error)
        try:
            return engine.missing() or _not_for_workers(engine.factory)
        except Exception as error:  # noqa: BLE001 - an engine of a host's own; it is as good as missing
            return f"the engine {text_of(name)!r} does not say whether it can run: {type(error).__name__}: {error}"

    def options(self, name: STTProvider | str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """All options of a session with this engine: those in `asked`, and the engine's defaults for the rest.

        Raises `InvalidRequest`, which names the option, if the engine has no such option or refuses its value, and
        `UnusableExtension` for an engine whose defaults are not JSON.
        """
        model = self.engine(name).options
        try:
            return model.model_validate(dict(asked)).model_dump(mode="json")
        except PydanticSerializationError as error:
            raise UnusableExtension(ENGINES, text_of(name), f"its options are not JSON: {error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            option = ".".join(str(part) for part in first["loc"]) or "stt_options"
            known = ", ".join(model.model_fields) or "none"
            said = f"there is no such option; it has {known}" if first["type"] == "extra_forbidden" else first["msg"]
            problem = f"stt_options.{option} can't be had from the engine {text_of(name)!r}: {said}"
            raise InvalidRequest(problem, field=f"stt_options.{option}") from None

    def _loaded(self, name: str) -> SpeechEngine:
        found = self._installed.load(name)
        if not isinstance(found, SpeechEngine):
            if not callable(found):
                raise self._installed.unusable(
                    name, f"{found!r:.80} is neither a SpeechEngine nor a function that makes one"
                )
            try:
                made = found(self._settings)
            except Exception as error:
                problem = f"it can't be made of the settings: {type(error).__name__}: {error}"
                raise self._installed.unusable(name, problem) from error
            if not isinstance(made, SpeechEngine):
                raise self._installed.unusable(name, f"{found!r:.80} made a {type(made).__name__}, not a SpeechEngine")
            found = made
        wrong = f"it calls itself {found.name!r:.80}" if found.name != name else _problem(found)
        if wrong is not None:
            raise self._installed.unusable(name, wrong)
        return found


def _problem(engine: SpeechEngine) -> str | None:
    """What is wrong with how an engine is declared, None if nothing is."""
    if not isinstance(engine.factory, str) or not _FACTORY.fullmatch(engine.factory):
        return f"its factory must be 'module:attribute', got {engine.factory!r:.80}"
    if not (isinstance(engine.options, type) and issubclass(engine.options, BaseModel)):
        return f"its options must be a pydantic model, got {engine.options!r:.80}"
    try:
        json.dumps(engine.configuration, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return "its configuration must be JSON"  # whose text may hold a key, and is not shown
    return None


def _not_for_workers(factory: str) -> str | None:
    """Why worker processes would not find the factory's package, although this process finds it beside the script; None if they
    would."""
    package = factory.partition(":")[0].partition(".")[0]
    here = PathFinder.find_spec(package, sys.path) is not None
    if here and PathFinder.find_spec(package, search_path()) is None:
        return f"{package!r} lies beside the script, where worker processes do not look: install it, or set PYTHONPATH"
    return None
