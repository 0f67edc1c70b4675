"""The settings and the database of a home, as commands open them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentos.core.communication.voice.cli.logs import configure_logging
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.store import VoiceStore


def settings_of(home: Path | None, **overrides: object) -> VoiceSettings:
    """The settings, in which `home`, if given, and `overrides` come before all else. Also configures the log by them."""
    settings = load_settings(**overrides) if home is None else load_settings(home=home, **overrides)
    configure_logging(settings.log_level)
    return settings


def database_of(home: Path | None) -> Path:
    """The path of the database, which need not exist."""
    return settings_of(home).database


@contextmanager
def reading(home: Path | None) -> Iterator[VoiceStore | None]:
    """The home's database, opened for reading; None if there is none yet."""
    path = database_of(home)
    if not path.exists():
        yield None
        return
    with open_to_read(path) as store:
        yield store


@contextmanager
def writing(home: Path | None) -> Iterator[VoiceStore]:
    """The home's database, made if it is missing."""
    settings = settings_of(home)
    with open_store(settings.database, busy_timeout_seconds=settings.store_busy_timeout_seconds) as store:
        yield store
