"""Tokens of ours inside text: access tokens (`avt_…`), tickets (`avs_…`) and resume tokens (`avr_…`).

Where text would be stored, one that holds a token is refused; where text is told, in an error, a reply or the log, the token is
left out of it.
"""

import re
from typing import Final

ACCESS_PREFIX: Final = "avt_"  # lets people and secret scanners tell what it is
TICKET_PREFIX: Final = "avs_"
RESUME_PREFIX: Final = "avr_"

# 256 bits are 43 digits. A good part of them is a secret too; `avr_` with a few letters may be anybody's word.
_SECRET: Final = re.compile(r"av[rst]_[A-Za-z0-9_-]{20,}")
_PERHAPS: Final = re.compile(r"(av[rst]_)[A-Za-z0-9_-]{8,}")


def holds_secret(text: str) -> bool:
    """Whether a token stands anywhere in the text."""
    return _SECRET.search(text) is not None


def without_secrets(text: str) -> str:
    """The text with `avt_…` for each token in it, also for what only looks like one."""
    return _PERHAPS.sub(r"\1…", text)
