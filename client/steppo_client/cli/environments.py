"""`steppo envs`: what can be played."""

from rich.markup import escape
from rich.table import Table

from steppo_client.cli.common import (
    ConfigOption,
    JsonOption,
    ServerOption,
    open_client,
    paper,
    print_json,
    run_async,
)
from steppo_env.errors import SteppoError
from steppo_env.wire import EnvDetail, EnvSummary

__all__ = ["envs"]


def envs(
    server: ServerOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List the environments with their splits and options."""

    async def work() -> list[EnvSummary]:
        found: list[EnvSummary] = []
        async with open_client(server, config) as client:
            for summary in await client.environments():
                if not summary.is_available:
                    found.append(summary)
                    continue
                try:
                    found.append(await client.describe(summary.env_id))
                except SteppoError as error:
                    unusable = {"is_available": False, "problem": error.detail}
                    found.append(summary.model_copy(update=unusable))
        return found

    environments = run_async(work)
    if as_json:
        print_json({"environments": [env.model_dump(mode="json") for env in environments]})
        return
    table = Table("environment", "tasks", "steps", "what it is")
    for env in environments:
        if isinstance(env, EnvDetail):
            tasks = ", ".join(f"{split} {count:,}" for split, count in env.splits.items())
            row = (env.env_id, tasks, str(env.step_limit), env.summary)
        else:
            row = (env.env_id, "-", "-", f"not usable here: {env.problem}")
        table.add_row(*map(escape, row))
    paper.print(table)
