"""JSON that all parsers read alike (RFC 8259, sections 4, 6 and 8.1): UTF-8, each name once in an object, no NaN or infinity.

Parsers differ on all other input: of two values of one name one parser takes the first and another the last, so the checked
value need not be the used one.
"""

import json
from typing import Any, NoReturn


class AmbiguousJson(ValueError):
    """Only some parsers would accept this JSON. The exception's text says why, in a few words."""


def read_strictly(text: str | bytes) -> Any:
    """The value of the text. Raises `AmbiguousJson`, and `ValueError` or `RecursionError` for text that no parser accepts."""
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise AmbiguousJson("it is not UTF-8") from None
    return json.loads(text, object_pairs_hook=_once_each, parse_constant=_refused)


def write_strictly(value: object) -> bytes:
    """The JSON of a value. Raises `TypeError`, `ValueError` or `RecursionError` for a value that has none: an object of another
    kind, NaN or infinity, text that is not UTF-8, a value that holds itself or is nested too deep."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise AmbiguousJson("a name stands twice in one object")
    return found


def _refused(name: str) -> NoReturn:
    raise AmbiguousJson(f"{name} is no number")
