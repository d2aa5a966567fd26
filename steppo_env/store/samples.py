"""Plain records to test stores with; every field that does not matter has a plain value."""

from collections.abc import Mapping
from dataclasses import replace

from steppo_env.mdp import Message, Step, StopReason, Trajectory
from steppo_env.store.runs import Run

__all__ = ["make_run", "make_step", "make_trajectory"]


def make_step(step_index: int, *, reward: float = 0.0, num_tokens: int | None = None) -> Step:
    """Return a plain step, with so many prompt and response tokens each; None for no token ids."""
    ids = None if num_tokens is None else tuple(range(num_tokens))
    return Step(
        step_index=step_index,
        messages=(Message("user", f"state {step_index}"),),
        response_text=f"response {step_index}",
        reward=reward,
        reward_terms={"goal": reward} if reward else {},
        terminated=False,
        truncated=False,
        state_key=f"state-{step_index}",
        trace_key=f"trace-{step_index}",
        prompt_ids=ids,
        response_ids=ids,
        response_logprobs=None if num_tokens is None else (-0.5,) * num_tokens,
    )


def make_trajectory(
    trajectory_id: str,
    *,
    num_steps: int = 1,
    num_tokens: int | None = None,
    rewards: Mapping[int, float] | None = None,
    stop_reason: StopReason = StopReason.TERMINATED,
    **fields: object,
) -> Trajectory:
    """Return a plain trajectory that ends as its stop reason says; `fields` replace others."""
    steps = [
        make_step(index, reward=(rewards or {}).get(index, 0.0), num_tokens=num_tokens)
        for index in range(num_steps)
    ]
    if steps:
        steps[-1] = replace(
            steps[-1],
            terminated=stop_reason is StopReason.TERMINATED,
            truncated=stop_reason in (StopReason.STEP_LIMIT, StopReason.TRUNCATED),
        )
    trajectory = Trajectory(
        trajectory_id=trajectory_id,
        group_id="group",
        env_id="steppo/KeyDoor-v0",
        task_id="train/0",
        split="train",
        seed=7,
        policy="expert",
        steps=tuple(steps),
        stop_reason=stop_reason,
    )
    return replace(trajectory, **fields)  # type: ignore[arg-type]


def make_run(run_id: str = "run-1", **fields: object) -> Run:
    """Return a plain run; `fields` replace others."""
    run = Run(
        run_id=run_id,
        kind="eval",
        config={"num_groups": 4, "policy": {"name": "expert"}},
        seed=7,
        code_version="0.1.0+abc",
        env_versions={"steppo/KeyDoor-v0": "0.1.0"},
        started_at=1_700_000_000.25,
    )
    return replace(run, **fields)  # type: ignore[arg-type]
