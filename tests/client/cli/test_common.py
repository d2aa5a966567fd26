import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from steppo_client import HttpEnvClient, LocalEnvClient, StreamEnvClient
from steppo_client.cli.common import (
    make_folder,
    open_client,
    optional_store,
    print_json,
    read_settings,
    run_async,
)
from steppo_env.errors import InvalidInput, MissingData, PolicyError
from steppo_server.auth import DIGEST_PREFIX, digest_of, new_key

VALUE = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())


@given(st.dictionaries(st.text(min_size=1).filter(lambda key: "=" not in key), VALUE))
def test_settings_written_as_json_are_read_back(values: dict[str, str]) -> None:
    assert read_settings([f"{key}={json.dumps(value)}" for key, value in values.items()]) == values


@pytest.mark.parametrize("text", ["a b", "../x", "", "NaN", "Infinity", "-Infinity", "{", "x=y"])
def test_a_setting_that_is_no_json_is_text(text: str) -> None:
    assert read_settings([f"key={text}"]) == {"key": text}


@pytest.mark.parametrize("pair", ["", "key", "=value"])
def test_a_setting_without_key_or_equals_sign_is_refused(pair: str) -> None:
    with pytest.raises(InvalidInput, match="--set takes key=value, not"):
        read_settings([pair])


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="--set size is given twice"):
        read_settings(["size=1", "size=2"])


def test_a_server_or_a_file_of_variants_or_neither(tmp_path: Path) -> None:
    config = tmp_path / "variants.toml"
    config.write_text('[environments.small]\nenv_id = "steppo/KeyDoor-v0"\noptions = {size = 3}\n')

    assert isinstance(open_client(None, None), LocalEnvClient)
    assert isinstance(open_client(None, config), LocalEnvClient)
    assert isinstance(open_client("http://127.0.0.1:1", None), HttpEnvClient)
    assert isinstance(open_client("ws://127.0.0.1:1", None), StreamEnvClient)
    with pytest.raises(InvalidInput, match="--config names variants"):
        open_client("http://127.0.0.1:1", config)
    with pytest.raises(MissingData, match="cannot read"):
        open_client(None, tmp_path / "nope.toml")
    with pytest.raises(InvalidInput, match="not 'localhost'"):
        open_client("localhost", None)


def test_the_key_of_a_server_is_taken_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str], tmp_path: Path, steppo: Any
) -> None:
    key = new_key()
    config = tmp_path / "serve.toml"
    digest = f"{DIGEST_PREFIX}{digest_of(key).hex()}"
    config.write_text(f'[keys.me]\ndigest = "{digest}"\nscopes = ["act", "expert"]\n')
    url = serve("--config", str(config))
    command = [
        "rollout",
        "steppo/KeyDoor-v0",
        "--policy",
        "expert",
        "--tasks",
        "1",
        "--server",
        url,
    ]
    monkeypatch.delenv("STEPPO_KEY", raising=False)
    refused = steppo(*command, "--store", f"sqlite:///{tmp_path / 'none.db'}")
    assert refused.code == 2
    assert "key" in refused.err
    monkeypatch.setenv("STEPPO_KEY", key)
    assert steppo(*command, "--store", f"sqlite:///{tmp_path / 'run.db'}").code == 0


def test_no_store_is_opened_where_none_is_asked_for(tmp_path: Path) -> None:
    with optional_store(None) as nothing:
        assert nothing is None
    with optional_store(f"sqlite:///{tmp_path / 'run.db'}") as store:
        assert store is not None
        assert store.count() == 0


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="--out"):
        make_folder(tmp_path / "file")
    with pytest.raises(InvalidInput, match="cannot make the folder"):
        make_folder(tmp_path / "file" / "below")


def test_json_is_printed_whole_and_readable(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": "Zoë", "values": [1, None]})

    out = capsys.readouterr().out
    assert "Zoë" in out
    assert json.loads(out) == {"name": "Zoë", "values": [1, None]}


def test_async_work_gives_its_result_its_error_or_an_interruption() -> None:
    async def five() -> int:
        return 5

    async def fails() -> None:
        raise PolicyError("mine")

    async def interrupted() -> None:
        raise KeyboardInterrupt

    assert run_async(five) == 5
    with pytest.raises(PolicyError, match="mine"):
        run_async(fails)
    with pytest.raises(typer.Exit) as caught:
        run_async(interrupted)
    assert caught.value.exit_code == 130
