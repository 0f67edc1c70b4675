"""SQLite and file locks do what the protocols say."""

from agentos.core.communication.voice.storage.opening import StoreFactory
from agentos.core.communication.voice.testing.store_conformance import StoreConformance


class TestSqlite(StoreConformance):
    store = StoreFactory()
