"""What every communication connector shares: connector types, risk, request status, verdicts and evidence records."""

from machines.communication import ConnectorType, PolicyVerdict, RequestStatus, RiskLevel
from machines.evidence import EvidenceRecord

__all__ = ["ConnectorType", "EvidenceRecord", "PolicyVerdict", "RequestStatus", "RiskLevel"]
