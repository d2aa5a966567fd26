"""StepBatch: ragged trajectories as a struct of arrays. There is no padding in it.

Notation: N steps of n trajectories; L_i response tokens of step i, K tokens in all.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from steppo_env.credit.rows import ForkReturns, Forks, Rows
from steppo_env.credit.segments import Floats, Integers, Segments
from steppo_env.credit.trajectories import arguments_of
from steppo_env.errors import InvalidInput
from steppo_env.mdp import Trajectory

__all__ = ["StepBatch"]


@dataclass(frozen=True, eq=False)
class StepBatch:
    """N steps in (trajectory, step) order. Make one with `from_arrays` or `from_trajectories`.

    Attributes:
        trajectory_ids: Sorted, shape (n,).
        steps: How the N steps divide into trajectories.
        order: Input row of each step, shape (N,).
        step: Index of each step within its trajectory, shape (N,).
        reward: Reward of each step, those on its tokens included, shape (N,).
        own_reward: The same without those on its tokens, shape (N,).
        value: V(s_t), shape (N,), or None.
        terminated: True where the MDP itself ended, False where it was truncated, shape (n,).
        bootstrap_value: Value of the state it stopped in, shape (n,); NaN where unknown.
        group: Number of each trajectory's group, shape (n,), or None.
        anchor: Key or text of each step's state, shape (N,), or None.
        response_length: L_i, shape (N,), or None.
        token_value: Value before each response token, shape (K,), or None.
        token_reward: Reward on each response token beside the step's own, shape (K,), or None.
        forks: Continuations sampled from states of the batch, or None.
    """

    trajectory_ids: npt.NDArray[np.generic]
    steps: Segments
    order: Integers
    step: Integers
    reward: Floats
    own_reward: Floats
    value: Floats | None
    terminated: npt.NDArray[np.bool_]
    bootstrap_value: Floats
    group: Integers | None = None
    anchor: npt.NDArray[np.object_] | None = None
    response_length: Integers | None = None
    token_value: Floats | None = None
    token_reward: Floats | None = None
    forks: ForkReturns | None = None

    @property
    def num_steps(self) -> int:
        """N."""
        return self.steps.total

    @property
    def num_trajectories(self) -> int:
        """n."""
        return len(self.trajectory_ids)

    @property
    def offsets(self) -> Integers:
        """Where each trajectory begins among the steps, shape (n + 1,)."""
        return self.steps.offsets

    @cached_property
    def trajectory(self) -> npt.NDArray[np.generic]:
        """Id of each step's trajectory, shape (N,)."""
        return self.trajectory_ids[self.steps.owner]

    @cached_property
    def after(self) -> Floats:
        """What follows each trajectory: 0 after a terminal state, else the bootstrap value; (n,)."""
        return np.where(self.terminated, 0.0, self.bootstrap_value)

    @cached_property
    def is_in_order(self) -> bool:
        """True when the input was in (trajectory, step) order already."""
        return bool((self.order == np.arange(self.num_steps)).all())

    @cached_property
    def responses(self) -> Segments:
        """How the K tokens divide into steps.

        Raises:
            InvalidInput: The batch has no response lengths.
        """
        if self.response_length is None:
            raise InvalidInput("this needs response_length, which the batch does not have")
        return Segments(self.response_length)

    @cached_property
    def token_segments(self) -> Segments:
        """How the K tokens divide into trajectories."""
        return Segments(np.add.reduceat(self.responses.lengths, self.steps.first))

    def to_input_order(self, x: Floats) -> Floats:
        """Return per-step values, shape (N,), in the order of the input rows."""
        if self.is_in_order:
            return x
        rows = np.empty_like(x)
        rows[self.order] = x
        return rows

    def tokens_to_input_order(self, x: Floats) -> Floats:
        """Return per-token values, shape (K,), concatenated in the order of the input rows."""
        if self.is_in_order:
            return x
        place = np.argsort(self.order)
        pieces = np.split(x, self.responses.offsets[1:-1])
        return np.concatenate([pieces[row] for row in place])

    def __len__(self) -> int:
        return self.num_steps

    @classmethod
    def from_arrays(
        cls,
        *,
        trajectory: Sequence[str] | Sequence[int] | npt.NDArray[np.generic],
        step: Sequence[int] | npt.NDArray[np.generic],
        reward: npt.ArrayLike,
        value: npt.ArrayLike | None = None,
        terminated: Mapping[str, bool] | Mapping[int, bool] | None = None,
        bootstrap_value: Mapping[str, float] | Mapping[int, float] | None = None,
        group: Mapping[str, Hashable] | Mapping[int, Hashable] | None = None,
        anchor: Sequence[str] | None = None,
        response_length: Sequence[int] | npt.NDArray[np.generic] | None = None,
        token_value: Sequence[npt.ArrayLike] | None = None,
        token_reward: Sequence[npt.ArrayLike] | None = None,
        forks: Forks | None = None,
    ) -> Self:
        """Make a batch of N rows in any order.

        Args:
            trajectory: Id of each row's trajectory, all strings or all integers.
            step: Index of each row in its trajectory; each trajectory has 0, 1, 2, ... once.
            reward: Shape (N,).
            value: V(s_t), shape (N,).
            terminated: By trajectory id; without it every trajectory terminated.
            bootstrap_value: By trajectory id: the value of the state it stopped in. Used for
                truncated trajectories; what follows a terminal state is worth 0.
            group: By trajectory id: what the samples of one task share.
            anchor: Key or text of each row's state (GiGPO).
            response_length: Number of response tokens of each row, at least 1.
            token_value: For each row the values before its tokens, shape (L_i,).
            token_reward: For each row rewards on its tokens, shape (L_i,), such as a KL penalty. They
                are part of the step's reward.
            forks: Continuations sampled from states of the batch (Monte-Carlo credit).

        Raises:
            InvalidInput: Lengths differ, a step is missing or stands twice, a number is not finite, a
                response is empty, or a mapping misses a trajectory or names an unknown one.

        >>> batch = StepBatch.from_arrays(trajectory=["b", "a", "b"], step=[1, 0, 0], reward=[1, 2, 3])
        >>> batch.reward, batch.order, batch.offsets
        (array([2., 3., 1.]), array([1, 2, 0]), array([0, 1, 3]))
        """
        rows = Rows(trajectory, step)
        lengths = None if response_length is None else rows.response_lengths(response_length)

        def per_token(name: str, values: Sequence[npt.ArrayLike] | None) -> Floats | None:
            if values is None:
                return None
            if lengths is None:
                raise InvalidInput(f"{name} needs response_length")
            return rows.per_token(name, values, lengths)

        own_rewards = rows.per_step("reward", reward)
        rewards = own_rewards
        token_rewards = per_token("token_reward", token_reward)
        if token_rewards is not None and lengths is not None:
            rewards = rewards + Segments(lengths).sums(token_rewards)
        return cls(
            trajectory_ids=rows.ids,
            steps=rows.segments,
            order=rows.order,
            step=rows.step,
            reward=rewards,
            own_reward=own_rewards,
            value=None if value is None else rows.per_step("value", value),
            terminated=rows.flags("terminated", terminated),
            bootstrap_value=rows.values_of("bootstrap_value", bootstrap_value),
            group=rows.groups(group),
            anchor=None if anchor is None else rows.texts("anchor", anchor),
            response_length=lengths,
            token_value=per_token("token_value", token_value),
            token_reward=token_rewards,
            forks=rows.forks(forks),
        )

    @classmethod
    def from_trajectories(
        cls,
        trajectories: Iterable[Trajectory],
        *,
        value: Mapping[str, Sequence[float]] | None = None,
        bootstrap_value: Mapping[str, float] | None = None,
        forks: Iterable[Trajectory] = (),
    ) -> Self:
        """Make a batch of whole trajectories; rows are their steps, one trajectory after the other.

        Groups are the trajectories' groups, anchors their state keys, response lengths those of their
        token ids where every step has them.

        Args:
            value: For each trajectory id V(s_t) of its steps, shape (T,).
            bootstrap_value: By trajectory id; where it says nothing, the last step's
                `info["bootstrap_value"]` is taken, if there.
            forks: Trajectories with a `parent` in the batch; their steps follow the parent's step.

        Raises:
            InvalidInput: A trajectory has no steps, was ended by infrastructure, or stands twice.
        """
        return cls.from_arrays(**arguments_of(trajectories, value, bootstrap_value, forks))
