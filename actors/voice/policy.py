"""The policy actor: one for the service; it judges each request with the pure `VoicePolicy`."""

from actors.runtime.actor import Actor, Out
from actors.voice.messages import Evaluate, Judged
from machines.communication import PolicyVerdict, RequestStatus, RiskLevel
from machines.evidence import canonical_json
from machines.policy import VoicePolicy


class PolicyActor(Actor):
    """Judges requests. It keeps nothing, so a restart loses nothing."""

    __slots__ = ("policy",)
    wiring = ("policy",)
    handles = {Evaluate: "evaluate"}

    def __init__(self, policy: VoicePolicy) -> None:
        self.policy = policy

    def evaluate(self, message: Evaluate, out: Out) -> None:
        """Tell the verdict on this request. A request that the policy can't read, or fails on, is denied."""
        facts = message.facts
        try:
            verdict = self.policy.evaluate_session_request(
                facts.project_id,
                facts.provider,
                facts.stt_provider,
                facts.metadata,
                admin_token_valid=facts.admin_token_valid,
            )
        except ValueError as error:
            verdict = PolicyVerdict(status=RequestStatus.DENIED, reason_code="INVALID_REQUEST", hint=str(error))
        except Exception as error:  # noqa: BLE001 - a host's own policy may raise anything; what is not approved is denied
            verdict = _failed(f"{type(error).__name__}: {error}")
        verdict = _usable(verdict)
        out.tell(message.reply_to, Judged(facts.session_id, verdict))


def _usable(verdict: object) -> PolicyVerdict:
    """The verdict, if it can be put on record; otherwise a denial that says why it can't."""
    if not isinstance(verdict, PolicyVerdict):
        return _failed(f"it gave {type(verdict).__name__}, not a PolicyVerdict")
    try:
        canonical_json(verdict.model_dump(mode="json")).encode()
    except (TypeError, ValueError) as error:
        return _failed(f"its verdict can't be put on record: {error}")
    if verdict.status is RequestStatus.APPROVED and verdict.metadata.get("risk_level") not in set(RiskLevel):
        return _failed(f"its approval names no risk level: {verdict.metadata.get('risk_level')!r}")
    return verdict


def _failed(problem: str) -> PolicyVerdict:
    return PolicyVerdict(status=RequestStatus.DENIED, reason_code="POLICY_FAILED", hint=f"the policy failed: {problem}")
