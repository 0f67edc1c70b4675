"""Refusals at the server's door, in evidence: the first ones one by one, the rest summed up, so that a flood fills no disk.

All refusals have one request id in the chain, `REQUEST`. None contains a token, a ticket or a query.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

import anyio

from agentos.core.communication.voice.errors import VoiceError
from agentos.core.communication.voice.logs import logger
from agentos.core.communication.voice.secrets_in_text import without_secrets
from agentos.core.time import monotonic_ms, utc_now
from machines.communication import ConnectorType, RequestStatus, RiskLevel
from machines.evidence import EvidenceRecord, record_id

log = logger(__name__)

REQUEST: Final = "gateway"  # the request id of all refusals, which belong to no session and have no final record
WINDOW_SECONDS: Final = 60
ONE_BY_ONE: Final = 10  # records in a window; with one sum, 10 MB of evidence a day under an endless flood
NAMED_IN_A_SUM: Final = 20  # clients and tokens; the others are counted together
OTHERS: Final = "others"
TEXT_LIMIT: Final = 200


def redacted(text: str) -> str:
    """A client's text, made fit for a record: short, printable, and without anything that looks like one of our tokens."""
    clean = text[: 4 * TEXT_LIMIT].encode("ascii", "backslashreplace").decode()
    printable = "".join(letter if letter.isprintable() else "?" for letter in clean)
    return without_secrets(printable)[:TEXT_LIMIT]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal: its reason, its client, and its request.

    `who` is the id of the token, or the beginning of an unknown token's hash; `session_id` is the requested session, `detail`
    the refused origin or host.
    """

    reason: str
    client: str
    method: str
    route: str
    who: str = ""
    session_id: str = ""
    detail: str = ""


@dataclass(slots=True)
class _Sum:
    """The refusals of a window that have no record of their own."""

    since: str
    reasons: Counter[str] = field(default_factory=Counter)
    clients: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)

    def add(self, refusal: Refusal) -> None:
        self.reasons[refusal.reason] += 1
        _count(self.clients, refusal.client)
        if refusal.who:
            _count(self.tokens, refusal.who)


def _count(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < NAMED_IN_A_SUM else OTHERS] += 1


class Refusals:
    """Puts refusals into evidence through `note`, which returns at once and may raise a `VoiceError`.

    At most `ONE_BY_ONE` refusals in a window of `WINDOW_SECONDS` have a record of their own; one more record has the sum of the
    others. Refusals that `note` does not take are summed up too, and tried again. For one event loop; `run` writes the sums.
    """

    def __init__(self, note: Callable[[EvidenceRecord], None], *, clock: Callable[[], int] = monotonic_ms) -> None:
        self._note = note
        self._clock = clock
        self._window_ends_ms = 0
        self._left = 0
        self._sum: _Sum | None = None
        self._summed = anyio.Event()
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """How many refusals there were so far, by reason."""
        return dict(self._counts)

    def add(self, refusal: Refusal) -> None:
        """Have a refusal recorded. Never raises, never waits."""
        self._counts[refusal.reason] += 1
        now = self._clock()
        if now >= self._window_ends_ms:
            self.write_sum()
            self._window_ends_ms = now + WINDOW_SECONDS * 1000
            self._left = ONE_BY_ONE
        if self._left:
            self._left -= 1
            detail = {name: redacted(value) for name, value in asdict(refusal).items() if value}
            if self._written("access_refused", detail):
                return
        if self._sum is None:
            self._sum = _Sum(utc_now().isoformat(timespec="milliseconds"))
            self._summed.set()
        self._sum.add(refusal)

    def write_sum(self) -> None:
        """Write the current sum, unless it is empty; keep it if `note` does not take it. To be called at the end."""
        summed = self._sum
        if summed is None:
            return
        self._sum, self._summed = None, anyio.Event()
        detail = {
            "since": summed.since,
            "refusals": summed.reasons.total(),
            "reasons": dict(summed.reasons),
            "clients": {redacted(name): number for name, number in summed.clients.items()},
            "tokens": {redacted(name): number for name, number in summed.tokens.items()},
        }
        if not self._written("access_refusals", detail):
            self._sum = summed
            self._summed.set()
            self._window_ends_ms = self._clock() + WINDOW_SECONDS * 1000

    async def run(self) -> None:
        """Write each sum at the end of its window, until cancelled, and the last sum then."""
        try:
            while True:
                await self._summed.wait()
                await anyio.sleep(max(0.0, (self._window_ends_ms - self._clock()) / 1000))
                self.write_sum()
        finally:
            self.write_sum()

    def _written(self, operation: str, detail: Mapping[str, object]) -> bool:
        record = EvidenceRecord(
            id=record_id(secrets.token_hex(12), 1),
            request_id=REQUEST,
            connector_type=ConnectorType.CUSTOM,
            operation=operation,
            request_summary=dict(detail),
            status=RequestStatus.DENIED,
            metadata={"audit_trace_id": f"audit-{secrets.token_hex(8)}", "risk_tier": RiskLevel.LOW.value},
            created_at=utc_now(),
        )
        try:
            self._note(record)
        except VoiceError as error:
            log.warning("refusal_not_recorded", problem=str(error))
            return False
        except Exception:  # any error: the refused request and the task that writes sums must go on
            log.exception("refusal_not_recorded")
            return False
        return True
