"""The policy actor: one for the service; it judges each request with the pure `VoicePolicy`."""

from actors.actor import Actor, Out
from actors.messages import Evaluate, Judged
from machines.communication import PolicyVerdict, RequestStatus
from machines.policy import VoicePolicy


class PolicyActor(Actor):
    """Judges requests. It keeps nothing, so a restart loses nothing."""

    __slots__ = ("policy",)
    wiring = ("policy",)
    handles = {Evaluate: "evaluate"}

    def __init__(self, policy: VoicePolicy) -> None:
        self.policy = policy

    def evaluate(self, message: Evaluate, out: Out) -> None:
        """Tell the verdict on this request. One that the policy can't read is denied, and so is one it fails on."""
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
            hint = f"the policy failed: {type(error).__name__}: {error}"
            verdict = PolicyVerdict(status=RequestStatus.DENIED, reason_code="POLICY_FAILED", hint=hint)
        out.tell(message.reply_to, Judged(facts.session_id, verdict))
