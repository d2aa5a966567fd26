"""Penalties count what they say they count, and nothing else."""

from collections.abc import Sequence
from typing import Literal

import pytest
from pydantic import JsonValue, ValidationError

from steppo_env import Action, Message, Observation, Outcome, parse_text
from steppo_env.mdp import IssueKind, ParseIssue
from steppo_env.step_rewards import FormatPenalty, InvalidActionPenalty, StepCost, StepReward

STATE = Observation((Message("user", "?"),), "?", "key")


def term(
    reward: StepReward,
    issues: Sequence[IssueKind] = (),
    num_rejected: int = 0,
    info: dict[str, JsonValue] | None = None,
) -> float:
    """Return the term of a step of which the environment rejected so many parts."""
    action = Action("", issues=tuple(ParseIssue(kind, "why") for kind in issues))
    rejected = (*action.rejections, *("no" for _ in range(num_rejected)))
    return reward.term(0.0, 0.0, action, Outcome(STATE, rejected=rejected, info=info or {}))


RECOVERED, IGNORED, REJECTED = IssueKind.RECOVERED, IssueKind.IGNORED, IssueKind.REJECTED


def test_a_step_cost_is_due_at_every_step() -> None:
    assert term(StepCost(amount=0.5)) == -0.5
    assert term(StepCost(amount=0.5), [REJECTED], 3) == -0.5


@pytest.mark.parametrize(
    ("issues", "expected"),
    [
        ([], 0.0),
        ([IGNORED], 0.0),
        ([RECOVERED], -0.5),
        ([REJECTED], -0.5),
        ([RECOVERED, REJECTED, REJECTED], -0.5),
    ],
)
def test_a_format_penalty_is_due_once_for_what_the_parser_recovered_or_rejected(
    issues: list[IssueKind], expected: float
) -> None:
    assert term(FormatPenalty(amount=0.5), issues) == expected


@pytest.mark.parametrize("counted", IssueKind)
@pytest.mark.parametrize("issue", IssueKind)
def test_a_format_penalty_counts_the_issues_that_its_setting_names(
    counted: IssueKind, issue: IssueKind
) -> None:
    assert term(FormatPenalty(amount=1, issues=(counted,)), [issue]) == -float(issue is counted)


def test_a_format_penalty_is_no_business_of_what_the_environment_rejects() -> None:
    assert term(FormatPenalty(amount=1), [], 3) == 0.0


def test_a_format_penalty_names_each_issue_once_and_at_least_one() -> None:
    assert FormatPenalty(amount=1, issues=(REJECTED, RECOVERED, REJECTED)) == FormatPenalty(
        amount=1
    )
    with pytest.raises(ValidationError, match="issues"):
        FormatPenalty(amount=1, issues=())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<answer>x</answer>", 0.0),
        ("<answer>x", -1.0),
        ("<tool_call>{not json</tool_call>", -1.0),
        ("<act></act>", -1.0),
        ("plain words", 0.0),
    ],
)
def test_a_format_penalty_goes_by_the_parser(text: str, expected: float) -> None:
    action = parse_text(text)
    outcome = Outcome(STATE, rejected=action.rejections)
    assert FormatPenalty(amount=1).term(0.0, 0.0, action, outcome) == expected


@pytest.mark.parametrize(
    ("per", "num_rejected", "expected"),
    [("part", 0, 0.0), ("part", 1, -0.5), ("part", 3, -1.5), ("step", 0, 0.0), ("step", 3, -0.5)],
)
def test_an_invalid_action_penalty_is_due_for_each_part_or_once(
    per: Literal["part", "step"], num_rejected: int, expected: float
) -> None:
    reward = InvalidActionPenalty(amount=0.5, per=per)
    assert term(reward, [], num_rejected) == expected
    assert term(reward, [REJECTED, RECOVERED], num_rejected) == expected, "the parser's are not its"


@pytest.mark.parametrize(
    ("counts_refused", "info", "expected"),
    [
        (False, {"is_refused": True}, 0.0),
        (True, {"is_refused": True}, -1.0),
        (True, {"is_refused": False}, 0.0),
        (True, {}, 0.0),
    ],
)
def test_a_refused_command_counts_where_the_setting_says_so(
    counts_refused: bool, info: dict[str, JsonValue], expected: float
) -> None:
    reward = InvalidActionPenalty(amount=1, refused_commands=counts_refused)
    assert term(reward, info=info) == expected
    assert term(reward, num_rejected=1, info=info) == expected - 1.0
