import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from steppo_server.auth import digest_of, new_key
from steppo_server.serve import main

BIN = Path(sys.executable).parent
HUNG = """
import threading
from steppo_env import registry
from steppo_keydoor import KeyDoor
KeyDoor.is_blocking = True
KeyDoor.act = lambda self, action: threading.Event().wait()
import sys
from steppo_server.serve import main
sys.argv = ["steppo-server", "--port", "0"]
main()
"""


def children(pid: int) -> list[int]:
    """Return the processes that a server started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


@contextmanager
def running(*command: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server, read its address from its first line, and leave none behind."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("serving http://"):
            process.kill()
            raise AssertionError(f"{line!r}: {process.communicate()[1]}")
        yield process, line.removeprefix("serving ").strip()
    finally:
        process.kill()
        process.communicate()


def stopped(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, float, str]:
    """Send a signal; return the exit code, the seconds it took, and what stderr had."""
    begun = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert out == ""  # the address is the one line on stdout
    return process.returncode, time.monotonic() - begun, err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run the command in process; return the one line that says why it does not serve."""
    before = sys.argv
    sys.argv = ["steppo-server", *arguments]
    try:
        with pytest.raises(SystemExit) as caught:
            main()
    finally:
        sys.argv = before
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ([str(BIN / "steppo-server")], signal.SIGTERM),
        ([str(BIN / "steppo"), "serve"], signal.SIGINT),
    ],
)
def test_it_says_where_it_serves_and_a_signal_ends_it_with_0_also_with_a_connection_open(
    command: list[str], number: signal.Signals
) -> None:
    with running(*command, "--port", "0") as (process, url), httpx.Client(base_url=url) as client:
        assert httpx.URL(url).host == "127.0.0.1"
        assert client.get("/healthz").json()["status"] == "ok"  # and its connection stays open
        body = {"env_id": "steppo/KeyDoor-v0", "split": "dev", "index": 0}
        assert client.post("/v1/sessions", json=body).status_code == 201
        code, seconds, err = stopped(process, number)
    assert code == 0, err
    assert seconds < 10
    assert "Traceback" not in err


def test_a_signal_right_after_the_first_line_ends_it_with_0() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with running(str(BIN / "steppo-server"), "--port", "0") as (process, _):
            code, _, err = stopped(process, number)
        assert code == 0, err
        assert "Traceback" not in err


def test_an_environment_that_hangs_does_not_keep_the_process_from_ending() -> None:
    short = {"STEPPO_SERVER_SHUTDOWN_S": "1", "STEPPO_SERVER_STEP_DEADLINE_S": "0.1"}
    with (
        running(sys.executable, "-c", HUNG, **short) as (process, url),
        httpx.Client(base_url=url) as client,
    ):
        body = {"env_id": "steppo/KeyDoor-v0", "split": "dev", "index": 0, "session_id": "s"}
        client.post("/v1/sessions", json=body)
        late = client.post("/v1/sessions/s/steps", json={"step_index": 0, "action": "x"})
        assert late.status_code == 504
        code, seconds, err = stopped(process, signal.SIGTERM)
    assert code == 0, err
    assert seconds < 10


def test_a_request_in_the_middle_of_a_hung_step_does_not_keep_the_process_from_ending() -> None:
    short = {"STEPPO_SERVER_SHUTDOWN_S": "1"}
    with running(sys.executable, "-c", HUNG, **short) as (process, url):
        body = {"env_id": "steppo/KeyDoor-v0", "split": "dev", "index": 0, "session_id": "s"}
        httpx.post(f"{url}/v1/sessions", json=body)
        with socket.create_connection((httpx.URL(url).host, httpx.URL(url).port or 0)) as raw:
            action = b'{"step_index":0,"action":"x"}'
            raw.sendall(
                b"POST /v1/sessions/s/steps HTTP/1.1\r\nHost: localhost\r\n"
                + b"Content-Length: %d\r\n\r\n" % len(action)
                + action
            )
            # Answered behind it on the same event loop: the step has begun by now.
            assert httpx.get(f"{url}/healthz").status_code == 200
            code, seconds, err = stopped(process, signal.SIGTERM)
    assert code == 0, err
    assert seconds < 10


def test_a_server_that_drains_says_so_goes_on_with_its_sessions_and_then_stops() -> None:
    drain = {"STEPPO_SERVER_DRAIN_S": "60", "STEPPO_SERVER_JOURNAL": "sqlite://"}
    with (
        running(str(BIN / "steppo-server"), "--port", "0", **drain) as (process, url),
        httpx.Client(base_url=url) as client,
    ):
        body = {"env_id": "steppo/KeyDoor-v0", "split": "dev", "index": 0, "session_id": "s"}
        assert client.post("/v1/sessions", json=body).status_code == 201
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while (ready := client.get("/readyz")).is_success:
            assert time.monotonic() < deadline
        assert ready.json()["reason"] == "draining"
        assert httpx.get(f"{url}/healthz").status_code == 200  # connections are accepted
        step = {"step_index": 0, "action": "x"}
        assert client.post("/v1/sessions/s/steps", json=step).status_code == 200
        assert client.post("/v1/sessions", json={**body, "session_id": "t"}).status_code == 503
        code, seconds, err = stopped(process, signal.SIGTERM)  # a second signal ends the wait
    assert code == 0, err
    assert seconds < 10


