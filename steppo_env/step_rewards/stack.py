"""A stack of step rewards: how it is read from options, and how it adds to a step."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from steppo_env.errors import EnvError, InvalidOptions, MissingDependency, boundary
from steppo_env.mdp import Action, Outcome
from steppo_env.step_rewards.base import RewardedEnv, StepReward
from steppo_env.step_rewards.kinds import registered_kinds, step_reward_class
from steppo_env.tools import explain

__all__ = ["MALFORMED", "StepRewards", "add_terms", "first_measures", "next_measures"]

MALFORMED = "malformed"
"""The reward term of the option `malformed_penalty`."""

MAX_STACKED = 16


class _AnyKind:
    """Reads a step reward of whatever kind: an object, or a table of `kind` and its settings."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _read,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda reward: reward.model_dump(mode="json")
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"oneOf": [_schema_of(kind, handler) for kind in registered_kinds()]}


def _read(value: object) -> StepReward:
    if isinstance(value, StepReward):
        return value
    if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
        raise _refused('a step reward is a table such as {"kind": "step_cost", "amount": 0.01}')
    settings = dict(value)
    kind = settings.pop("kind")
    try:
        return step_reward_class(kind).model_validate(settings)
    except InvalidOptions as error:
        raise _refused(error.detail) from None
    except ValidationError as error:
        raise _refused(f"{kind[:80]}: {explain(error)}") from None


def _refused(detail: str) -> PydanticCustomError:
    return PydanticCustomError("step_reward", "{detail}", {"detail": detail})


def _schema_of(kind: str, handler: GetJsonSchemaHandler) -> dict[str, Any]:
    try:
        cls = step_reward_class(kind)
    except (EnvError, MissingDependency) as error:
        # One package's mistake must not hide the options of every environment.
        schema: dict[str, Any] = {"properties": {"kind": {"const": kind}}, "required": ["kind"]}
        return schema | {"type": "object", "description": f"Not available: {error.detail}"}
    schema = dict(handler.resolve_ref_schema(handler(cls.__pydantic_core_schema__)))
    schema["properties"] = {"kind": {"const": kind}, **schema.get("properties", {})}
    schema["required"] = ["kind", *schema.get("required", ())]
    if cls.is_operator_only:
        schema["description"] = (
            f"{schema.get('description', '')}\n\n"
            "Only whoever runs the server may set this kind, not its clients."
        ).strip()
    return schema


def _in_order(rewards: tuple[StepReward, ...]) -> tuple[StepReward, ...]:
    """Refuse names that stand twice; put the rest in one order, for no sum depends on it."""
    names = [reward.term_name for reward in rewards]
    if MALFORMED in names:
        raise _refused(f"{MALFORMED!r} is the term of malformed_penalty; choose another `name`")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _refused(f"two step rewards are named {', '.join(twice)}; give each its own `name`")
    if len(rewards) > MAX_STACKED:
        raise _refused(f"at most {MAX_STACKED} step rewards are stacked, these are {len(rewards)}")
    return tuple(sorted(rewards, key=lambda reward: reward.term_name))


StepRewards: TypeAlias = Annotated[
    tuple[Annotated[StepReward, _AnyKind()], ...], AfterValidator(_in_order)
]
"""The type of the option `step_rewards`, in the order of the terms' names."""


def first_measures(rewards: StepRewards, env: RewardedEnv) -> tuple[float, ...]:
    """Return the measures of the state that an episode begins in, one for each reward.

    Raises:
        InvalidOptions: A reward cannot be given for this environment or task.
        EnvError: A reward's code raised, or gave no finite number.
    """
    for reward in rewards:
        with boundary(EnvError, f"checking {_named(reward, env)}"):
            reward.check(env)
    return tuple(_measured(reward, env) for reward in rewards)


def next_measures(
    rewards: StepRewards, env: RewardedEnv, before: tuple[float, ...], *, is_same_state: bool
) -> tuple[float, ...]:
    """Return the measures of the state that a step led to.

    Args:
        before: The measures of the state that the step was taken in.
        is_same_state: True when both states have one key.

    Raises:
        EnvError: A reward's code raised, or gave no finite number.
    """
    return tuple(
        earlier if is_same_state and reward.is_keyed else _measured(reward, env)
        for reward, earlier in zip(rewards, before)
    )


def add_terms(
    rewards: StepRewards,
    env: RewardedEnv,
    before: tuple[float, ...],
    after: tuple[float, ...],
    action: Action,
    outcome: Outcome,
) -> dict[str, float]:
    """Return the reward terms of a step together with those of the step rewards.

    Raises:
        EnvError: A reward has the name of one of the environment's own terms, its code raised, or
            it gave no finite number.
    """
    terms = dict(outcome.reward_terms)
    for reward, earlier, later in zip(rewards, before, after):
        name = reward.term_name
        if name in terms:
            raise EnvError(
                f"{env.env_id} has a reward term {name!r} of its own; give the step reward "
                f"{reward.kind} another `name`"
            )
        terms[name] = _finite(
            f"the term of {_named(reward, env)}",
            lambda: reward.term(earlier, later, action, outcome),  # noqa: B023 - called at once
        )
    return terms


def _measured(reward: StepReward, env: RewardedEnv) -> float:
    return _finite(f"measuring {_named(reward, env)}", lambda: reward.measure(env))


def _named(reward: StepReward, env: RewardedEnv) -> str:
    return f"the step reward {reward.term_name} on {env.env_id}"


def _finite(what: str, work: Callable[[], float]) -> float:
    # Every foreign error ends the episode as the environment's own would; none is a reward of 0.
    with boundary(EnvError, what, passes=EnvError):
        value = float(work()) + 0.0  # no negative zero: a key would tell it from zero
    if not math.isfinite(value):
        raise EnvError(f"{what} gave {value}, which is not finite")
    return value
