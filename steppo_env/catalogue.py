"""What one process offers: the registered environments, and named variants of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from steppo_env.config_file import read_config_table
from steppo_env.env import AnyEnv
from steppo_env.errors import InvalidInput, InvalidOptions, MissingData, SteppoError
from steppo_env.options import EnvOptions, operator_fields, read_options
from steppo_env.registry import env_class, registered_ids, unknown_environment

__all__ = ["Catalogue", "EnvSpec"]


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
        read = read_options(cls.options_type, chosen)  # refuses render_mode, which is no option
        if "step_rewards" in wanted and not is_operator:
            _refuse_operators_kinds(self.name, read)
        return cls(**chosen)


def _refuse_operators_kinds(name: str, options: EnvOptions) -> None:
    kinds = sorted({item.kind for item in options.step_rewards if item.is_operator_only})
    if kinds:
        raise InvalidOptions(
            f"step_rewards: {', '.join(kinds)}: set by whoever runs {name}, not by its callers; "
            "ask for a named variant instead",
            options=["step_rewards"],
        )


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
            raise unknown_environment(name, self.names)
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
        tables = read_config_table(path, "environments")
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
        paths = _path_options(env_class(table["env_id"]).options_type)
        resolved = {
            key: _resolve(path.parent, key, value) if key in paths else value
            for key, value in options.items()
        }
        spec = EnvSpec(name, table["env_id"], resolved)
        spec.make().close()  # a mistake in the file is found at start, not at the first session
    except SteppoError as error:
        raise type(error)(f"{where}: {error.detail}", **error.members) from error
    return spec


def _path_options(options_type: type[EnvOptions]) -> frozenset[str]:
    """Return the names of the operator's options that name a file or folder, and not a URL, say."""
    fields = options_type.model_fields
    return frozenset(
        name for name in operator_fields(options_type) if _takes_path(fields[name].annotation)
    )


def _takes_path(annotation: object) -> bool:
    return annotation is Path or any(map(_takes_path, get_args(annotation)))


def _resolve(folder: Path, key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidOptions(f"{key} is a path, not {value!r}")
    candidates = [folder / value, Path(value)]
    for candidate in candidates:
        if candidate.exists():
            return str(candidate.resolve())
    tried = " or ".join(dict.fromkeys(str(candidate) for candidate in candidates))
    raise MissingData(f"{key}: there is no {tried}")
