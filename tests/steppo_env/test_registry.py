"""Plugins by entry point, and named variants from a file."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from steppo_env import Catalogue, make, register_with_gymnasium, registered_ids
from steppo_env.catalogue import EnvSpec
from steppo_env.errors import (
    EnvError,
    InvalidInput,
    InvalidOptions,
    MissingData,
    MissingDependency,
    SteppoError,
    UnknownEnvironment,
)
from steppo_env.registry import env_class, plugin_version
from steppo_keydoor import KeyDoor

Install = Callable[..., None]
DATA = EnvSpec("stub/WithData-v0", "stub/WithData-v0")


@pytest.fixture
def with_data(install_plugin: Install) -> None:
    """Install an environment with an option that names a path."""
    install_plugin({"stub/WithData-v0": "stub_envs:WithData"})


def write(folder: Path, text: str) -> Path:
    path = folder / "serve.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_plugins_version_is_that_of_the_distribution_that_registers_it(
    install_plugin: Install,
) -> None:
    install_plugin({"stub/Good-v0": "stub_envs:Good"})
    assert plugin_version("stub/Good-v0") == "1.0"
    assert plugin_version("steppo/KeyDoor-v0") == version("steppo-env")
    with pytest.raises(UnknownEnvironment, match="stub/Bad-v0"):
        plugin_version("stub/Bad-v0")


def test_listing_loads_no_plugin() -> None:
    script = """
