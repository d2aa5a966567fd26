import json
import sys
import tomllib
from pathlib import Path

import pytest

from steppo_client.cli.app import main
from steppo_server.auth import Keyring, KeyScope


def keygen(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["steppo", "keygen", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code in (0, None)


def test_the_table_on_stdout_lets_in_the_key_on_stderr_and_nothing_holds_the_key_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "serve.toml"
    keys: dict[str, str] = {}
    for name, scopes in (("alice", []), ("b.o-b", ["--scope", "expert", "--scope", "act"])):
        keygen(monkeypatch, name, *scopes)
        out, err = capsys.readouterr()
        keys[name] = err.split()[-1]
        assert keys[name] not in out
        with file.open("a") as end:
            end.write(out)
    tomllib.loads(file.read_text())
    ring = Keyring.from_toml(file)
    assert ring.caller(keys["alice"]).scopes == {KeyScope.ACT}
    assert ring.caller(keys["b.o-b"]).owner == "b.o-b"
    assert ring.caller(keys["b.o-b"]).scopes == {KeyScope.ACT, KeyScope.EXPERT}
    assert keys["alice"] != keys["b.o-b"]


def test_as_json_everything_is_one_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keygen(monkeypatch, "alice", "--scope", "admin", "--scope", "admin", "--json")
    out, err = capsys.readouterr()
    made = json.loads(out)
    assert err == ""
    assert made["name"] == "alice"
    assert made["scopes"] == ["admin"]
    assert made["key"].startswith("steppo_")
    assert made["digest"].startswith("sha256:")


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, 'a"b', "a]\n[server"])
def test_a_name_that_no_table_can_have_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["steppo", "keygen", name])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "1 to 64 letters" in err
