"""The policy actor: one for the service; it judges each request with the pure `VoicePolicy`."""

from actors.actor import Actor, Out
from actors.messages import Evaluate, Judged
from machines.policy import VoicePolicy


class PolicyActor(Actor):
    """Judges requests. It keeps nothing, so a restart loses nothing."""

    __slots__ = ("policy",)
    wiring = ("policy",)
    handles = {Evaluate: "evaluate"}

    def __init__(self, policy: VoicePolicy) -> None:
        self.policy = policy

    def evaluate(self, message: Evaluate, out: Out) -> None:
        """Tell the verdict on this request."""
        facts = message.facts
        verdict = self.policy.evaluate_session_request(
            facts.project_id,
            facts.provider,
            facts.stt_provider,
            facts.metadata,
            admin_token_valid=facts.admin_token_valid,
        )
        out.tell(message.reply_to, Judged(facts.session_id, verdict))
