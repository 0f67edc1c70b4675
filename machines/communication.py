"""The vocabulary that communication connectors share: connector types, risk levels, request status and verdicts."""

from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from machines.frozen import FrozenDict, frozen


class ConnectorType(str, Enum):
    """The kind of connector that carried an operation; voice is `CUSTOM`."""

    WEB_SEARCH = "web_search"
    WEB_FETCH = "web_fetch"
    RSS = "rss"
    EMAIL_SMTP = "email_smtp"
    SLACK = "slack"
    CUSTOM = "custom"


class RequestStatus(str, Enum):
    """The status of a request."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    IN_PROGRESS = "in_progress"
    SUCCESS = "success"
    FAILED = "failed"
    RATE_LIMITED = "rate_limited"
    REQUIRE_ADMIN = "require_admin"


class RiskLevel(str, Enum):
    """Risk tiers, ordered: LOW < MEDIUM < HIGH < CRITICAL."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for LOW up to 3 for CRITICAL."""
        return list(RiskLevel).index(self)

    def raised(self, steps: int) -> "RiskLevel":
        """This tier raised by `steps`, at most CRITICAL."""
        return list(RiskLevel)[min(self.rank + steps, len(RiskLevel) - 1)]

    def __lt__(self, other: object) -> bool:
        return self.rank < other.rank if isinstance(other, RiskLevel) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self.rank <= other.rank if isinstance(other, RiskLevel) else NotImplemented

    def __gt__(self, other: object) -> bool:
        return self.rank > other.rank if isinstance(other, RiskLevel) else NotImplemented

    def __ge__(self, other: object) -> bool:
        return self.rank >= other.rank if isinstance(other, RiskLevel) else NotImplemented


class PolicyVerdict(BaseModel):
    """The policy's answer to a request, and the reason for it.

    `status` is APPROVED or the kind of refusal, `reason_code` is for programs, `hint` tells a person what would help.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: RequestStatus
    reason_code: str
    hint: str = ""
    metadata: dict[str, Any] = Field(default_factory=FrozenDict)

    @field_validator("metadata", mode="after")
    @classmethod
    def _read_only(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        copy: dict[str, Any] = frozen(metadata)
        return copy
