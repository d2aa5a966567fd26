"""`steppo eval`: benchmark a policy on environments and write a report."""

import os
import uuid
from pathlib import Path
from typing import Annotated

import typer

from steppo_client.chat_policy import ChatPolicy, ChatSettings
from steppo_client.cli.common import (
    ConfigOption,
    JsonOption,
    ServerOption,
    SetOption,
    make_folder,
    open_client,
    read_settings,
    run_async,
    screen,
)
from steppo_client.cli.progress import progress
from steppo_client.cli.rollout import BuiltinPolicy, builtin_policy, finish
from steppo_client.policy import Policy
from steppo_client.report import write_report
from steppo_client.run import RunPlan, execute
from steppo_client.sampler import SamplerConfig
from steppo_client.summary import Result, summarize_results
from steppo_env.errors import InvalidInput
from steppo_env.store import open_store

__all__ = ["evaluate"]

LOCAL_KEY = "none"
"""Sent to endpoints that ask for no key: the SDK wants one."""


def evaluate(
    envs: Annotated[list[str], typer.Argument(help="Registered ids or named variants.")],
    out: Annotated[Path, typer.Option(help="Folder for report and trajectories.")],
    policy: Annotated[BuiltinPolicy | None, typer.Option(help="A built-in policy.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Model at an OpenAI-compatible endpoint.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="Such as http://127.0.0.1:8000/v1.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the endpoint's key.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0)] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest response, in tokens.")] = 1024,
    server: ServerOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    split: Annotated[str, typer.Option(help="Split of the tasks.")] = "dev",
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks of the split.")] = 50,
    samples: Annotated[int, typer.Option(min=1, help="Episodes of each task.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Most episodes in flight.")] = 16,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model or a built-in policy."""
    chosen = _policy(policy, model, base_url, api_key_env, temperature, max_tokens)
    plan = RunPlan(
        kind="eval",
        env_ids=envs,
        split=split,
        num_tasks=tasks,
        sampler=SamplerConfig(
            run_id=f"eval-{uuid.uuid4().hex[:12]}",
            seed=seed,
            group_size=samples,
            concurrency=concurrency,
        ),
        options=read_settings(settings),
    )

    async def work() -> list[Result]:
        make_folder(out)
        url = f"sqlite:///{(out / 'trajectories.db').as_posix()}"
        with open_store(url) as store, progress(len(envs) * tasks * samples) as notice:
            async with open_client(server, config) as client:
                try:
                    return await execute(plan, client, chosen, store, notice)
                finally:
                    await chosen.close()

    results = run_async(work)
    write_report(out, plan, chosen.name, summarize_results(results))
    screen.print(f"report in {out / 'report.md'}", markup=False, soft_wrap=True)
    finish(plan, results, as_json)


def _policy(
    policy: BuiltinPolicy | None,
    model: str | None,
    base_url: str | None,
    api_key_env: str | None,
    temperature: float,
    max_tokens: int,
) -> Policy:
    if (policy is None) == (model is None):
        raise InvalidInput("say who is evaluated: --policy expert|random, or --model NAME")
    if policy is not None:
        if base_url is not None or api_key_env is not None:
            raise InvalidInput("--base-url and --api-key-env go with --model")
        return builtin_policy(policy)
    if base_url is None:
        raise InvalidInput("--model needs --base-url, such as http://127.0.0.1:8000/v1")
    api_key = os.environ.get(api_key_env) if api_key_env is not None else LOCAL_KEY
    if not api_key:
        raise InvalidInput(f"the environment variable {api_key_env} is not set or empty")
    assert model is not None
    settings = ChatSettings(temperature=temperature, max_tokens=max_tokens)
    return ChatPolicy(model, base_url, api_key, settings)
