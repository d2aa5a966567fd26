import os
import signal
import subprocess
from contextlib import suppress
from typing import Any

import anyio
import pytest

from steppo_client import HttpEnvClient
from steppo_env.registry import make

KEYDOOR = "steppo/KeyDoor-v0"


def expert_moves(size: int = 2) -> list[str]:
    env = make(KEYDOOR, size=size)
    env.start("dev/0", 0)
    moves: list[str] = []
    while not env.has_ended:
        action = env.expert()
        assert action is not None
        moves.append(action.commands[0])
        env.advance(action)
    return moves


def test_commands_are_given_by_number_by_name_or_as_a_whole_response(steppo: Any) -> None:
    moves = expert_moves(3)
    names = ["go north", "go south", "go west", "go east"]
    lines = [
        [str(names.index(move) + 1), move, f"<act>{move}</act>"][index % 3]
        for index, move in enumerate(moves)
    ]
    assert len(lines) >= 3
    done = steppo("play", KEYDOOR, "--set", "size=3", stdin="\n".join(lines))

    assert done.code == 0
    assert f"terminated after {len(moves)} steps: success True, return 1" in done.err
    assert "4  go east" in done.err


def test_the_expert_can_be_asked_without_taking_a_step(steppo: Any) -> None:
    moves = expert_moves()
    done = steppo("play", KEYDOOR, "--set", "size=2", stdin=":expert\n:quit\nnot read\n")

    assert done.code == 0
    assert f"<act> {moves[0]} </act> (distance {len(moves)})" in done.err
    assert "left after 0 steps, return 0" in done.err


@pytest.mark.parametrize("lines", ["", "\n", "1\n\n"])
def test_the_end_of_the_input_leaves(steppo: Any, lines: str) -> None:
    done = steppo("play", KEYDOOR, stdin=lines)

    assert done.code == 0
    assert f"left after {lines.count('1')} steps" in done.err


@pytest.mark.parametrize("number", ["0", "5", "-1", "²", "9" * 5000])
def test_a_number_that_names_no_command_goes_to_the_environment(steppo: Any, number: str) -> None:
    done = steppo("play", KEYDOOR, "--set", "step_limit=1", stdin=number)

    assert done.code == 0
    assert "truncated after 1 steps: success False" in done.err
    assert "commands are go north" in done.err


def test_it_plays_on_a_server_and_leaves_no_session(steppo: Any, server_url: str) -> None:
    async def num_sessions() -> int:
        async with HttpEnvClient(server_url) as client:
            return (await client.health()).num_sessions

    done = steppo("play", KEYDOOR, "--server", server_url, stdin="1\n:quit\n")
    assert "left after 1 steps" in done.err
    assert anyio.run(num_sessions) == 0


def test_bad_input_is_an_error_of_one_line(steppo: Any) -> None:
    assert "Did you mean steppo/KeyDoor-v0?" in steppo("play", "steppo/KeyDor-v0").error
    assert "tasks 0 to 511" in steppo("play", KEYDOOR, "--index", "512").error
    assert "no split 'x'" in steppo("play", KEYDOOR, "--split", "x").error
    assert "seed" in steppo("play", KEYDOOR, "--seed", 2**63).error


def test_ctrl_c_ends_it_at_once_while_it_waits_for_a_line(interruptible: list[str]) -> None:
    process = subprocess.Popen(
        [*interruptible, "play", KEYDOOR],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "80"},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"> "
        try:
            assert interrupt(process) == 130
        finally:
            process.kill()


def interrupt(process: "subprocess.Popen[bytes]") -> int:
    """Press Ctrl-C until it ends: one that comes just before the read begins is seen after it."""
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(2)
    raise AssertionError("it did not end")
