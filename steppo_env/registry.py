"""Which environments are installed: plugins by entry point.

Entry-point names are environment ids, so that listing needs the metadata only; a plugin's code is
loaded when one of its environments is made.
"""

import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from typing import Any

import gymnasium

from steppo_env.env import AnyEnv, StepEnv
from steppo_env.errors import (
    EnvError,
    MissingDependency,
    UnknownEnvironment,
    boundary,
)

__all__ = [
    "env_class",
    "make",
    "plugin_version",
    "register_with_gymnasium",
    "registered_ids",
    "unknown_environment",
]

GROUP = "steppo_env.environments"


@cache
def _entry_points() -> Mapping[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        found.setdefault(point.name, []).append(point)
    return found


def registered_ids() -> tuple[str, ...]:
    """Return the ids of the installed environments, in order, without loading any."""
    return tuple(_entry_points())


@cache
def env_class(env_id: str) -> type[AnyEnv]:
    """Load the class of a registered environment.

    Raises:
        UnknownEnvironment: No installed package registers this id.
        MissingDependency: Its plugin needs a package that is not installed.
        EnvError: What the entry point names is not a StepEnv with this id, or its code raised.
    """
    points = _entry_points().get(env_id)
    if points is None:
        raise unknown_environment(env_id, registered_ids())
    if len(points) > 1:
        owners = ", ".join(point.value for point in points)
        raise EnvError(f"{env_id} is registered more than once ({owners}); uninstall one of them")
    point = points[0]
    with boundary(EnvError, f"loading {env_id}"):
        try:
            loaded = point.load()
        except ImportError as error:
            raise MissingDependency(
                f"{env_id} cannot be loaded: {error}; install the extra that its README names",
                env_id=env_id,
            ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, StepEnv)) or isabstract(loaded):
        raise EnvError(f"the entry point {point.value} of {env_id} is not a complete StepEnv")
    own_id = getattr(loaded, "env_id", None)
    if own_id != env_id:
        raise EnvError(f"{point.value} is registered as {env_id} but says it is {own_id}")
    return loaded


def plugin_version(env_id: str) -> str:
    """Return the version of the distribution that registers an environment.

    Raises:
        UnknownEnvironment: No installed package registers this id.
    """
    points = _entry_points().get(env_id)
    if points is None:
        raise unknown_environment(env_id, registered_ids())
    distribution = points[0].dist
    # Only an entry point that was made by hand has none.
    return "0" if distribution is None else distribution.version


def make(env_id: str, **options: Any) -> AnyEnv:
    """Make a registered environment.

    >>> make("steppo/KeyDoor-v0", size=5).env_id
    'steppo/KeyDoor-v0'
    """
    return env_class(env_id)(**options)


def register_with_gymnasium() -> None:
    """Let `gymnasium.make` know every installed environment. Loads none of them."""
    for env_id, (point, *_) in _entry_points().items():
        if env_id in gymnasium.registry:
            continue
        try:
            gymnasium.register(id=env_id, entry_point=f"{point.module}:{point.attr}")
        except gymnasium.error.Error as error:
            # One package's mistake must not keep everybody else from importing this one.
            warnings.warn(f"{point.value} registers {env_id!r}: {error}", stacklevel=2)


def unknown_environment(name: str, names: tuple[str, ...]) -> UnknownEnvironment:
    shown = name[:100]
    close = get_close_matches(shown, names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return UnknownEnvironment(
        f"there is no environment {shown!r}; the environments are: {', '.join(names)}.{hint}",
        environments=[*names],
    )
