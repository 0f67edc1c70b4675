"""Durable storage: the evidence chain and the sessions in one SQLite file, and what helps when that file can't be written."""

from agentos.core.communication.voice.storage.spill import SpillFile, SpillFull
from agentos.core.communication.voice.storage.store import BadEntry, Entry, StoreError, StoreStatistics, VoiceStore
from agentos.core.communication.voice.storage.tokens import AdminToken, TokenStore
from agentos.core.communication.voice.storage.writer import GroupCommitWriter, WriterStatistics

__all__ = [
    "AdminToken",
    "BadEntry",
    "Entry",
    "GroupCommitWriter",
    "SpillFile",
    "SpillFull",
    "StoreError",
    "StoreStatistics",
    "TokenStore",
    "VoiceStore",
    "WriterStatistics",
]
