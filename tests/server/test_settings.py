import re
from pathlib import Path

import pytest

from steppo_env.errors import InvalidInput, MissingData
from steppo_server.settings import ServerSettings, read_settings


def toml(folder: Path, text: str) -> Path:
    path = folder / "serve.toml"
    path.write_text(text)
    return path


def test_flags_override_variables_override_the_file_overrides_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toml(tmp_path, "[server]\nport = 1\nmax_sessions = 1\nstep_deadline_s = 1.0\n")
    monkeypatch.setenv("STEPPO_SERVER_PORT", "2")
    monkeypatch.setenv("STEPPO_SERVER_MAX_SESSIONS", "2")
    settings = read_settings(path, {"port": 3, "host": None})
    assert settings.port == 3
    assert settings.max_sessions == 2
    assert settings.step_deadline_s == 1.0
    assert settings.host == "127.0.0.1"


def test_a_variable_that_says_the_default_still_overrides_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPPO_SERVER_PORT", "8765")
    assert read_settings(toml(tmp_path, "[server]\nport = 1\n"), {}).port == 8765


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_loopback_hosts_need_no_leave(host: str) -> None:
    assert read_settings(None, {"host": host}).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.1", "server.example"])
def test_a_host_that_others_may_reach_needs_leave(host: str) -> None:
    with pytest.raises(InvalidInput, match="--allow-remote"):
        read_settings(None, {"host": host})
    assert read_settings(None, {"host": host, "allow_remote": True}).host == host


def test_with_keys_others_may_reach_the_host() -> None:
    assert read_settings(None, {"host": "0.0.0.0"}, has_keys=True).host == "0.0.0.0"


def test_the_documented_settings_are_the_settings_each_once() -> None:
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text("utf-8")
    table = page[page.index("## Settings") : page.index("## The API")]
    cells = re.findall(r"^\| (`[^|]*`) \|", table, re.MULTILINE)
    documented = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(documented) == sorted(ServerSettings.model_fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 1\n", r"serve.toml: \[server\]: prot: Extra inputs"),
        ("[server]\nport = 70000\n", r"serve.toml: \[server\]: port: .*65535"),
        ("[server]\nmax_sessions = 0\n", "max_sessions"),
        ("[serve]\nport = 1\n", "not serve"),
        ("server = 1\n", "server is a table"),
        ("[server\n", "not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_settings(toml(tmp_path, text), {})


def test_processes_are_named_by_environment_in_the_file_and_in_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toml(tmp_path, '[server.processes]\n"steppo/TextWorld-v0" = 4\n')
    assert read_settings(path, {}).processes == {"steppo/TextWorld-v0": 4}
    monkeypatch.setenv("STEPPO_SERVER_PROCESSES", '{"steppo/KeyDoor-v0": 0}')
    assert read_settings(path, {}).processes == {"steppo/KeyDoor-v0": 0}
    with pytest.raises(InvalidInput, match="less than or equal to 256"):
        read_settings(None, {"processes": {"steppo/KeyDoor-v0": 257}})


def test_a_mistake_in_the_file_is_told_also_when_a_flag_would_hide_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="port"):
        read_settings(toml(tmp_path, "[server]\nport = 70000\n"), {"port": 1})


def test_a_mistake_in_a_variable_or_a_flag_is_told_with_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InvalidInput, match="the flags: port"):
        read_settings(None, {"port": -1})
    monkeypatch.setenv("STEPPO_SERVER_PORT", "tcp://10.0.0.1:8765")
    with pytest.raises(InvalidInput, match=r"STEPPO_SERVER_\*: port"):
        read_settings(None, {})


def test_a_file_that_cannot_be_read_is_missing_data(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(MissingData, match="cannot read"):
            read_settings(path, {})


def test_a_file_that_is_no_text_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="not TOML"):
        read_settings(path, {})


def test_stopping_takes_less_than_the_ten_seconds_that_container_engines_wait() -> None:
    assert ServerSettings().shutdown_s <= 7  # two more are for closing environments
