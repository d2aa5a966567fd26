"""Generalised advantage estimation, by step and by token (Schulman et al. 2016, arXiv 1506.02438)."""

import numpy as np

from steppo_env.credit.credit import Credit
from steppo_env.credit.layout import StepBatch
from steppo_env.credit.recurrence import discounted_sums, varying_sums
from steppo_env.credit.segments import Floats, Piece
from steppo_env.credit.settings import check_discount
from steppo_env.errors import InvalidInput

__all__ = [
    "end_values",
    "step_gae",
    "token_gae",
    "token_gae_step_discount",
]


def end_values(batch: StepBatch) -> Floats:
    """Return what follows each trajectory: 0 after a terminal state, else the bootstrap value.

    Raises:
        InvalidInput: A truncated trajectory has no bootstrap value.
    """
    unknown = np.isnan(batch.after)
    if unknown.any():
        raise InvalidInput(
            f"trajectory {batch.trajectory_ids[unknown.argmax()]} was truncated and needs a "
            "bootstrap_value: the value of the state it stopped in"
        )
    return batch.after


def step_gae(batch: StepBatch, gamma: float, lam: float) -> Credit:
    """Step-level GAE: gamma and lambda tick once for each step (StepPO, arXiv 2604.18401, section 3).

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t) and A_t = delta_t + gamma lam A_{t+1}; after the end V
    is 0 for a terminated trajectory and the bootstrap value for a truncated one, and A is 0. The
    returns are A + V. Without values V is 0 everywhere.

    Args:
        gamma: Discount of a step, in [0, 1].
        lam: Lambda of a step, in [0, 1].

    Returns:
        Level "step", with `delta` and `next_value` among the diagnostics.

    With gamma 0.5 and lambda 1: A_1 = 1 - 0.2 = 0.8, delta_0 = 0 + 0.5 * 0.2 - 0.4 = -0.3 and
    A_0 = -0.3 + 0.5 * 0.8 = 0.1.

    >>> batch = StepBatch.from_arrays(
    ...     trajectory=["a", "a"], step=[0, 1], reward=[0.0, 1.0], value=[0.4, 0.2]
    ... )
    >>> step_gae(batch, gamma=0.5, lam=1.0).advantages.round(12)
    array([0.1, 0.8])
    """
    check_discount("gamma", gamma)
    check_discount("lam", lam)
    value = np.zeros(batch.num_steps) if batch.value is None else batch.value
    following = batch.steps.next_of(value, end_values(batch))
    delta = gamma * following
    delta += batch.reward
    delta -= value
    advantages = discounted_sums(delta, gamma * lam, batch.steps)
    return Credit(
        batch.to_input_order(advantages),
        batch.to_input_order(advantages + value),
        "step",
        {"delta": batch.to_input_order(delta), "next_value": batch.to_input_order(following)},
    )


def token_gae(batch: StepBatch, gamma: float, lam: float) -> Credit:
    """Token-level GAE: gamma and lambda tick once for each response token (PPO's usual form).

    The recursion runs over all response tokens of a trajectory and crosses steps: the last token of a
    step bootstraps from the value before the first token of the next. A step's reward is on its last
    token. Mind the discount: 0.99 per token leaves 0.99^300 = 0.05 of what lies one 300-token response
    away.

    Returns:
        Level "token".

    Two steps of two tokens and one, values 0, gamma 0.5, lambda 1: the reward of 1 on the very last
    token is worth 0.5 and 0.25 on the two tokens before.

    >>> batch = StepBatch.from_arrays(
    ...     trajectory=["a", "a"], step=[0, 1], reward=[0.0, 1.0], response_length=[2, 1]
    ... )
    >>> token_gae(batch, gamma=0.5, lam=1.0).advantages
    array([0.25, 0.5 , 1.  ])
    """
    check_discount("gamma", gamma)
    check_discount("lam", lam)
    value, segments = _token_values(batch), batch.token_segments
    after, decay = gamma * end_values(batch), gamma * lam
    advantages, returns = np.empty_like(value), np.empty_like(value)
    scratch = np.empty(max(piece.segments.total for piece in segments.pieces))
    # The returns G = A + V obey G_t = r_t + (gamma - gamma lam) V_{t+1} + gamma lam G_{t+1}, which takes
    # one pass less than A. Piece by piece, so that what is made on the way stays in the cache.
    for piece in segments.pieces:
        own_value = value[piece.elements]
        drive = piece.segments.shifted(own_value, gamma - decay, after[piece.members], out=scratch)
        _add_rewards(batch, piece, drive)
        found = returns[piece.elements]
        discounted_sums(drive, decay, piece.segments, out=found, is_scratch=True)
        np.subtract(found, own_value, out=advantages[piece.elements])
    return _token_credit(batch, advantages, returns)


def token_gae_step_discount(batch: StepBatch, gamma: float, lam: float) -> Credit:
    """Token-level GAE with gamma and lambda for each step, spread over its tokens.

    Each token of a response of L tokens uses gamma^(1/L) and lam^(1/L), so that a whole step discounts
    by gamma however long it is: what a fair token-level baseline of step-level GAE needs.

    Returns:
        Level "token".

    A step of two tokens before the rewarded one, gamma 0.25: each of its tokens discounts by 0.5.

    >>> batch = StepBatch.from_arrays(
    ...     trajectory=["a", "a"], step=[0, 1], reward=[0.0, 1.0], response_length=[2, 1]
    ... )
    >>> token_gae_step_discount(batch, gamma=0.25, lam=1.0).advantages
    array([0.25, 0.5 , 1.  ])
    """
    check_discount("gamma", gamma)
    check_discount("lam", lam)
    value, segments, lengths = _token_values(batch), batch.token_segments, batch.responses.lengths
    gammas = np.repeat(gamma ** (1.0 / lengths), lengths)
    delta = gammas * segments.next_of(value, end_values(batch)) - value
    whole = Piece(slice(0, segments.total), slice(0, batch.num_trajectories), segments)
    _add_rewards(batch, whole, delta)
    coefficients = gammas * np.repeat(lam ** (1.0 / lengths), lengths)
    advantages = varying_sums(delta, coefficients, segments)
    return _token_credit(batch, advantages, advantages + value)


def _token_values(batch: StepBatch) -> Floats:
    if batch.token_value is not None:
        return batch.token_value
    if batch.value is None:
        return np.zeros(batch.responses.total)
    if batch.responses.total == batch.num_steps:
        return batch.value  # one token a step: the value before it is the step's
    raise InvalidInput(
        "token-level GAE needs token_value, the value before each response token; the batch has only "
        "the values of its steps"
    )


def _add_rewards(batch: StepBatch, piece: Piece, x: Floats) -> None:
    """Add the reward on each token, in place: a step's own is on the last one of its response."""
    steps = slice(batch.offsets[piece.members.start], batch.offsets[piece.members.stop])
    x[batch.responses.last[steps] - piece.elements.start] += batch.own_reward[steps]
    if batch.token_reward is not None:
        x += batch.token_reward[piece.elements]


def _token_credit(batch: StepBatch, advantages: Floats, returns: Floats) -> Credit:
    return Credit(
        batch.tokens_to_input_order(advantages), batch.tokens_to_input_order(returns), "token"
    )
