"""Evidence for hosts: write records into the hash chain, read them back and verify it, without a running voice service."""

from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from machines.evidence import EvidenceRecord, canonical_json
from machines.verification import Verification

__all__ = ["EvidenceLogger", "EvidenceRecord"]

BUSY_TIMEOUT_SECONDS = 5.0  # another process's transaction takes milliseconds; longer means that it hangs


class EvidenceLogger:
    """Reads and writes the evidence of one home; several loggers and services on one home share one chain.

    `path` is the database; the default is `voice.db` in the home setting (`AGENTOS_VOICE_HOME`). It is made when
    missing. All methods block for the time of the disk, may be called from any thread, and raise `StoreError` (an
    `OSError`) when the store fails. Use it in a `with` block, or call `close`.

    On the database of the home it raises `ChainNotContinued`, a `StoreError`, where the chain does not go on from the heads
    that a service noted (`AGENTOS_VOICE_HEADS`): what is written behind a cut would bury it.
    """

    def __init__(self, path: Path | None = None) -> None:
        # Imported here: the database library takes a second, and the voice package itself imports this module.
        from agentos.core.communication.voice.settings import load_settings  # noqa: PLC0415
        from agentos.core.communication.voice.storage.head_notes import check_heads  # noqa: PLC0415
        from agentos.core.communication.voice.storage.opening import open_store  # noqa: PLC0415

        settings = load_settings()
        path = settings.database if path is None else Path(path).absolute()
        self._store = open_store(path, busy_timeout_seconds=BUSY_TIMEOUT_SECONDS)
        if settings.heads is not None and path == settings.database:
            try:
                check_heads(self._store, settings.heads)
            except BaseException:
                self._store.close()
                raise

    def log(self, record: EvidenceRecord) -> str:
        """Make a record durable at the end of the chain and return its id.

        A record whose id is stored already is left as it is. Raises `ValueError` for a record that is not JSON, and for one
        that holds an access token: a record stands for ever.
        """
        from agentos.core.communication.voice.errors import InvalidRequest  # noqa: PLC0415 - as above
        from agentos.core.communication.voice.secrets_in_text import holds_secret  # noqa: PLC0415
        from agentos.core.communication.voice.storage.store import Entry  # noqa: PLC0415

        text = ""
        with suppress(TypeError, ValueError, RecursionError):  # what is no JSON is told by the store
            text = canonical_json(record)
        if holds_secret(text):
            raise InvalidRequest(
                "the record holds a token, which would be stored with it: leave it out", field="record"
            )
        self._store.append([Entry(record)])
        return record.id

    def get_evidence(self, evidence_id: str) -> EvidenceRecord | None:
        """The record with this id, or None."""
        return self._store.evidence_record(evidence_id)

    def get_request_evidence(self, request_id: str) -> list[EvidenceRecord]:
        """The records of one request (for voice: a session), in chain order; empty when there are none."""
        return self._store.evidence(request_id)

    def verify(self) -> Verification:
        """Walk the whole chain and say whether every link holds, and where the first fault is."""
        return self._store.verify()

    def close(self) -> None:
        """Close the database. A second close does nothing."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
