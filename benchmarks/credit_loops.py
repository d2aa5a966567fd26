"""The credit estimators as plain loops: what `benchmarks.credit` measures the package against.

One trajectory at a time, as one would write the formulas down. They take and give numpy arrays, as the
estimators do, and loop over Python floats: over the elements of an array it would take four times as long.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
GROUP = 8


@dataclass(frozen=True, slots=True)
class Episode:
    """One trajectory: an entry a step, and for token_values an array a step."""

    group: int
    terminated: bool
    bootstrap_value: float
    rewards: Floats
    values: Floats
    anchors: list[str]
    token_values: list[Floats]
    forks: list[list[list[float]]]


Result = tuple[Floats, Floats]
"""Advantages and returns, trajectory after trajectory, in the order of their steps (or tokens)."""


def make_episodes(count: int, rng: np.random.Generator) -> list[Episode]:
    """Return episodes of 1 to 20 steps with 64 to 512 tokens a step, in groups of eight."""
    return [_make_episode(index // GROUP, rng) for index in range(count)]


def _make_episode(group: int, rng: np.random.Generator) -> Episode:
    steps = int(rng.integers(1, 21))
    token_values = [rng.normal(size=int(rng.integers(64, 513))) for _ in range(steps)]
    return Episode(
        group=group,
        terminated=bool(rng.random() < 0.8),
        bootstrap_value=float(rng.normal()),
        rewards=rng.normal(size=steps),
        values=np.array([values[0] for values in token_values]),
        anchors=[f"room {place}" for place in rng.integers(0, 12, size=steps)],
        token_values=token_values,
        forks=[
            [rng.normal(size=int(rng.integers(1, 8))).tolist() for _ in range(4)]
            for _ in range(steps)
        ],
    )


def step_gae(episodes: Sequence[Episode], gamma: float, lam: float) -> Result:
    """Step by step, from the last to the first."""
    advantages: list[float] = []
    returns: list[float] = []
    for episode in episodes:
        rewards, values = episode.rewards.tolist(), episode.values.tolist()
        found = [0.0] * len(rewards)
        carry = 0.0
        next_value = _last_value(episode)
        for t in reversed(range(len(rewards))):
            delta = rewards[t] + gamma * next_value - values[t]
            carry = delta + gamma * lam * carry
            found[t] = carry
            next_value = values[t]
        advantages += found
        returns += [a + v for a, v in zip(found, values, strict=True)]
    return np.array(advantages), np.array(returns)


def token_gae(episodes: Sequence[Episode], gamma: float, lam: float, by_step: bool) -> Result:
    """Token by token across the steps; by_step spreads gamma and lam over the tokens of a step."""
    advantages: list[float] = []
    returns: list[float] = []
    for episode in episodes:
        found: list[float] = []
        targets: list[float] = []
        carry = 0.0
        next_value = _last_value(episode)
        for reward, values in zip(
            reversed(episode.rewards.tolist()), reversed(episode.token_values), strict=True
        ):
            discount = gamma ** (1 / len(values)) if by_step else gamma
            decay = discount * (lam ** (1 / len(values)) if by_step else lam)
            for value in reversed(values.tolist()):
                carry = reward + discount * next_value - value + decay * carry
                found.append(carry)
                targets.append(carry + value)
                next_value = value
                reward = 0.0  # it is on the last token, which comes first here
        advantages += reversed(found)
        returns += reversed(targets)
    return np.array(advantages), np.array(returns)


def reinforce_pp(episodes: Sequence[Episode], gamma: float) -> Result:
    """Discounted returns to go, across the steps."""
    returns: list[float] = []
    for episode in episodes:
        found: list[float] = []
        carry = _last_value(episode)
        for reward in reversed(episode.rewards.tolist()):
            carry = reward + gamma * carry
            found.append(carry)
        returns += reversed(found)
    return np.array(returns), np.array(returns)


def broadcast(episodes: Sequence[Episode]) -> Result:
    """The trajectory's return on each of its steps."""
    returns = [_return(episode) for episode in episodes for _ in episode.rewards]
    return np.array(returns), np.array(returns)


def within(
    keys: Sequence[Hashable],
    values: Sequence[float],
    advantage: Callable[[list[float]], list[float]],
) -> list[float]:
    """Return the advantage of each value among the values with the same key."""
    places: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        places[key].append(place)
    found = [0.0] * len(values)
    for members in places.values():
        if len(members) > 1:
            for place, a in zip(members, advantage([values[i] for i in members]), strict=True):
                found[place] = a
    return found


def over_group(
    episodes: Sequence[Episode], advantage: Callable[[list[float]], list[float]]
) -> Result:
    """Each trajectory's return against those of its group, on each of its steps."""
    totals = [_return(episode) for episode in episodes]
    found = within([episode.group for episode in episodes], totals, advantage)
    advantages: list[float] = []
    returns: list[float] = []
    for episode, a, total in zip(episodes, found, totals, strict=True):
        advantages += [a] * len(episode.rewards)
        returns += [total] * len(episode.rewards)
    return np.array(advantages), np.array(returns)


def centred(values: list[float]) -> list[float]:
    """Each value less the mean."""
    mean = sum(values) / len(values)
    return [value - mean for value in values]


def leave_one_out(values: list[float]) -> list[float]:
    """Each value less the mean of the others."""
    total = sum(values)
    return [value - (total - value) / (len(values) - 1) for value in values]


def standardized(values: list[float]) -> list[float]:
    """Each value less the mean, over the spread."""
    gaps = centred(values)
    spread = sqrt(sum(gap * gap for gap in gaps) / (len(gaps) - 1))
    return [gap / (spread + 1e-6) for gap in gaps]


def gigpo(episodes: Sequence[Episode], gamma: float) -> Result:
    """The group's advantage plus that among the steps of the group taken in one state."""
    advantages, _ = over_group(episodes, standardized)
    _, to_go = reinforce_pp(episodes, gamma)
    states = [(episode.group, anchor) for episode in episodes for anchor in episode.anchors]
    among = within(states, to_go.tolist(), standardized)
    return np.array([a + b for a, b in zip(advantages.tolist(), among, strict=True)]), to_go


def monte_carlo(episodes: Sequence[Episode], gamma: float) -> Result:
    """A one-step difference of values, each the mean return of the forks of a state."""
    advantages: list[float] = []
    returns: list[float] = []
    for episode in episodes:
        values: list[float] = []
        for forks in episode.forks:
            total = 0.0
            for rewards in forks:
                total += sum(gamma**k * reward for k, reward in enumerate(rewards))
            values.append(total / len(forks))
        values.append(_last_value(episode))
        targets = [r + gamma * values[t + 1] for t, r in enumerate(episode.rewards.tolist())]
        advantages += [target - values[t] for t, target in enumerate(targets)]
        returns += targets
    return np.array(advantages), np.array(returns)


def _last_value(episode: Episode) -> float:
    return 0.0 if episode.terminated else episode.bootstrap_value


def _return(episode: Episode) -> float:
    return float(sum(episode.rewards.tolist())) + _last_value(episode)
