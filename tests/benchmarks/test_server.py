"""Each way of the load takes its steps, and the benchmark ends as promised. Speed is not asserted."""

import asyncio
import json
from pathlib import Path

import pytest

from benchmarks import server as benchmark
from benchmarks.server_load import WARM_UP_STEPS, Connection, Load, run
from steppo_env.registry import make

SESSIONS, STEPS = 3, 2


def test_every_ratio_has_a_limit_and_every_case_what_it_is_measured_against() -> None:
    ratios = {
        f"{way}_{num_sessions}"
        for num_sessions, ways in benchmark.CASES.items()
        for way in ways
        if way not in ("echo", "alone")
    }
    assert ratios == benchmark.LIMITS.keys() - {"multihop_mb"}
    assert all({"echo", "alone"} < set(ways) for ways in benchmark.CASES.values())


def test_the_load_goes_on_for_as_long_as_it_says() -> None:
    load = Load("alone", "", 0, 1, 1, "s")
    env = make(load.env_id, **load.options)
    env.start(env.tasks.at("dev", 0), 0)
    num_steps = benchmark.STEPS // min(benchmark.CASES) + WARM_UP_STEPS
    for at in range(num_steps):
        env.advance(load.action(at))
    assert not env.has_ended
    env.close()


def test_a_reply_in_pieces_is_put_together_and_an_error_ends_the_load() -> None:
    async def reply(*pieces: bytes) -> bytes:
        connection = Connection()
        connection._reply = asyncio.get_running_loop().create_future()
        for piece in pieces:
            connection.data_received(piece)
        return await connection._reply

    head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"
    assert asyncio.run(reply(head, b"\r\nab", b"cd")) == b"abcd"
    with pytest.raises(SystemExit, match="404"):
        asyncio.run(reply(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}"))


def test_every_way_takes_its_steps(tmp_path: Path) -> None:
    arguments = (*benchmark.SERVER, *benchmark.journal(tmp_path))
    with benchmark.serving(*benchmark.ECHO) as echo, benchmark.serving(*arguments) as server:
        for way in benchmark.CASES[256]:
            asked = echo if way == "echo" else server
            times = run(Load(way, asked.url, asked.pid, SESSIONS, STEPS, way))
            assert times["own_s"] > 0
            assert way == "alone" or {"server_s", "own_s", "wall_s"} == times.keys()
        assert benchmark.memory_mb(server.pid) > 10


def test_a_step_that_is_refused_ends_the_load(tmp_path: Path) -> None:
    arguments = (*benchmark.SERVER, *benchmark.journal(tmp_path))
    with benchmark.serving(*arguments) as server, pytest.raises(SystemExit, match="batch failed"):
        run(Load("batch", server.url, server.pid, 1, STEPS, "s", options={"step_limit": 1}))


def test_a_quick_run_ends_with_a_line_of_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "QUICK_STEPS", 8)
    monkeypatch.setattr(benchmark, "QUICK_REPEATS", 1)
    monkeypatch.setattr(benchmark, "CASES", {8: ("echo", "alone", "single", "batch")})
    monkeypatch.setattr(benchmark, "LIMITS", {"single_8": 0.8, "batch_8": 0.1, "multihop_mb": 300})
    assert benchmark.main(["--quick", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["limits"] == {"single_8": 0.8, "batch_8": 0.1}
    assert found["figures"].keys() == found["limits"].keys()
    assert found["targets"] == {}
