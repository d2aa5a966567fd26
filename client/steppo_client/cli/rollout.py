"""`steppo rollout`: sample episodes of one environment into a store."""

import uuid
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.markup import escape

from steppo_client.cli.common import (
    EXIT_SOME_FAILED,
    ConfigOption,
    JsonOption,
    ServerOption,
    SetOption,
    open_client,
    optional_store,
    print_json,
    read_settings,
    run_async,
    screen,
)
from steppo_client.cli.progress import progress, report_table
from steppo_client.policy import ExpertPolicy, Policy, RandomPolicy
from steppo_client.run import RunPlan, execute
from steppo_client.sampler import SamplerConfig
from steppo_client.summary import Result, summarize_results

__all__ = ["BuiltinPolicy", "builtin_policy", "explain_failures", "finish", "rollout"]


class BuiltinPolicy(StrEnum):
    """Policies that need no model."""

    EXPERT = "expert"
    RANDOM = "random"


def builtin_policy(kind: BuiltinPolicy) -> Policy:
    """Return a policy that needs no model."""
    return ExpertPolicy() if kind is BuiltinPolicy.EXPERT else RandomPolicy()


def rollout(
    env: Annotated[str, typer.Argument(help="A registered id or a named variant.")],
    server: ServerOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    policy: Annotated[BuiltinPolicy, typer.Option(help="Who acts.")] = BuiltinPolicy.EXPERT,
    split: Annotated[str, typer.Option(help="Split of the tasks.")] = "dev",
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks of the split.")] = 50,
    group_size: Annotated[int, typer.Option(min=1, help="Episodes of each task.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Most episodes in flight.")] = 16,
    store: Annotated[
        str | None, typer.Option(help="Where to keep trajectories, e.g. sqlite:///run.db.")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option(help="Name of the run; made up if left out.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sample episodes with a built-in policy."""
    plan = RunPlan(
        kind="rollout",
        env_ids=[env],
        split=split,
        num_tasks=tasks,
        sampler=SamplerConfig(
            run_id=run_id or f"rollout-{uuid.uuid4().hex[:12]}",
            seed=seed,
            group_size=group_size,
            concurrency=concurrency,
        ),
        options=read_settings(settings),
    )

    async def work() -> list[Result]:
        total = tasks * group_size
        with optional_store(store) as opened, progress(total) as notice:
            async with open_client(server, config) as client:
                return await execute(plan, client, builtin_policy(policy), opened, notice)

    finish(plan, run_async(work), as_json)


def finish(
    plan: RunPlan, results: list[Result], as_json: bool, by: Sequence[str] | None = None
) -> None:
    """Print what a run gave.

    Args:
        by: Labels to report by; None takes every label of few values.

    Raises:
        typer.Exit: Infrastructure failed some episodes.
    """
    reports = summarize_results(results, by)
    if as_json:
        environments: dict[str, JsonValue] = {
            name: report.to_json() for name, report in reports.items()
        }
        print_json({"run_id": plan.sampler.run_id, "environments": environments})
    else:
        report_table(reports)
    failures = explain_failures(results)
    for line in failures:
        screen.print(escape(line), style="red", soft_wrap=True)
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)


def explain_failures(results: Iterable[Result]) -> list[str]:
    """Return a line for each way in which episodes failed, with one of its errors."""
    found: dict[tuple[str, str], list[str]] = {}
    for result in results:
        if result.failure is not None:
            key = (result.env_id, result.failure)
            found.setdefault(key, []).append(result.error or "no more is known")
    return [
        f"{len(errors)} of {env_id} ended by {failure}, such as: {errors[0]}"
        for (env_id, failure), errors in found.items()
    ]
