"""Options of environments: bounded, documented, and divided into the caller's and the operator's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from steppo_env.errors import InvalidOptions
from steppo_env.rendering import Rendering
from steppo_env.step_rewards import StepRewards
from steppo_env.tools import explain

__all__ = ["EnvOptions", "OperatorOnly", "OptionsT", "operator_fields", "read_options"]


@dataclass(frozen=True, slots=True)
class OperatorOnly:
    """Marks an option that names something on the machine, such as a path.

    Whoever runs the process sets it (in Python, on the command line, in serve.toml); a client of the
    server never can.
    """


class EnvOptions(BaseModel):
    """Options that every environment has. Subclasses add their own and may change the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step_limit: int = Field(
        default=20, ge=1, le=1000, description="Steps after which an episode is truncated."
    )
    rendering: Rendering = Field(
        default=Rendering.REBUILT, description="How the messages of a state are made."
    )
    malformed_penalty: float = Field(
        default=0.0,
        ge=0.0,
        le=10.0,
        description="Subtracted from the reward of a step of which any part was rejected.",
    )
    state_chars: int = Field(
        default=24_000,
        ge=1_000,
        le=1_000_000,
        description="Budget of a rebuilt state, in characters.",
    )
    step_rewards: StepRewards = Field(
        default=(), description="Terms that are added to the reward of every step, by kind."
    )


OptionsT = TypeVar("OptionsT", bound=EnvOptions)


def read_options(options_type: type[OptionsT], values: Mapping[str, object]) -> OptionsT:
    """Check options against their model.

    Raises:
        InvalidOptions: An option is unknown or out of bounds; the message says which and why.
    """
    try:
        return options_type.model_validate(dict(values))
    except ValidationError as error:
        known = ", ".join(options_type.model_fields)
        members: dict[str, JsonValue] = {"options": list(options_type.model_fields)}
        raise InvalidOptions(f"{explain(error)} (the options are: {known})", **members) from None


def operator_fields(options_type: type[EnvOptions]) -> frozenset[str]:
    """Return the names of the options that a client of the server may not set."""
    return frozenset(
        name
        for name, info in options_type.model_fields.items()
        if any(map(_is_mark, info.metadata)) or _has_mark(info.annotation)
    )


def _is_mark(item: object) -> bool:
    return isinstance(item, OperatorOnly) or item is OperatorOnly


def _has_mark(annotation: object) -> bool:
    """Find a mark inside an annotation as well, as in `Annotated[Path, OperatorOnly()] | None`."""
    return any(_is_mark(item) or _has_mark(item) for item in get_args(annotation))
