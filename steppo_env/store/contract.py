"""The conformance suite of trajectory stores, to run with pytest on each kind of database.

::

    class TestSqliteStore(StoreContract):
        @pytest.fixture
        def url(self, tmp_path: Path) -> str:
            return f"sqlite:///{tmp_path}/store.db"

Each method is one claim of `steppo_env.store`.
"""

import itertools
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import HealthCheck, given, settings

from steppo_env.errors import (
    InvalidInput,
    NotFound,
    RecordConflict,
    StoreError,
    UnknownTrajectory,
)
from steppo_env.mdp import StopReason, Trajectory
from steppo_env.store import strategies
from steppo_env.store.query import GroupSummary, TrajectoryFilter
from steppo_env.store.samples import make_run, make_step, make_trajectory
from steppo_env.store.store import TrajectoryStore, open_store
from steppo_env.store.transcript import transcript

__all__ = ["StoreContract"]

NUM_WRITERS, NUM_EACH = 4, 50
NUM_KILLS = 4
START_LIMIT_S = 30.0
_WRITER = """
import sys
from steppo_env.store import open_store
from steppo_env.store.samples import make_trajectory
url, name, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_store(url) as store:
    for number in range(limit):
        trajectory = make_trajectory(f"{name}-{number}", num_steps=3, num_tokens=300)
        store.append(trajectory)
        print(trajectory.trajectory_id, flush=True)
"""


