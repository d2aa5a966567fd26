"""Penalties: for the form of a response, for what the environment rejected, and for every step."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from steppo_env.mdp import Action, IssueKind, Outcome
from steppo_env.step_rewards.base import StepReward

__all__ = ["FormatPenalty", "InvalidActionPenalty", "StepCost"]


def _without_repeats(kinds: tuple[IssueKind, ...]) -> tuple[IssueKind, ...]:
    return tuple(kind for kind in IssueKind if kind in kinds)


class StepCost(StepReward):
    """Costs every step the same."""

    kind = "step_cost"
    amount: float = Field(ge=0.0, le=10.0, description="Subtracted from the reward of every step.")

    def term(self, before: float, after: float, action: Action, outcome: Outcome) -> float:
        return -self.amount


class FormatPenalty(StepReward):
    """Costs a step whose response the parser could not read as it stood."""

    kind = "format_penalty"
    amount: float = Field(
        ge=0.0, le=10.0, description="Subtracted once from the reward of such a step."
    )
    issues: Annotated[tuple[IssueKind, ...], AfterValidator(_without_repeats)] = Field(
        default=(IssueKind.RECOVERED, IssueKind.REJECTED),
        min_length=1,
        description="What the parser must have done about a flaw of the response for it to count.",
    )

    def term(self, before: float, after: float, action: Action, outcome: Outcome) -> float:
        return -self.amount if any(issue.kind in self.issues for issue in action.issues) else 0.0


class InvalidActionPenalty(StepReward):
    """Costs a step of which the environment rejected some part, however well it was written."""

    kind = "invalid_action_penalty"
    amount: float = Field(ge=0.0, le=10.0, description="Subtracted for each part, or each step.")
    per: Literal["part", "step"] = Field(
        default="part", description="Whether each rejected part counts, or the step counts once."
    )
    refused_commands: bool = Field(
        default=False,
        description="Count a command that the game refused (`is_refused` in info) as one more part.",
    )

    def term(self, before: float, after: float, action: Action, outcome: Outcome) -> float:
        num_parts = len(outcome.rejected) - len(action.rejections)
        if self.refused_commands and outcome.info.get("is_refused") is True:
            num_parts += 1
        return -self.amount * (num_parts if self.per == "part" else min(num_parts, 1))
