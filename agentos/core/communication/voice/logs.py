"""The library's log: the standard `logging` tree below `LOGGER`, for the host to route as it routes everything else.

A message is one line, an event and its facts (`port_silent: port='media'`); they also stand in the record's `event` and
`facts`, for a formatter that writes fields. Nothing that a caller said or sent goes in: no audio, words, metadata, numbers or
tokens, and of an error its traceback without the values of variables. Nothing is ever written to standard output.
"""

import logging
from collections.abc import MutableMapping
from typing import Any

from agentos.core.communication.voice.secrets_in_text import without_secrets

__all__ = ["LOGGER", "Log", "logger", "set_level"]

LOGGER = "agentos.core.communication.voice"
"""The name under which everything is logged: each module is a logger below it."""

_OPTIONS = frozenset({"exc_info", "stack_info", "stacklevel", "extra"})


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger whose methods take an event and its facts as keywords: `log.warning("port_back", port="media")`."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the facts behind the event, and into the record."""
        facts = {name: _told(kwargs[name]) for name in kwargs if name not in _OPTIONS}
        options = {name: kwargs[name] for name in kwargs if name in _OPTIONS}
        options["extra"] = {**(options.get("extra") or {}), "event": msg, "facts": facts}
        text = without_secrets(" ".join(f"{name}={value!r}" for name, value in facts.items()))
        return f"{msg}: {text}" if text else msg, options


def _told(value: object) -> object:
    return without_secrets(value) if isinstance(value, str) else value


def logger(name: str) -> Log:
    """The log of a module, by its `__name__`."""
    return Log(logging.getLogger(name), {})


def set_level(level: str) -> None:
    """Log from `level` on (`debug`, `info`, `warning`, `error`), whatever the host's root logger says."""
    logging.getLogger(LOGGER).setLevel(level.upper())
