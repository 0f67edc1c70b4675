"""How the commands come to a home's database."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentos.core.communication.voice.cli.logs import configure_logging
from agentos.core.communication.voice.settings import VoiceSettings, load_settings
from agentos.core.communication.voice.storage.opening import open_store, open_to_read
from agentos.core.communication.voice.storage.store import VoiceStore


def settings_of(home: Path | None, **overrides: object) -> VoiceSettings:
    """The settings, with `home` when it is given, and what `overrides` names, before all else; the log goes where they say."""
    settings = load_settings(**overrides) if home is None else load_settings(home=home, **overrides)
    configure_logging(settings.log_level)
    return settings


def database_of(home: Path | None) -> Path:
    """Where the database is, or would be."""
    return settings_of(home).database


@contextmanager
def reading(home: Path | None) -> Iterator[VoiceStore | None]:
    """The home's database, opened to be read; None when nothing was stored yet."""
    path = database_of(home)
    if not path.exists():
        yield None
        return
    with open_to_read(path) as store:
        yield store


@contextmanager
def writing(home: Path | None) -> Iterator[VoiceStore]:
    """The home's database, made when it is missing."""
    settings = settings_of(home)
    with open_store(settings.database, busy_timeout_seconds=settings.store_busy_timeout_seconds) as store:
        yield store
