"""Kinds of step rewards: built in, or installed; loaded when asked for."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from steppo_env import EnvOptions, make
from steppo_env.errors import EnvError, InvalidOptions, MissingDependency
from steppo_env.step_rewards import StepCost, kinds, registered_kinds, step_reward_class

PLUGIN = """
from steppo_env.step_rewards import StepReward

class Bonus(StepReward):
    kind = "bonus"
    amount: float = 1.0

    def term(self, before, after, action, outcome):
        return self.amount

class Abstract(StepReward):
    kind = "abstract"

NUMBER = 3
"""


@pytest.fixture
def _plugin(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "plugin_rewards.py").write_text(PLUGIN, encoding="utf-8")
    (folder / "plugin_broken.py").write_text("1 / 0", encoding="utf-8")
    (folder / "plugin_lacking.py").write_text("import not_installed_anywhere", encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    named = {
        "bonus": ["plugin_rewards:Bonus"],
        "abstract": ["plugin_rewards:Abstract"],
        "number": ["plugin_rewards:NUMBER"],
        "malus": ["plugin_rewards:Bonus"],
        "broken": ["plugin_broken:X"],
        "lacking": ["plugin_lacking:X"],
        "twice": ["plugin_rewards:Bonus", "plugin_other:Bonus"],
        "step_cost": ["plugin_rewards:Bonus"],
    }
    points = {
        kind: [EntryPoint(kind, value, kinds.GROUP) for value in values]
        for kind, values in named.items()
    }
    monkeypatch.setattr(kinds, "_entry_points", lambda: points)
    step_reward_class.cache_clear()
    yield
    step_reward_class.cache_clear()
    for module in ("plugin_rewards", "plugin_broken", "plugin_lacking"):
        sys.modules.pop(module, None)


def test_the_built_in_kinds_are_named_as_they_name_themselves() -> None:
    assert {kind: cls.kind for kind, cls in kinds.BUILT_IN.items()} == {
        kind: kind for kind in kinds.BUILT_IN
    }
    assert step_reward_class("step_cost") is StepCost


def test_information_gain_is_installed() -> None:
    assert "information_gain" in registered_kinds()


@pytest.mark.usefixtures("_plugin")
def test_a_plugin_is_listed_without_being_loaded_and_used_like_any_other() -> None:
    assert registered_kinds()[:4] == tuple(kinds.BUILT_IN)
    assert {"bonus", "broken"} <= set(registered_kinds())
    assert "plugin_rewards" not in sys.modules
    env = make("steppo/KeyDoor-v0", step_rewards=[{"kind": "bonus", "amount": 0.5}])
    env.start("dev/0", 0)
    assert env.advance("x").reward_terms == {"goal": 0.0, "bonus": 0.5}


@pytest.mark.usefixtures("_plugin")
@pytest.mark.parametrize(
    ("kind", "error", "detail"),
    [
        ("bonsu", InvalidOptions, "there is no step reward 'bonsu'.*did you mean bonus?"),
        ("x" * 5000, InvalidOptions, "there is no step reward 'x{80}'; the kinds are"),
        ("abstract", EnvError, "is not a complete StepReward"),
        ("number", EnvError, "is not a complete StepReward"),
        ("malus", EnvError, "is registered as malus but says it is bonus"),
        ("broken", EnvError, "loading the step reward broken raised ZeroDivisionError"),
        ("lacking", MissingDependency, "lacking cannot be loaded: .*not_installed_anywhere"),
        ("twice", EnvError, "twice is registered more than once"),
        ("step_cost", EnvError, "step_cost is registered more than once"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_kind_that_cannot_be_had_says_why(kind: str, error: type[Exception], detail: str) -> None:
    with pytest.raises(error, match=detail):
        make("steppo/KeyDoor-v0", step_rewards=[{"kind": kind}])


@pytest.mark.usefixtures("_plugin")
def test_a_plugin_that_cannot_be_loaded_hides_no_options() -> None:
    schema = EnvOptions.model_json_schema()
    shown = schema["properties"]["step_rewards"]["items"]["oneOf"]
    by_kind = {kind["properties"]["kind"]["const"]: kind for kind in shown}
    assert by_kind["lacking"]["description"].startswith("Not available: ")
    assert by_kind["bonus"]["properties"]["amount"]["default"] == 1.0
