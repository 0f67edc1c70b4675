"""JSON that everybody reads in the same way (RFC 8259, 4, 6 and 8.1): UTF-8, each name of an object once, numbers only.

Readers differ in what they make of anything else: of two values of one name one takes the first and another the last, so that
what was checked need not be what is used.
"""

import json
from typing import Any, NoReturn


class AmbiguousJson(ValueError):
    """This is JSON for some readers only. Its text says in a few words why."""


def read_strictly(text: str | bytes) -> Any:
    """The value. Raises `AmbiguousJson`, and `ValueError` or `RecursionError` for what no reader would take."""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise AmbiguousJson("it is not UTF-8") from None
    return json.loads(text, object_pairs_hook=_once_each, parse_constant=_refused)


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise AmbiguousJson("a name stands twice in one object")
    return found


def _refused(name: str) -> NoReturn:
    raise AmbiguousJson(f"{name} is no number")
