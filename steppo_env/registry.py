"""Which environments there are: plugins by entry point, and named variants of them.

Entry-point names are environment ids, so that listing needs the metadata only; a plugin's code is
loaded when one of its environments is made.
"""

import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from pathlib import Path
from typing import Any

import gymnasium

from steppo_env.env import AnyEnv, StepEnv
from steppo_env.errors import (
    EnvError,
    InvalidInput,
    InvalidOptions,
    MissingData,
    MissingDependency,
    SteppoError,
    UnknownEnvironment,
    boundary,
)
from steppo_env.options import operator_fields, read_options

__all__ = ["Catalogue", "EnvSpec", "env_class", "make", "register_with_gymnasium", "registered_ids"]

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
        raise _unknown(env_id, registered_ids())
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


@dataclass(frozen=True, slots=True)
class EnvSpec:
    """An environment as it is offered: a registered one, or a named variant with options.

    Attributes:
        name: What callers ask for: a registered id or the variant's name.
        env_id: The registered environment behind it.
        options: What the operator set; callers cannot change these.
    """

    name: str
    env_id: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(
        self, options: Mapping[str, Any] | None = None, *, is_operator: bool = False
    ) -> AnyEnv:
        """Make the environment with a caller's options on top of its own.

        Args:
            options: What the caller asks for.
            is_operator: True when the caller runs this process and may set every option; a client of
                the server may touch neither the operator's options nor what a variant fixes.

        Raises:
            InvalidOptions: An option is unknown, out of bounds or not the caller's to set.
        """
        wanted = dict(options or {})
        cls = env_class(self.env_id)
        taken = sorted(set(wanted) & (operator_fields(cls.options_type) | set(self.options)))
        if taken and not is_operator:
            raise InvalidOptions(
                f"{', '.join(taken)}: set by whoever runs {self.name}, not by its callers; "
                "ask for a named variant instead",
                options=list(taken),
            )
        chosen = {**self.options, **wanted}
        read_options(cls.options_type, chosen)  # refuses render_mode, which is no option
        return cls(**chosen)


class Catalogue:
    """The environments that one process offers, by name."""

    def __init__(self, specs: Mapping[str, EnvSpec] | None = None) -> None:
        self._specs = {env_id: EnvSpec(env_id, env_id) for env_id in registered_ids()}
        self._specs.update(specs or {})

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, registered ids first."""
        return tuple(self._specs)

    def get(self, name: str) -> EnvSpec:
        """Return what is offered under a name.

        Raises:
            UnknownEnvironment: Nothing is.
        """
        spec = self._specs.get(name)
        if spec is None:
            raise _unknown(name, self.names)
        return spec

    @classmethod
    def from_toml(cls, path: Path) -> "Catalogue":
        """Read named variants from the `[environments.NAME]` tables of a TOML file.

        Each table has `env_id` and, optionally, `options`. A relative path among the options is
        looked for beside the file first, then in the working directory.

        Raises:
            MissingData: The file is not there, or a path in it names nothing.
            InvalidInput: The file is not TOML of this form.
            UnknownEnvironment: A variant's env_id is not registered.
            InvalidOptions: A variant's options do not fit its environment.
        """
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise MissingData(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise InvalidInput(f"{path} is not TOML: {error}") from error
        tables = document.get("environments", {})
        if not isinstance(tables, dict):
            raise InvalidInput(f"{path}: environments is a table of tables")
        specs = {name: _variant(path, name, table) for name, table in tables.items()}
        return cls(specs)


def _variant(path: Path, name: str, table: object) -> EnvSpec:
    where = f"{path}: [environments.{name}]"
    if not isinstance(table, dict) or not isinstance(table.get("env_id"), str):
        raise InvalidInput(f'{where} needs env_id = "steppo/..."')
    unknown = sorted(set(table) - {"env_id", "options"})
    if unknown:
        raise InvalidInput(f"{where} has env_id and options, not {', '.join(unknown)}")
    options = table.get("options", {})
    if not isinstance(options, dict):
        raise InvalidInput(f"{where}: options is a table")
    if name in registered_ids() and name != table["env_id"]:
        raise InvalidInput(f"{where}: this name is another environment's id")
    try:
        paths = operator_fields(env_class(table["env_id"]).options_type)
        resolved = {
            key: _resolve(path.parent, key, value) if key in paths else value
            for key, value in options.items()
        }
        spec = EnvSpec(name, table["env_id"], resolved)
        spec.make().close()  # a mistake in the file is found at start, not at the first session
    except SteppoError as error:
        raise type(error)(f"{where}: {error.detail}", **error.members) from error
    return spec


def _resolve(folder: Path, key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidOptions(f"{key} is a path, not {value!r}")
    candidates = [folder / value, Path(value)]
    for candidate in candidates:
        if candidate.exists():
            return str(candidate.resolve())
    tried = " or ".join(dict.fromkeys(str(candidate) for candidate in candidates))
    raise MissingData(f"{key}: there is no {tried}")


def _unknown(name: str, names: tuple[str, ...]) -> UnknownEnvironment:
    shown = name[:100]
    close = get_close_matches(shown, names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return UnknownEnvironment(
        f"there is no environment {shown!r}; the environments are: {', '.join(names)}.{hint}",
        environments=[*names],
    )
