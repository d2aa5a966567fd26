import io

import pytest
from rich.console import Console

from steppo_client.cli.show import show_trajectory
from steppo_env.mdp import Message, Step, StopReason, ToolCall, Trajectory


def shown(**changes: object) -> str:
    step = Step(
        step_index=0,
        messages=(Message("user", "state"),),
        response_text="[bold]my[/bold] response",
        reward=0.5,
        reward_terms={"goal": 0.75, "malformed": -0.25},
        terminated=False,
        truncated=True,
        state_key="s",
        trace_key="k",
        tool_calls=(ToolCall("look", {"at": "[door]"}),),
        observation_text="x" * 2000,
        info={"rejected": ["write [one] command"]},
    )
    values: dict[str, object] = {
        "trajectory_id": "id1",
        "group_id": "g",
        "env_id": "e",
        "task_id": "dev/0",
        "split": "dev",
        "seed": 7,
        "policy": "p[1]",
        "steps": (step,),
        "stop_reason": StopReason.STEP_LIMIT,
        "success": False,
        "final_messages": (Message("user", "the [last] state"),),
    }
    file = io.StringIO()
    trajectory = Trajectory(**{**values, **changes})  # type: ignore[arg-type]
    show_trajectory(trajectory, Console(file=file, width=100))
    return file.getvalue()


def test_everything_of_a_step_is_shown_and_nothing_is_read_as_markup() -> None:
    text = shown()

    for part in (
        "policy p[1]  seed 7",
        "id1: not solved, return 0.5, 1 steps, ended by step_limit",
        "[bold]my[/bold] response",
        "look {'at': '[door]'}",
        "reward 0.5 (goal 0.75, malformed -0.25) truncated",
        "rejected: write [one] command",
        "the [last] state",
    ):
        assert part in text


def test_long_texts_are_cut_and_say_so() -> None:
    text = shown()

    assert text.count("x" * 90) >= 1
    assert text.count("x") < 1600
    assert "... (500 more characters)" in text


@pytest.mark.parametrize(
    ("success", "verdict"), [(True, "solved"), (False, "not solved"), (None, "no verdict")]
)
def test_the_verdict_is_shown(success: bool | None, verdict: str) -> None:
    assert f"id1: {verdict}," in shown(success=success)


def test_a_trajectory_without_steps_shows_its_error() -> None:
    text = shown(steps=(), stop_reason=StopReason.ENV_ERROR, error="jam [1]", final_messages=None)

    assert "0 steps, ended by env_error (jam [1])" in text
