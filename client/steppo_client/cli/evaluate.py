"""`steppo eval`: benchmark a policy on environments and write a report."""

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from steppo_client.chat_policy import ChatPolicy, ChatSettings
from steppo_client.cli.common import (
    ConfigOption,
    JsonOption,
    ServerOption,
    SetOption,
    make_folder,
    open_client,
    paper,
    read_settings,
    run_async,
    screen,
)
from steppo_client.cli.progress import plain_table, progress
from steppo_client.cli.rollout import BuiltinPolicy, builtin_policy, finish
from steppo_client.env_client import EnvClient
from steppo_client.policy import Policy
from steppo_client.report import write_report
from steppo_client.run import RunPlan, execute
from steppo_client.sampler import SamplerConfig
from steppo_client.summary import (
    EnvSummaryReport,
    LabelReports,
    Result,
    summarize_labels,
    summarize_results,
)
from steppo_client.task_refs import list_task_refs
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
    by: Annotated[
        str | None,
        typer.Option(
            help="Labels to report by, such as hops,type or dataset+hops [all small ones]."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model or a built-in policy."""
    labels = None if by is None else _read_labels(by)
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
                    await _check_labels(client, plan, labels or ())
                    return await execute(plan, client, chosen, store, notice)
                finally:
                    await chosen.close()

    results = run_async(work)
    reports = summarize_results(results, labels)
    together = summarize_labels(results, labels) if labels and len(envs) > 1 else {}
    write_report(out, plan, chosen.name, reports, together)
    screen.print(f"report in {out / 'report.md'}", markup=False, soft_wrap=True)
    for line in _missing_metrics(reports):
        screen.print(line, markup=False, soft_wrap=True)
    if labels and not as_json:
        for name, report in reports.items():
            _print_labels(name, report.by_label)
        _print_labels("all environments", together)
    finish(plan, results, as_json, labels)


def _read_labels(text: str) -> list[str]:
    labels = [label.strip() for label in text.split(",")]
    if not all(part for label in labels for part in label.split("+")):
        raise InvalidInput(f"--by takes labels as in hops,type or dataset+hops; got {text!r}")
    return labels


async def _check_labels(client: EnvClient, plan: RunPlan, labels: Sequence[str]) -> None:
    """Refuse a label that no task has before the first episode rather than after the last."""
    if not labels:
        return
    known: set[str] = set()
    for env_id in plan.env_ids:
        refs = await list_task_refs(client, env_id, plan.split, plan.num_tasks, plan.options)
        known.update(label for ref in refs for label in ref.labels)
    for part in (part for label in labels for part in label.split("+")):
        if part not in known:
            found = ", ".join(sorted(known)) or "none"
            raise InvalidInput(f"no task has the label {part!r}; the labels are: {found}")


def _missing_metrics(reports: Mapping[str, EnvSummaryReport]) -> Iterator[str]:
    for env_id, report in reports.items():
        counted = report.episodes - report.failed
        for name, count in report.metrics_missing.items():
            yield f"{env_id}: {name} is missing in {count} of {counted} episodes, not in its mean"


def _print_labels(title: str, reports: LabelReports) -> None:
    """Print a table for each label. Means of counts (num_*) are left to the report: they are many."""
    for label, rows in reports.items():
        found = sorted({name for row in rows.values() for name in row.metrics})
        names = [name for name in found if not name.startswith("num_")]
        headings = (label, "n", "success (95% CI)", "return", *names)
        table = plain_table(*map(escape, headings), title=escape(title))
        for column in table.columns[4:]:
            # In a narrow terminal long names of metrics are folded, so that no number is cut.
            column.no_wrap, column.overflow, column.min_width = False, "fold", 5
        for value, row in rows.items():
            low, high = row.success_ci95
            table.add_row(
                escape(value),
                str(row.episodes),
                f"{row.success_rate:.2f} ({low:.2f}-{high:.2f})",
                f"{row.mean_return:.2f}",
                *(f"{row.metrics[name]:.2f}" if name in row.metrics else "-" for name in names),
            )
        paper.print(table)


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