def start_writer(url: str, name: str, limit: int) -> "subprocess.Popen[str]":
    """Start a process that appends and prints the id of each trajectory once it is acknowledged."""
    command = [sys.executable, "-c", _WRITER, url, name, str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class StoreContract:
    """What every store promises. Subclass it and give it a `url` fixture: a new, empty place."""

    @pytest.fixture
    def store(self, url: str) -> Iterator[TrajectoryStore]:
        """Yield a new store."""
        with open_store(url) as store:
            yield store

    def check_integrity(self, url: str) -> None:
        """Fail when the database finds itself damaged, where it can tell."""

    @settings(
        max_examples=100,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(drawn=strategies.trajectories())
    def test_any_valid_trajectory_comes_back_exactly(
        self, store: TrajectoryStore, drawn: Trajectory
    ) -> None:
        unique = f"{uuid.uuid4()}{drawn.trajectory_id}"
        trajectory = replace(drawn, trajectory_id=unique)
        assert store.append(trajectory) is True
        found = store.get(unique)
        assert found == trajectory
        assert transcript(found) == transcript(trajectory)  # tells 1 from True, which == does not
        assert store.append(trajectory) is False
        assert store.append(found) is False

    def test_appending_the_same_record_again_changes_nothing(self, store: TrajectoryStore) -> None:
        trajectory = make_trajectory("one", num_steps=2, num_tokens=3)
        answers = [store.append(trajectory) for _ in range(3)]
        assert answers == [True, False, False]
        assert store.count() == 1
        assert len(store.get("one").steps) == 2

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"seed": 8}, "seed"),
            ({"success": True}, "success"),
            ({"labels": {"hops": 2}}, "labels"),
            ({"options": {"x": 1.0}}, "options"),
            ({"num_steps": 3}, "num_steps"),
            ({"num_tokens": 4}, "prompt_ids of step 0"),
            ({"rewards": {1: 1.0}}, "reward of step 1"),
            ({"stop_reason": StopReason.STEP_LIMIT}, "stop_reason"),
        ],
    )
    def test_another_record_under_a_stored_id_is_refused_and_the_difference_named(
        self, store: TrajectoryStore, fields: dict[str, object], named: str
    ) -> None:
        plain: dict[str, object] = {"num_steps": 2, "num_tokens": 3, "options": {"x": 1}}
        first = make_trajectory("one", **plain)  # type: ignore[arg-type]
        store.append(first)
        with pytest.raises(RecordConflict, match="'one'") as caught:
            store.append(make_trajectory("one", **(plain | fields)))  # type: ignore[arg-type]
        differences = caught.value.members["differences"]
        assert isinstance(differences, list)
        assert named in differences
        assert store.get("one") == first

    def test_the_order_of_json_keys_is_kept_but_makes_no_other_record(
        self, store: TrajectoryStore
    ) -> None:
        store.append(make_trajectory("one", options={"b": 1, "a": 2}))
        assert list(store.get("one").options) == ["b", "a"]
        assert store.append(make_trajectory("one", options={"a": 2, "b": 1})) is False

    def test_log_probabilities_are_rounded_to_float32(self, store: TrajectoryStore) -> None:
        step = replace(make_step(0, num_tokens=2), response_logprobs=(-0.1, 5e-5), terminated=True)
        trajectory = make_trajectory("one", steps=(step,))
        store.append(trajectory)
        (found,) = store.get("one").steps
        assert found.response_logprobs == (-0.10000000149011612, 4.999999873689376e-05)
        assert store.append(trajectory) is False
        assert transcript(store.get("one")) == transcript(trajectory)

    def test_a_refused_trajectory_leaves_nothing_behind(self, store: TrajectoryStore) -> None:
        good = make_trajectory("one", num_steps=2)
        bad = replace(good.steps[1], step_index=5)
        with pytest.raises(InvalidInput, match=r"'one', step 1: step_index .* expected 1, got 5"):
            store.append(replace(good, steps=(good.steps[0], bad)))
        assert store.count() == 0
        assert store.append(good) is True

    def test_what_was_stored_is_there_after_reopening(self, url: str) -> None:
        trajectory = make_trajectory("one", num_steps=3, num_tokens=5)
        run = make_run()
        with open_store(url) as store:
            store.append(trajectory)
            store.start_run(run)
        with open_store(url, create=False) as store:
            assert store.get("one") == trajectory
            assert store.get_run("run-1") == run
            assert store.append(trajectory) is False

    def test_an_unknown_id_is_refused_with_a_hint(self, store: TrajectoryStore) -> None:
        store.append(make_trajectory("abcdefgh"))
        for unknown in ("other", "", "abcde", "abcdefgX", "bcdefgh", "abcdef\ud800"):
            with pytest.raises(UnknownTrajectory, match="first 6 characters"):
                store.get(unknown)

    def test_an_unambiguous_prefix_finds_its_trajectory(self, store: TrajectoryStore) -> None:
        for name in ("abcdef-1", "abcdef-2", "abcdeg", "ABCDEG-3", "abc_ef-4"):
            store.append(make_trajectory(name))
        assert store.get("abcdef-2").trajectory_id == "abcdef-2"
        assert store.get("ABCDEG").trajectory_id == "ABCDEG-3"
        assert store.get("abc_ef").trajectory_id == "abc_ef-4"
        with pytest.raises(UnknownTrajectory, match="abcdef-1, abcdef-2; give") as caught:
            store.get("abcdef")
        assert caught.value.members["candidates"] == ["abcdef-1", "abcdef-2"]

    def test_a_whole_id_wins_over_longer_ids_that_begin_so(self, store: TrajectoryStore) -> None:
        store.append(make_trajectory("abcdef-1"))
        store.append(make_trajectory("abcdef"))
        assert store.get("abcdef").trajectory_id == "abcdef"

    def test_pages_run_from_the_newest_append_to_the_oldest(self, store: TrajectoryStore) -> None:
        for number in range(5):
            store.append(make_trajectory(f"t{number}", started_at=-float(number)))
        first = store.list(limit=2)
        second = store.list(limit=2, cursor=first.next_cursor)
        third = store.list(limit=2, cursor=second.next_cursor)
        assert [item.trajectory_id for item in first.items] == ["t4", "t3"]
        assert [item.trajectory_id for item in second.items] == ["t2", "t1"]
        assert [item.trajectory_id for item in third.items] == ["t0"]
        assert third.next_cursor is None

    def test_a_full_last_page_has_no_next_cursor(self, store: TrajectoryStore) -> None:
        for number in range(4):
            store.append(make_trajectory(f"t{number}"))
        page = store.list(limit=2, cursor=store.list(limit=2).next_cursor)
        assert (len(page.items), page.next_cursor) == (2, None)

    def test_paging_sees_each_row_once_while_rows_are_inserted(
        self, store: TrajectoryStore
    ) -> None:
        before = [f"t{number}" for number in range(20)]
        for name in before:
            store.append(make_trajectory(name))
        seen: list[str] = []
        cursor: str | None = None
        for number in itertools.count():
            page = store.list(limit=3, cursor=cursor)
            seen += [item.trajectory_id for item in page.items]
            store.append(make_trajectory(f"later{number}"))
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == before[::-1]

    def test_a_summary_tells_what_the_trajectory_tells(self, store: TrajectoryStore) -> None:
        trajectory = make_trajectory(
            "one",
            num_steps=3,
            rewards={0: 0.25, 2: 0.5},
            stop_reason=StopReason.STEP_LIMIT,
            success=False,
            run_id="run-1",
            labels={"hops": 2},
            started_at=1.5,
            ended_at=2.5,
        )
        store.append(trajectory)
        (item,) = store.list().items
        assert (item.trajectory_id, item.run_id, item.seed) == ("one", "run-1", 7)
        assert (item.num_steps, item.return_, item.success) == (3, 0.75, False)
        assert (item.stop_reason, item.trainable) == (StopReason.STEP_LIMIT, True)
        assert (item.labels, item.started_at, item.ended_at) == ({"hops": 2}, 1.5, 2.5)

    def test_a_bad_cursor_or_limit_is_refused(self, store: TrajectoryStore) -> None:
        for number in range(3):
            store.append(make_trajectory(f"t{number}"))
        cursor = store.list(limit=1).next_cursor
        assert cursor is not None
        for bad in (
            "",
            "nonsense",
            "2",
            cursor + "0",
            cursor.upper() + "\n",
            "f" * 16 + cursor[-9:],
        ):
            with pytest.raises(InvalidInput, match="next_cursor of an earlier page"):
                store.list(cursor=bad)
        with pytest.raises(InvalidInput, match="belongs to another filter"):
            store.list(TrajectoryFilter(split="train"), cursor=cursor)
        for limit in (0, -1, 1001):
            with pytest.raises(InvalidInput, match=f"from 1 to 1000; got {limit}"):
                store.list(limit=limit)

    @pytest.mark.parametrize(
        ("filter_", "expected"),
        [
            (TrajectoryFilter(), "abcd"),
            (TrajectoryFilter(run_id="r1"), "ab"),
            (TrajectoryFilter(env_id="other/Env-v1"), "c"),
            (TrajectoryFilter(task_id="train/9"), "b"),
            (TrajectoryFilter(split="dev"), "d"),
            (TrajectoryFilter(policy="random"), "c"),
            (TrajectoryFilter(group_id="g2"), "d"),
            (TrajectoryFilter(stop_reason=StopReason.ENV_ERROR), "d"),
            (TrajectoryFilter(trainable=True), "abc"),
            (TrajectoryFilter(trainable=False), "d"),
            (TrajectoryFilter(success=True), "a"),
            (TrajectoryFilter(success=False), "b"),
            (TrajectoryFilter(min_return=0.5), "ab"),
            (TrajectoryFilter(max_return=0.5), "bcd"),
            (TrajectoryFilter(min_return=0.5, max_return=0.75, run_id="r1"), "b"),
            (TrajectoryFilter(run_id="' OR 1=1 --"), ""),
        ],
    )
    def test_a_filter_means_the_trajectories_that_satisfy_all_its_fields(
        self, store: TrajectoryStore, filter_: TrajectoryFilter, expected: str
    ) -> None:
        one, half = {0: 1.0}, {0: 0.5}
        failed = StopReason.ENV_ERROR
        store.append(make_trajectory("a", rewards=one, run_id="r1", success=True))
        store.append(
            make_trajectory("b", rewards=half, run_id="r1", success=False, task_id="train/9")
        )
        store.append(make_trajectory("c", env_id="other/Env-v1", policy="random"))
        store.append(make_trajectory("d", stop_reason=failed, split="dev", group_id="g2"))
        assert [item.trajectory_id for item in store.list(filter_).items] == list(expected)[::-1]
        assert [item.trajectory_id for item in store.iterate(filter_)] == list(expected)
        assert store.count(filter_) == len(expected)

    def test_a_filter_that_nothing_could_satisfy_is_refused(self, store: TrajectoryStore) -> None:
        with pytest.raises(InvalidInput, match="min_return must be a number; got nan"):
            store.iterate(TrajectoryFilter(min_return=float("nan")))
        with pytest.raises(InvalidInput, match="lone surrogate"):
            store.count(TrajectoryFilter(policy="\ud800"))

    def test_iterating_yields_all_in_order_of_appending_and_none_appended_meanwhile(
        self, store: TrajectoryStore
    ) -> None:
        names = [f"t{number}" for number in range(40)]
        for name in names:
            store.append(make_trajectory(name, num_steps=2))
        seen: list[str] = []
        for trajectory in store.iterate():
            seen.append(trajectory.trajectory_id)
            store.append(make_trajectory(f"later-{trajectory.trajectory_id}"))
        assert seen == names
        assert store.count() == 80

    def test_a_summary_weighs_each_trajectory_the_same_and_leaves_failures_out_of_means(
        self, store: TrajectoryStore
    ) -> None:
        store.append(make_trajectory("a", num_steps=1, rewards={0: 1.0}, success=True))
        store.append(
            make_trajectory("b", num_steps=9, stop_reason=StopReason.STEP_LIMIT, success=False)
        )
        store.append(
            make_trajectory("c", num_steps=2, rewards={0: 7.0}, stop_reason=StopReason.SERVER_ERROR)
        )
        assert store.summarize() == (
            GroupSummary(
                group={"env_id": "steppo/KeyDoor-v0"},
                episodes=3,
                steps=12,
                trainable=2,
                successes=1,
                success_rate=0.5,
                mean_return=0.5,
                mean_steps=5.0,
                terminated=1,
                truncated=1,
                failed=1,
            ),
        )

    def test_rates_of_a_group_without_trainable_trajectories_are_none(
        self, store: TrajectoryStore
    ) -> None:
        store.append(make_trajectory("a", num_steps=0, stop_reason=StopReason.CANCELLED))
        (group,) = store.summarize(by=())
        assert (group.episodes, group.failed, group.trainable) == (1, 1, 0)
        assert (group.success_rate, group.mean_return, group.mean_steps) == (None, None, None)

    def test_groups_are_ordered_and_no_value_comes_first(self, store: TrajectoryStore) -> None:
        for number, run_id in enumerate(("b", "", None, "a")):
            store.append(make_trajectory(f"t{number}", run_id=run_id))
        groups = [summary.group["run_id"] for summary in store.summarize(by=("run_id",))]
        assert groups == [None, "", "a", "b"]

    def test_an_empty_store_has_no_groups(self, store: TrajectoryStore) -> None:
        assert store.summarize() == ()
        assert store.summarize(by=()) == ()

    @pytest.mark.parametrize("by", [("seed",), ("env_id", "env_id"), ("trajectory_id; --",)])
    def test_grouping_by_something_else_is_refused(
        self, store: TrajectoryStore, by: tuple[str, ...]
    ) -> None:
        with pytest.raises(InvalidInput, match="by must name different columns of env_id"):
            store.summarize(by=by)

    @pytest.mark.parametrize(
        "by", [(), ("env_id",), ("run_id", "split"), ("stop_reason", "policy", "task_id")]
    )
    def test_summaries_equal_a_computation_over_the_trajectories(
        self, store: TrajectoryStore, by: tuple[str, ...]
    ) -> None:
        trajectories = _various(60)
        for trajectory in trajectories:
            store.append(trajectory)
        groups: dict[tuple[str | None, ...], list[Trajectory]] = {}
        for trajectory in trajectories:
            key = tuple(getattr(trajectory, name) for name in by)
            groups.setdefault(key, []).append(trajectory)
        found = {tuple(it.group[name] for name in by): it for it in store.summarize(by=by)}
        assert found.keys() == groups.keys()
        for key, members in groups.items():
            _check_summary(found[key], members)

    def test_starting_a_run_again_changes_nothing(self, store: TrajectoryStore) -> None:
        run = make_run()
        assert [store.start_run(run), store.start_run(run)] == [True, False]
        store.finish_run("run-1", "completed", 1_700_000_100.5)
        assert store.start_run(run) is False
        finished = replace(run, outcome="completed", ended_at=1_700_000_100.5)
        assert store.get_run("run-1") == finished
        assert store.start_run(finished) is False

    def test_a_different_run_under_a_known_id_is_refused(self, store: TrajectoryStore) -> None:
        store.start_run(make_run())
        with pytest.raises(RecordConflict, match="another config, seed;"):
            store.start_run(make_run(seed=8, config={}))

    def test_a_run_ends_once(self, store: TrajectoryStore) -> None:
        store.start_run(make_run())
        store.finish_run("run-1", "completed", 5.0)
        store.finish_run("run-1", "completed", 5.0)
        with pytest.raises(RecordConflict, match="another outcome"):
            store.finish_run("run-1", "failed", 5.0)
        assert store.get_run("run-1").outcome == "completed"

    def test_runs_come_in_the_order_they_were_started(self, store: TrajectoryStore) -> None:
        for name in ("z", "a", "m"):
            store.start_run(make_run(name))
        assert [run.run_id for run in store.runs()] == ["z", "a", "m"]

    def test_an_unknown_run_is_not_found(self, store: TrajectoryStore) -> None:
        with pytest.raises(NotFound, match="no run 'run-9'"):
            store.get_run("run-9")
        with pytest.raises(NotFound, match="no run 'run-9'"):
            store.finish_run("run-9", "completed", 1.0)

    def test_a_closed_store_says_so_and_closes_again(self, url: str) -> None:
        store = open_store(url)
        store.append(make_trajectory("one"))
        left = store.iterate()
        store.close()
        store.close()
        for call in (store.count, store.list, lambda: store.append(make_trajectory("two"))):
            with pytest.raises(StoreError, match="is closed; open it again"):
                call()
        with pytest.raises(StoreError, match="is closed"):
            next(left)

    def test_many_threads_share_one_store(self, store: TrajectoryStore) -> None:
        def work(thread: int) -> None:
            for number in range(10):
                store.append(make_trajectory(f"{thread}-{number}", num_steps=2, num_tokens=20))
                store.append(make_trajectory(f"shared-{number}", num_steps=2))
                assert len(store.get(f"{thread}-{number}").steps) == 2
                store.list(limit=5)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert store.count() == 90
        assert sum(len(trajectory.steps) for trajectory in store.iterate()) == 180

    def test_processes_that_begin_and_write_one_store_together_lose_nothing(self, url: str) -> None:
        writers = [start_writer(url, f"w{index}", NUM_EACH) for index in range(NUM_WRITERS)]
        for writer in writers:
            _, stderr = writer.communicate(timeout=START_LIMIT_S)
            assert (writer.returncode, stderr) == (0, "")
        expected = {f"w{index}-{n}" for index in range(NUM_WRITERS) for n in range(NUM_EACH)}
        with open_store(url, create=False) as store:
            found = [trajectory.trajectory_id for trajectory in store.iterate()]
        assert len(found) == len(expected)
        assert set(found) == expected
        self.check_integrity(url)

    def test_what_was_acknowledged_survives_a_kill(self, url: str) -> None:
        moments = random.Random(20)
        acknowledged: list[str] = []
        for number in range(NUM_KILLS):
            acknowledged += _kill_while_writing(url, f"k{number}", moments.uniform(0.0, 0.3))
            self.check_integrity(url)
            with open_store(url, create=False) as store:
                for trajectory_id in acknowledged:
                    expected = make_trajectory(trajectory_id, num_steps=3, num_tokens=300)
                    assert store.get(trajectory_id) == expected
                # At most the one in flight per kill is there without an acknowledgement.
                assert len(acknowledged) <= store.count() <= len(acknowledged) + number + 1
        assert len(acknowledged) >= NUM_KILLS