import json, sys
import gymnasium, steppo_env
from steppo_env import Catalogue, registered_ids
ids = [registered_ids(), Catalogue().names, [i for i in gymnasium.registry if "steppo/" in i]]
plugins = ("steppo_", "textworld", "jericho", "bm25s", "torch", "fastapi", "httpx")
loaded = [name for name in sys.modules if name.startswith(plugins)]
print(json.dumps([ids, loaded]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True
    )
    ids, loaded = json.loads(done.stdout)
    assert ids[0] == ids[1] == sorted(ids[2])
    assert set(ids[0]) >= {"steppo/KeyDoor-v0", "steppo/MultihopQA-v0", "steppo/PaperSearch-v0"}
    assert {name.partition(".")[0] for name in loaded} == {"steppo_env"}


def test_ids_are_in_order_and_each_loads_a_class_of_this_id() -> None:
    assert list(registered_ids()) == sorted(registered_ids())
    assert env_class("steppo/KeyDoor-v0") is KeyDoor
    env = make("steppo/KeyDoor-v0", size=5)
    assert isinstance(env, KeyDoor)
    assert env.options.size == 5


def test_gymnasium_makes_the_environment_that_the_registry_makes() -> None:
    assert isinstance(gymnasium.make("steppo/KeyDoor-v0").unwrapped, KeyDoor)
    before = dict(gymnasium.registry)
    register_with_gymnasium()
    assert gymnasium.registry == before


@pytest.mark.parametrize(
    "look_up", [env_class, make, Catalogue().get], ids=["class", "make", "get"]
)
def test_an_unknown_id_is_answered_with_a_suggestion(look_up: Callable[[str], object]) -> None:
    with pytest.raises(UnknownEnvironment) as caught:
        look_up("steppo/KeyDor-v0")
    assert caught.value.detail.startswith("there is no environment 'steppo/KeyDor-v0'; the ")
    assert caught.value.detail.endswith("Did you mean steppo/KeyDoor-v0?")
    assert "steppo/MultihopQA-v0" in caught.value.detail
    environments = caught.value.members["environments"]
    assert isinstance(environments, list)
    assert set(environments) >= set(registered_ids())
    with pytest.raises(UnknownEnvironment) as far:
        look_up("x" * 100_000)
    assert "Did you mean" not in far.value.detail
    assert len(far.value.detail) < 1_000


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("import not_installed_anywhere", MissingDependency, "install the extra that its README"),
        ("from json import no_such_name", MissingDependency, "cannot import name 'no_such_name'"),
        ("1 / 0", EnvError, "loading plugin/Bad-v0 raised ZeroDivisionError: division by zero"),
        ("def", EnvError, "loading plugin/Bad-v0 raised SyntaxError"),
        ("", EnvError, "loading plugin/Bad-v0 raised AttributeError"),
        ("Bad = 3", EnvError, "plugin_bad:Bad of plugin/Bad-v0 is not a complete StepEnv"),
        ("class Bad: pass", EnvError, "is not a complete StepEnv"),
        ("from steppo_env import StepEnv as Bad", EnvError, "is not a complete StepEnv"),
        ("from stub_envs import Box as Bad", EnvError, "but says it is None"),
        ("from stub_envs import Good as Bad", EnvError, "but says it is stub/Good-v0"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_an_error_that_says_why(
    install_plugin: Install, source: str, error: type[SteppoError], message: str
) -> None:
    install_plugin({"plugin/Bad-v0": "plugin_bad:Bad"}, {"plugin_bad": source})
    assert "plugin/Bad-v0" in registered_ids()
    with pytest.raises(error) as caught:
        make("plugin/Bad-v0")
    assert message in caught.value.detail
    assert "plugin/Bad-v0" in caught.value.detail
    make("steppo/KeyDoor-v0")


def test_an_id_that_two_packages_register_is_refused(install_plugin: Install) -> None:
    install_plugin({"stub/Good-v0": "stub_envs:Good"}, name="first")
    install_plugin({"stub/Good-v0": "stub_envs:Leaky"}, name="second")
    assert registered_ids().count("stub/Good-v0") == 1
    with pytest.raises(EnvError, match=r"more than once \(stub_envs:Good, stub_envs:Leaky\)"):
        make("stub/Good-v0")


def test_an_id_that_gymnasium_refuses_does_not_keep_the_others_out(
    install_plugin: Install,
) -> None:
    install_plugin({"no id at all!": "stub_envs:Leaky", "stub/Good-v0": "stub_envs:Good [extra]"})
    with pytest.warns(UserWarning, match="stub_envs:Leaky registers 'no id at all!'"):
        register_with_gymnasium()
    assert "no id at all!" not in gymnasium.registry
    env = gymnasium.make("stub/Good-v0", disable_env_checker=True)
    assert env.reset(seed=1)[0] == "Here is a box."


@pytest.mark.usefixtures("with_data")
@pytest.mark.parametrize(
    ("fixed", "wanted"),
    [
        ({}, {"data": "/etc/passwd"}),
        ({}, {"data": None}),
        ({"colour": "blue"}, {"colour": "red"}),
        ({"colour": "blue"}, {"colour": "blue"}),
    ],
)
def test_a_caller_cannot_set_what_is_the_operators(
    fixed: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    spec = EnvSpec("blue boxes", "stub/WithData-v0", fixed)
    with pytest.raises(InvalidOptions, match="set by whoever runs blue boxes") as caught:
        spec.make(wanted)
    assert caught.value.members["options"] == list(wanted)
    assert spec.make(wanted, is_operator=True).options


@pytest.mark.usefixtures("with_data")
def test_a_caller_sets_the_rest() -> None:
    spec = EnvSpec("short boxes", "stub/WithData-v0", {"data": "/tmp", "step_limit": 3})
    env = spec.make({"colour": "green"})
    assert env.options.model_dump(include={"data", "step_limit", "colour"}) == {
        "data": Path("/tmp"),
        "step_limit": 3,
        "colour": "green",
    }
    assert spec.make().options.step_limit == 3


@pytest.mark.usefixtures("with_data")
@pytest.mark.parametrize(
    "wanted", [{"color": "red"}, {"step_limit": 0}, {"render_mode": "ansi"}, {"self": 1}]
)
def test_a_callers_mistake_is_no_crash(wanted: Mapping[str, Any]) -> None:
    with pytest.raises(InvalidOptions, match=next(iter(wanted))):
        DATA.make(wanted)


def test_a_catalogue_offers_what_is_installed_and_the_variants() -> None:
    small = EnvSpec("small", "steppo/KeyDoor-v0", {"size": 3})
    catalogue = Catalogue({"small": small})
    assert catalogue.names == (*registered_ids(), "small")
    assert catalogue.get("small") is small
    assert catalogue.get("steppo/KeyDoor-v0") == EnvSpec("steppo/KeyDoor-v0", "steppo/KeyDoor-v0")


@pytest.mark.usefixtures("with_data")
def test_variants_are_read_from_a_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [environments.small]
        env_id = "steppo/KeyDoor-v0"
        options = { size = 3, step_limit = 12 }

        [environments."acme/Plain"]
        env_id = "stub/WithData-v0"

        [environments."steppo/KeyDoor-v0"]
        env_id = "steppo/KeyDoor-v0"
        options.size = 4
        """,
    )
    catalogue = Catalogue.from_toml(path)
    assert catalogue.names == (*registered_ids(), "small", "acme/Plain")
    assert catalogue.get("small").make().options.step_limit == 12
    assert catalogue.get("acme/Plain").options == {}
    assert catalogue.get("steppo/KeyDoor-v0").options == {"size": 4}


def test_a_file_without_variants_is_the_plain_catalogue(tmp_path: Path) -> None:
    assert Catalogue.from_toml(write(tmp_path, "")).names == registered_ids()


@pytest.mark.usefixtures("with_data")
def test_a_relative_path_is_looked_for_beside_the_file_and_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, here = tmp_path / "beside", tmp_path / "here"
    for folder, names in ((beside, ["both"]), (here, ["both", "only-here"])):
        for name in names:
            (folder / name).mkdir(parents=True)
    monkeypatch.chdir(here)

    def data(value: str) -> object:
        table = f'[environments.x]\nenv_id = "stub/WithData-v0"\noptions.data = "{value}"'
        return Catalogue.from_toml(write(beside, table)).get("x").options["data"]

    assert data("both") == str(beside / "both")
    assert data("only-here") == str(here / "only-here")
    assert data(str(here / "both")) == str(here / "both")
    with pytest.raises(MissingData) as caught:
        data("nowhere")
    assert caught.value.detail == (
        f"{beside / 'serve.toml'}: [environments.x]: data: "
        f"there is no {beside / 'nowhere'} or nowhere"
    )


@pytest.mark.usefixtures("with_data")
@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[environments", InvalidInput, "is not TOML"),
        ("environments = 3", InvalidInput, "environments is a table, not 3"),
        ("environments.x = 3", InvalidInput, 'needs env_id = "steppo/..."'),
        ("[environments.x]\noptions.size = 3", InvalidInput, "needs env_id"),
        ("[environments.x]\nenv_id = 3", InvalidInput, "needs env_id"),
        ('[environments.x]\nenv_id = "a"\nsize = 3', InvalidInput, "env_id and options, not size"),
        ('[environments.x]\nenv_id = "a"\noptions = 3', InvalidInput, "options is a table"),
        (
            '[environments."steppo/KeyDoor-v0"]\nenv_id = "stub/WithData-v0"',
            InvalidInput,
            "this name is another environment's id",
        ),
        ('[environments.x]\nenv_id = "steppo/KeyDor-v0"', UnknownEnvironment, "Did you mean"),
        (
            '[environments.x]\nenv_id = "steppo/KeyDoor-v0"\noptions.size = 1',
            InvalidOptions,
            "size: Input should be greater than or equal to 2",
        ),
        (
            '[environments.x]\nenv_id = "steppo/KeyDoor-v0"\noptions.sise = 3',
            InvalidOptions,
            "sise: Extra inputs are not permitted",
        ),
        (
            '[environments.x]\nenv_id = "stub/WithData-v0"\noptions.data = ""',
            InvalidOptions,
            "data is a path, not ''",
        ),
        (
            '[environments.x]\nenv_id = "stub/WithData-v0"\noptions.data = 3',
            InvalidOptions,
            "data is a path, not 3",
        ),
    ],
)
def test_a_mistake_in_the_file_is_found_at_start_and_says_where(
    tmp_path: Path, text: str, error: type[SteppoError], message: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(error) as caught:
        Catalogue.from_toml(path)
    assert type(caught.value) is error
    assert message in caught.value.detail
    assert caught.value.detail.startswith(str(path))
    if "[environments." in text:
        assert "[environments." in caught.value.detail


def test_a_file_that_cannot_be_read_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="No such file"):
        Catalogue.from_toml(tmp_path / "serve.toml")
    with pytest.raises(MissingData, match="Is a directory"):
        Catalogue.from_toml(tmp_path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes("# gr\xfc\xdfe".encode("latin-1"))
    with pytest.raises(InvalidInput, match="is not TOML"):
        Catalogue.from_toml(latin)


def test_the_installed_entry_points_are_named_by_their_ids() -> None:
    for point in entry_points(group="steppo_env.environments"):
        assert point.name in registered_ids()
