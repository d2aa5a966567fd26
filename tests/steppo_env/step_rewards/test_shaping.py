"""Shaping changes the returns by a constant, and so no optimal policy. Found by brute force."""

import itertools
import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_env import Action, EnvOptions, ListedTasks, Message, Task, make
from steppo_env.env import AnyEnv, StepEnv
from steppo_env.errors import EnvError, InvalidOptions
from steppo_env.mdp import Observation, Outcome
from steppo_env.step_rewards import Shaping
from steppo_env.testing import play

KEYDOOR = "steppo/KeyDoor-v0"
GO = tuple(f"<act> go {to} </act>" for to in ("north", "south", "west", "east"))
NUM_ROOMS = 5


@dataclass(frozen=True, slots=True)
class RoomsTask(Task):
    """A corridor of rooms; the goal is the last."""

    start: int = 0


class Rooms(StepEnv[RoomsTask, EnvOptions]):
    """Walk to the last room, or quit; quitting ends the episode with less. `lost` has no distance."""

    env_id = "test/Rooms-v0"
    options_type = EnvOptions
    knows_distance = True

    @classmethod
    def load_tasks(cls, options: EnvOptions) -> ListedTasks[RoomsTask]:
        return ListedTasks([RoomsTask(f"r{start}", "train", {}, start) for start in range(4)], "1")

    def begin(self, task: RoomsTask, rng: np.random.Generator) -> Observation:
        self.room: int | None = task.start
        return self.see(task)

    def act(self, action: Action) -> Outcome:
        assert self.room is not None
        if action.content == "quit":
            self.room = None  # a game that is over knows no distance
            return Outcome(self.see(self.task), {"quit": 0.3}, terminated=True)
        if action.content == "lost":
            self.room = None
            return Outcome(self.see(self.task), {})
        self.room = max(0, self.room + (1 if action.content == "on" else -1))
        is_there = self.room == NUM_ROOMS - 1
        return Outcome(self.see(self.task), {"goal": float(is_there)}, terminated=is_there)

    def distance(self) -> int | None:
        if self.room is None or not self.knows_distance:
            return None
        return NUM_ROOMS - 1 - self.room

    def see(self, task: RoomsTask) -> Observation:
        shown = str(self.room)
        return self.observe((Message("user", shown),), text=shown, state=self.room, task=task)


class Unknown(Rooms):
    """Does not know how far the goal is."""

    env_id = "test/Unknown-v0"
    knows_distance = False


CHOICES = ("on", "back", "quit")


def transitions(shaping: Shaping | None, room: int, choice: str) -> tuple[float, int | None]:
    """Return reward and next room of a choice in a room, by the environment itself."""
    env = Rooms(step_rewards=[shaping] if shaping else [], step_limit=1000)
    env.start(f"r{room}", 0)
    outcome = env.advance(choice)
    return outcome.reward, None if outcome.terminated else env.room


Model: TypeAlias = dict[tuple[int, str], tuple[float, int | None]]


def model(shaping: Shaping | None) -> Model:
    """Return the whole MDP: reward and next room by room and choice."""
    return {
        (room, choice): transitions(shaping, room, choice)
        for room, choice in itertools.product(range(NUM_ROOMS - 1), CHOICES)
    }


HORIZON = 60


def values(
    mdp: Model, shaping: Shaping | None, policy: tuple[str, ...], gamma: float
) -> list[float]:
    """Return the discounted return of a deterministic policy from each room.

    A walk that has not ended by the horizon is truncated: it bootstraps from the value of the room it
    stopped in, which is 0 plain, and minus the potential shaped.
    """
    found = []
    for start in range(NUM_ROOMS - 1):
        room: int | None = start
        total = 0.0
        for step in range(HORIZON):
            if room is None:
                break
            reward, room = mdp[room, policy[room]]
            total += gamma**step * reward
        if room is not None and shaping is not None:
            total += gamma**HORIZON * shaping.scale * (NUM_ROOMS - 1 - room)
        found.append(total)
    return found


POLICIES = list(itertools.product(CHOICES, repeat=NUM_ROOMS - 1))


