"""Which kinds of step rewards there are: the built-in ones, and plugins by entry point.

The entry points' group is `steppo_env.step_rewards`; their names are kinds, so that listing needs
the metadata only and a plugin's code is loaded when one of its rewards is asked for.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from types import MappingProxyType

from steppo_env.errors import EnvError, InvalidOptions, MissingDependency, boundary
from steppo_env.step_rewards.base import StepReward
from steppo_env.step_rewards.penalties import FormatPenalty, InvalidActionPenalty, StepCost
from steppo_env.step_rewards.shaping import Shaping

__all__ = ["GROUP", "registered_kinds", "step_reward_class"]

GROUP = "steppo_env.step_rewards"
BUILT_IN: Mapping[str, type[StepReward]] = MappingProxyType(
    {
        "format_penalty": FormatPenalty,
        "invalid_action_penalty": InvalidActionPenalty,
        "shaping": Shaping,
        "step_cost": StepCost,
    }
)


@cache
def _entry_points() -> Mapping[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        found.setdefault(point.name, []).append(point)
    return found


def registered_kinds() -> tuple[str, ...]:
    """Return every kind, the built-in ones first, without loading any plugin.

    >>> registered_kinds()[:4]
    ('format_penalty', 'invalid_action_penalty', 'shaping', 'step_cost')
    """
    return tuple(dict.fromkeys([*BUILT_IN, *_entry_points()]))


@cache
def step_reward_class(kind: str) -> type[StepReward]:
    """Return the class of a kind.

    Raises:
        InvalidOptions: There is no such kind.
        MissingDependency: Its plugin needs a package that is not installed.
        EnvError: What the entry point names is not a step reward of this kind, or its code raised.
    """
    points = _entry_points().get(kind, [])
    built_in = BUILT_IN.get(kind)
    if built_in is None and not points:
        raise _unknown(kind)
    if len(points) + (built_in is not None) > 1:
        owners = ", ".join(point.value for point in points)
        raise EnvError(
            f"the step reward {kind} is registered more than once ({owners}); uninstall one of them"
        )
    return built_in or _load(kind, points[0])


def _load(kind: str, point: EntryPoint) -> type[StepReward]:
    with boundary(EnvError, f"loading the step reward {kind}"):
        try:
            loaded = point.load()
        except ImportError as error:
            raise MissingDependency(
                f"the step reward {kind} cannot be loaded: {error}; install what its package asks for"
            ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, StepReward)) or isabstract(loaded):
        raise EnvError(f"the entry point {point.value} of {kind} is not a complete StepReward")
    own_kind = getattr(loaded, "kind", None)
    if own_kind != kind:
        raise EnvError(f"{point.value} is registered as {kind} but says it is {own_kind}")
    return loaded


def _unknown(kind: str) -> InvalidOptions:
    shown, kinds = kind[:80], registered_kinds()
    close = get_close_matches(shown, kinds, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return InvalidOptions(
        f"there is no step reward {shown!r}; the kinds are: {', '.join(kinds)}{hint}"
    )
