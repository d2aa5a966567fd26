"""Recorded trajectories as the arguments of `StepBatch.from_arrays`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from steppo_env.errors import InvalidInput
from steppo_env.mdp import Step, Trajectory

__all__ = ["arguments_of"]


def arguments_of(
    trajectories: Iterable[Trajectory],
    value: Mapping[str, Sequence[float]] | None,
    bootstrap_value: Mapping[str, float] | None,
    forks: Iterable[Trajectory],
) -> dict[str, Any]:
    """Return the arguments that make a batch of whole trajectories."""
    found = list(trajectories)
    ids = [trajectory.trajectory_id for trajectory in found]
    repeated = next((item for item, count in Counter(ids).items() if count > 1), None)
    if repeated is not None:
        raise InvalidInput(f"trajectory {repeated} stands twice")
    for trajectory in found:
        _check(trajectory)
    steps = [(item.trajectory_id, step) for item in found for step in item.steps]
    return {
        "trajectory": [trajectory_id for trajectory_id, _ in steps],
        "step": [step.step_index for _, step in steps],
        "reward": [step.reward for _, step in steps],
        "value": None if value is None else _values(found, value),
        "terminated": {item.trajectory_id: item.terminated for item in found},
        "bootstrap_value": _bootstrap_values(found, bootstrap_value or {}),
        "group": {item.trajectory_id: item.group_id for item in found},
        "anchor": [step.state_key for _, step in steps],
        "response_length": _response_lengths([step for _, step in steps]),
        "forks": _forks(forks, set(ids)) or None,
    }


def _check(trajectory: Trajectory) -> None:
    name = f"trajectory {trajectory.trajectory_id}"
    if not trajectory.trainable:
        raise InvalidInput(
            f"{name} was ended by infrastructure ({trajectory.stop_reason.value}); it earns no credit: "
            "leave it out and count it"
        )
    if not trajectory.steps:
        raise InvalidInput(f"{name} has no steps")


def _values(found: Sequence[Trajectory], value: Mapping[str, Sequence[float]]) -> list[float]:
    values: list[float] = []
    for trajectory in found:
        name, num_steps = trajectory.trajectory_id, len(trajectory.steps)
        if name not in value:
            raise InvalidInput(f"value says nothing of trajectory {name}")
        if len(value[name]) != num_steps:
            raise InvalidInput(
                f"trajectory {name} has {num_steps} steps, but {len(value[name])} values"
            )
        values += value[name]
    unknown = sorted(set(value) - {trajectory.trajectory_id for trajectory in found})
    if unknown:
        raise InvalidInput(f"value names trajectory {unknown[0]!r}, which the batch lacks")
    return values


def _bootstrap_values(found: Sequence[Trajectory], given: Mapping[str, float]) -> dict[str, float]:
    known = dict(given)
    for trajectory in found:
        stated = trajectory.steps[-1].info.get("bootstrap_value")
        if isinstance(stated, int | float):
            known.setdefault(trajectory.trajectory_id, float(stated))
    return known


def _response_lengths(steps: Sequence[Step]) -> list[int] | None:
    lengths = [len(step.response_ids) for step in steps if step.response_ids is not None]
    return lengths if len(lengths) == len(steps) else None


def _forks(
    forks: Iterable[Trajectory], ids: set[str]
) -> dict[tuple[str | int, int], list[list[float]]]:
    found: dict[tuple[str | int, int], list[list[float]]] = {}
    for fork in forks:
        _check(fork)
        if fork.parent is None or fork.parent.trajectory_id not in ids:
            raise InvalidInput(f"trajectory {fork.trajectory_id} is no fork of one in the batch")
        rewards = [step.reward for step in fork.steps]
        if fork.truncated:
            stated = fork.steps[-1].info.get("bootstrap_value")
            if not isinstance(stated, int | float):
                raise InvalidInput(
                    f"the fork {fork.trajectory_id} was truncated and the value of the state it "
                    "stopped in is unknown"
                )
            rewards.append(float(stated))
        # A fork goes on after its parent's step: it samples the value of the state that came next.
        place = (fork.parent.trajectory_id, fork.parent.step_index + 1)
        found.setdefault(place, []).append(rewards)
    return found