def _kill_while_writing(url: str, name: str, after_s: float) -> list[str]:
    """Kill a writer so many seconds after its first acknowledgement; return all of them."""
    writer = start_writer(url, name, 1_000_000)
    watchdog = threading.Timer(START_LIMIT_S, writer.kill)
    watchdog.start()
    assert writer.stdout is not None
    first = writer.stdout.readline()
    time.sleep(after_s)
    writer.kill()
    stdout, stderr = writer.communicate(timeout=START_LIMIT_S)
    watchdog.cancel()
    assert (writer.returncode, stderr) == (-signal.SIGKILL, "")
    # A last line without its end was never wholly acknowledged.
    return [line.rstrip("\n") for line in (first + stdout).splitlines(True) if line[-1] == "\n"]


def _various(count: int) -> list[Trajectory]:
    drawn = random.Random(5)
    return [
        make_trajectory(
            f"t{number}",
            num_steps=drawn.randint(1, 6),
            rewards={0: drawn.uniform(-1, 1)},
            stop_reason=drawn.choice(list(StopReason)),
            success=drawn.choice([True, False, None]),
            env_id=drawn.choice(["a/A-v0", "b/B-v1"]),
            task_id=drawn.choice(["0", "1", "2"]),
            split=drawn.choice(["train", "dev"]),
            policy=drawn.choice(["expert", "random"]),
            run_id=drawn.choice(["run-1", None]),
        )
        for number in range(count)
    ]


def _check_summary(found: GroupSummary, members: list[Trajectory]) -> None:
    counted = [member for member in members if member.trainable]
    assert found.episodes == len(members)
    assert found.steps == sum(len(member.steps) for member in members)
    assert found.trainable == len(counted)
    assert found.successes == sum(member.success is True for member in counted)
    assert found.terminated == sum(member.terminated for member in members)
    assert found.truncated == sum(member.truncated for member in members)
    assert found.failed == len(members) - len(counted)
    if counted:
        assert found.success_rate == fmean(member.success is True for member in counted)
        assert found.mean_return == pytest.approx(fmean(member.return_ for member in counted))
        assert found.mean_steps == pytest.approx(fmean(len(member.steps) for member in counted))
    else:
        assert (found.success_rate, found.mean_return, found.mean_steps) == (None, None, None)
