"""The loops agree with the package, and the benchmark ends as promised. Speed is not asserted."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import credit as benchmark
from benchmarks import report
from benchmarks.credit_loops import make_episodes
from steppo_env import credit

ROOT = Path(__file__).resolve().parents[2]
EPISODES = make_episodes(17, np.random.default_rng(3))  # the last one is a group of its own


def test_every_estimator_has_a_loop() -> None:
    assert set(benchmark.CASES) == set(credit.ESTIMATORS)


def test_the_episodes_hold_what_the_loops_can_differ_in() -> None:
    assert {episode.terminated for episode in EPISODES} == {True, False}
    assert len({episode.group for episode in EPISODES}) == 3
    lengths = [len(tokens) for episode in EPISODES for tokens in episode.token_values]
    assert min(lengths) >= 64
    assert max(lengths) <= 512
    assert all(1 <= len(episode.rewards) <= 20 for episode in EPISODES)


@pytest.mark.parametrize("name", benchmark.CASES)
def test_a_loop_equals_the_package(name: str) -> None:
    assert benchmark.difference(name, benchmark.lay_out(EPISODES), EPISODES) <= 1e-9


@pytest.mark.parametrize("name", benchmark.CASES)
def test_a_difference_would_be_seen(name: str) -> None:
    first = EPISODES[0]
    rewards = np.concatenate([first.rewards[:1] + 1e-6, first.rewards[1:]])
    forks = [[[r + 1e-6 for r in fork] for fork in forks] for forks in first.forks]
    other = [replace(first, rewards=rewards, forks=forks), *EPISODES[1:]]
    assert benchmark.difference(name, benchmark.lay_out(EPISODES), other) > 1e-9


def test_the_grown_batch_has_ten_steps_a_trajectory() -> None:
    batch = benchmark.scaled_batch(200)
    assert (batch.num_steps, batch.num_trajectories) == (200, 20)


def test_a_table_is_aligned() -> None:
    assert report.table(["name", "n"], [["a", "10"], ["long name", "2"]]).splitlines() == [
        "name        n",
        "---------  --",
        "a          10",
        "long name   2",
    ]


def test_only_figures_below_their_target_are_missed() -> None:
    figures = {"fast": 3.0, "even": 2.0, "slow": 1.9, "free": 0.1}
    targets = {"fast": 2.0, "even": 2.0, "slow": 2.0}
    assert report.missed(figures, targets) == ["slow"]
    assert json.loads(report.json_line(figures, targets)) == {
        "figures": figures,
        "targets": targets,
        "missed": ["slow"],
    }


def test_a_quick_run_ends_with_a_line_of_json() -> None:
    command = [sys.executable, "-m", "benchmarks.credit", "--quick", "--json"]
    done = subprocess.run(
        [*command, "--trajectories", "4", "--most-steps", "1000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == {"figures", "targets", "missed"}
    assert set(benchmark.CASES) <= found["figures"].keys()
    assert found["targets"] == {"step_gae": 20.0, "token_gae": 50.0}
    assert found["missed"] == report.missed(found["figures"], found["targets"])