def test_a_socket_that_is_open_is_closed_and_does_not_keep_the_process_from_ending() -> None:
    command = [str(BIN / "steppo-server"), "--port", "0", "--journal", "sqlite://"]
    with (
        running(*command) as (process, url),
        connect(f"{url.replace('http', 'ws')}/v1/stream") as opened,
    ):
        opened.send('{"request_id": "1", "op": "environments"}')
        assert '"status":200' in str(opened.recv(timeout=10))
        code, seconds, err = stopped(process, signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            opened.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012  # service restart: come back
    assert code == 0, err
    assert seconds < 10
    assert "Traceback" not in err


def test_with_keys_in_the_file_others_may_reach_it_and_need_one(tmp_path: Path) -> None:
    key, path = new_key(), tmp_path / "serve.toml"
    digest = f"sha256:{digest_of(key).hex()}"
    path.write_text(f'[keys.alice]\ndigest = "{digest}"\nscopes = ["act"]\n')
    command = [str(BIN / "steppo-server"), "--config", str(path), "--port", "0"]
    with running(*command, "--host", "0.0.0.0", "--journal", "sqlite://") as (_, url):
        url = url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}/v1/envs").status_code == 401
        allowed = {"Authorization": f"Bearer {key}", "Host": "any.example"}
        assert httpx.get(f"{url}/v1/envs", headers=allowed).status_code == 200


def test_without_keys_it_answers_to_no_name_that_was_made_to_resolve_here() -> None:
    with running(str(BIN / "steppo-server"), "--port", "0") as (_, url):
        assert httpx.get(f"{url}/v1/envs").status_code == 200
        rebound = httpx.get(f"{url}/v1/envs", headers={"Host": "evil.example"})
        assert rebound.status_code == 403


def test_structured_lines_are_json_and_all_on_stderr_those_of_workers_too(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text('[server]\naccess_log = true\n[server.processes]\n"steppo/KeyDoor-v0" = 1\n')
    command = [str(BIN / "steppo-server"), "--config", str(path), "--port", "0"]
    command += ["--log-format", "json", "--journal", f"sqlite:///{tmp_path / 'own.db'}"]
    with running(*command) as (process, url):
        body = {"env_id": "steppo/KeyDoor-v0", "task_id": "dev/no-such", "session_id": "s"}
        headers = {"X-Request-Id": "abc-1"}
        assert httpx.post(f"{url}/v1/sessions", json=body, headers=headers).status_code == 404
        (worker,) = children(process.pid)
        os.kill(worker, signal.SIGKILL)
        body |= {"task_id": "dev/0"}
        assert httpx.post(f"{url}/v1/sessions", json=body, timeout=30).status_code == 201
        code, _, err = stopped(process, signal.SIGTERM)
    lines = [json.loads(line) for line in err.splitlines()]
    assert code == 0
    assert any(line.get("request_id") == "abc-1" and line["status"] == 404 for line in lines)
    assert any(f"process {worker}" in line["message"] for line in lines)
    assert (tmp_path / "own.db").exists()


def test_the_file_is_read_and_flags_override_it(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(
        "[server]\nport = 1\nmax_sessions = 5\n"
        '[environments.tiny]\nenv_id = "steppo/KeyDoor-v0"\noptions = { size = 3 }\n'
    )
    command = [str(BIN / "steppo-server"), "--config", str(path), "--port", "0"]
    with running(*command, STEPPO_SERVER_MAX_SESSIONS="7") as (_, url):
        assert httpx.get(f"{url}/healthz").json()["max_sessions"] == 7
        assert httpx.get(f"{url}/v1/envs/tiny").status_code == 200


def test_a_port_in_use_is_told_as_a_process_with_exit_code_2() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [str(BIN / "steppo-server"), "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another --host "
        "or --port, --port 0 takes a free one\n"
    )


def test_a_host_that_is_not_known_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for host in ("no-such-host.invalid", "x" * 300):
        err = refused(capsys, "--host", host, "--allow-remote", "--port", "0")
        assert "no address or name that this machine knows" in err


def test_an_address_of_another_machine_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, "--host", "192.0.2.1", "--allow-remote", "--port", "0")
    assert "cannot listen on 192.0.2.1:0" in err


def test_a_host_that_others_may_reach_needs_leave(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--allow-remote" in refused(capsys, "--host", "0.0.0.0", "--port", "0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1\n", "prot"),
        ("[sever]\nport = 1\n", "sever"),
        ("[environments.x]\nenv_id = 'steppo/Nope-v0'\n", "steppo/Nope-v0"),
        ("[environments.x]\nenv_id = 'steppo/KeyDoor-v0'\noptions = { size = 99 }\n", "size"),
        (
            "[environments.x]\nenv_id = 'steppo/MultihopQA-v0'\noptions = { data = 'no/pack' }\n",
            "no/pack",
        ),
    ],
)
def test_a_mistake_in_the_file_is_told_before_anything_is_served(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(text)
    err = refused(capsys, "--config", str(path), "--port", "0")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_file_that_is_not_there_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "none.toml" in refused(capsys, "--config", str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "x"], "--port"),
        (["--prot", "1"], "--prot"),
        (["--log-level", "loud"], "loud"),
        (["extra"], "extra"),
    ],
)
def test_a_wrong_flag_is_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert named in refused(capsys, *arguments)
