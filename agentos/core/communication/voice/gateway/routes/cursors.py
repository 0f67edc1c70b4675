"""Cursors: the place in a list at which the next page begins, as one opaque word."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Final

from agentos.core.communication.voice.errors import InvalidRequest
from agentos.core.communication.voice.storage.past_sessions import SessionKey

MAX_CURSOR: Final = 200  # characters; ours have a third of that
_LATEST_MS: Final = 253_402_300_800_000  # the year 10000


def cursor_of(key: SessionKey) -> str:
    """The cursor of the page that begins behind `key`."""
    return urlsafe_b64encode(f"{key.created_at_ms}.{key.session_id}".encode()).decode().rstrip("=")


def key_of(cursor: str) -> SessionKey:
    """The place that a cursor names. Raises `InvalidRequest` for a malformed cursor."""
    try:
        text = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
    except (Base64Error, ValueError):  # also for text that is no ASCII
        text = ""
    number, _, session_id = text.partition(".")
    known = number.isdecimal() and int(number[:20]) < _LATEST_MS and session_id.isprintable() and bool(session_id)
    key = SessionKey(int(number[:20]), session_id) if known else None
    if key is None or cursor_of(key) != cursor:
        raise InvalidRequest("cursor is not one that a page of this list ended with: begin without one", field="cursor")
    return key
