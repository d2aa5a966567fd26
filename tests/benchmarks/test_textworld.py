"""The walks are safe, differences are seen, and the benchmark ends as promised; not its speed."""

import json

import pytest

from benchmarks import textworld as benchmark
from steppo_textworld import Family

COMMANDS = 20


@pytest.fixture(scope="module")
def walk() -> benchmark.Walk:
    return benchmark.find_walk(Family.COIN_COLLECTOR, 5, COMMANDS)


def test_a_walk_is_the_same_each_time_and_does_not_end_the_game(walk: benchmark.Walk) -> None:
    assert len(walk.commands) == COMMANDS
    assert benchmark.find_walk(Family.COIN_COLLECTOR, 5, COMMANDS) == walk
    env = walk.new_env()
    walk.start(env, COMMANDS)
    assert not env.has_ended
    env.close()


def test_a_difference_would_be_seen(walk: benchmark.Walk) -> None:
    env = walk.new_env()
    walk.start(env)
    plain = walk.new_plain(benchmark.AGENT_INFOS)
    benchmark.agree(env, walk.start_plain(plain))
    state = walk.start_plain(plain, 1)
    state["admissible_commands"] = [*state["admissible_commands"], "dance"]
    with pytest.raises(SystemExit, match="dance"):
        benchmark.agree(env, state)
    plain.close()


def test_all_infos_are_more_than_the_agent_sees() -> None:
    everything = benchmark.all_infos()
    assert set(benchmark.AGENT_INFOS) < set(everything)
    assert {"policy_commands", "intermediate_reward", "facts", "inventory"} < set(everything)
    assert "extras" not in everything


@pytest.mark.timeout(240)  # a minute on a busy core
def test_a_quick_run_ends_with_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--quick", "--json", "--family", "coin_collector"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found.keys() == {"figures", "targets", "missed"}
    assert found["targets"] == {
        f"coin_collector-105.after_{depth}.copy_over_snapshot": 20.0 for depth in (5, 20)
    }
    assert found["targets"].keys() < found["figures"].keys()
    assert all(figure > 0 for figure in found["figures"].values())