@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("scale", [0.1, 1.0, 50.0])
def test_every_policy_loses_the_same_so_all_81_keep_their_order(gamma: float, scale: float) -> None:
    shaping = Shaping(gamma=gamma, scale=scale)
    potentials = [-scale * (NUM_ROOMS - 1 - room) for room in range(NUM_ROOMS - 1)]
    mdp, shaped_mdp = model(None), model(shaping)
    plain = {policy: values(mdp, None, policy, gamma) for policy in POLICIES}
    shaped = {policy: values(shaped_mdp, shaping, policy, gamma) for policy in POLICIES}
    for policy in POLICIES:
        differences = [after - before for before, after in zip(plain[policy], shaped[policy])]
        assert differences == pytest.approx([-potential for potential in potentials], abs=1e-9)
    for start in range(NUM_ROOMS - 1):
        best = max(plain[policy][start] for policy in POLICIES)
        best_shaped = max(shaped[policy][start] for policy in POLICIES)
        optimal = {p for p in POLICIES if plain[p][start] > best - 1e-9}
        assert optimal == {p for p in POLICIES if shaped[p][start] > best_shaped - 1e-9}


def q_values(mdp: Model, gamma: float) -> dict[tuple[int, str], float]:
    """Return the optimal action values, by value iteration."""
    value = dict.fromkeys(range(NUM_ROOMS - 1), 0.0)
    found: dict[tuple[int, str], float] = {}
    for _ in range(300):
        found = {
            place: reward + (0.0 if room is None else gamma * value[room])
            for place, (reward, room) in mdp.items()
        }
        value = {room: max(found[room, choice] for choice in CHOICES) for room in value}
    return found


@pytest.mark.parametrize("gamma", [0.5, 0.95])
def test_the_order_of_the_actions_in_every_state_stays(gamma: float) -> None:
    """Q'(s, a) = Q(s, a) - Phi(s): Ng, Harada and Russell (1999), corollary 2."""
    plain = q_values(model(None), gamma)
    shaped = q_values(model(Shaping(gamma=gamma)), gamma)
    for (room, choice), value in plain.items():
        potential = -(NUM_ROOMS - 1 - room)
        assert shaped[room, choice] == pytest.approx(value - potential, abs=1e-9)


def test_a_potential_that_is_not_zero_at_the_end_would_change_the_optimum() -> None:
    """Why the last state has none: quitting far from the goal would cost more than it should."""
    shaping = Shaping(gamma=0.5)
    with_end = {place: reward for place, (reward, _) in model(shaping).items()}
    for room in range(NUM_ROOMS - 1):
        assert with_end[room, "quit"] == pytest.approx(0.3 + (NUM_ROOMS - 1 - room))


def discounted(env: AnyEnv, task_id: str, said: list[str], gamma: float) -> float:
    outcomes, _ = play(env, task_id, 0, lambda env: said[env.num_steps % len(said)])
    return math.fsum(
        gamma**step * outcome.reward_terms["shaping"] for step, outcome in enumerate(outcomes)
    )


@settings(max_examples=60, deadline=None)
@given(
    index=st.integers(0, 50),
    said=st.lists(st.sampled_from([*GO, "nonsense"]), min_size=1, max_size=12),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    scale=st.sampled_from([0.1, 1.0, 7.0]),
)
def test_the_sum_of_the_terms_of_a_whole_episode_is_minus_the_first_potential(
    index: int, said: list[str], gamma: float, scale: float
) -> None:
    """Also where KeyDoor's turns run out: what follows is known there, so nothing is left to pay."""
    env = make(KEYDOOR, size=4, step_rewards=[Shaping(gamma=gamma, scale=scale)])
    env.start(f"dev/{index}", 0)
    first = env.distance()
    assert first is not None
    total = discounted(env, f"dev/{index}", said, gamma)
    assert total == pytest.approx(scale * first, abs=1e-9)


@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_at_a_truncation_the_potential_stays_for_the_critic(gamma: float) -> None:
    env = Rooms(step_limit=3, step_rewards=[Shaping(gamma=gamma)])
    outcomes, _ = play(env, "r0", 0, lambda _: "back")
    assert outcomes[-1].truncated
    potential = -(NUM_ROOMS - 1)
    total = sum(gamma**step * item.reward_terms["shaping"] for step, item in enumerate(outcomes))
    assert total == pytest.approx(gamma**3 * potential - potential)


def test_an_environment_without_a_distance_is_refused_when_the_episode_begins() -> None:
    env = Unknown(step_rewards=[Shaping()])
    with pytest.raises(InvalidOptions, match=r"shaping needs the distance .* test/Unknown-v0 does"):
        env.start("r0", 0)


def test_a_distance_that_gets_lost_ends_the_episode_as_an_error() -> None:
    env = Rooms(step_rewards=[Shaping()])
    env.start("r0", 0)
    with pytest.raises(EnvError, match="does not know after step 1 of task r0"):
        env.advance("lost")
    assert env.has_ended


def test_a_terminal_state_is_never_asked_for_its_distance() -> None:
    env = Rooms(step_rewards=[Shaping()])
    env.start("r1", 0)
    assert env.advance("quit").reward_terms["shaping"] == 3.0
