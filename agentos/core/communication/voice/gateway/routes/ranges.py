"""Byte ranges (RFC 9110, section 14): the part of a file that a request asks for.

One range at a time: a request for several gets the whole file, as the standard allows.
"""

import re
from typing import Final, NamedTuple

_SPECIFIED: Final = re.compile(
    r"bytes[ \t]*=[ \t]*(?:(\d{1,19})-(\d{1,19})?|-(\d{1,19}))[ \t]*", re.IGNORECASE | re.ASCII
)


class Unsatisfiable(Exception):
    """The range lies behind the end of the file."""


class Span(NamedTuple):
    """The bytes from `first` up to, and without, `end`."""

    first: int
    end: int


def asked_for(header: str | None, size: int) -> Span | None:
    """The part of a file of `size` bytes that a `Range` header asks for; None for the whole file, also if the header is not
    understood. Raises `Unsatisfiable`."""
    found = None if header is None else _SPECIFIED.fullmatch(header.strip())
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        if not int(suffix) or not size:
            raise Unsatisfiable
        return Span(max(0, size - int(suffix)), size)
    if last is not None and int(last) < int(first):
        return None
    if int(first) >= size:
        raise Unsatisfiable
    return Span(int(first), size if last is None else min(int(last) + 1, size))
