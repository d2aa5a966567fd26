"""`steppo store`: look into a trajectory store."""

from dataclasses import asdict
from typing import Annotated, cast

import typer
from pydantic import JsonValue
from rich.markup import escape

from steppo_client.cli.common import JsonOption, paper, print_json
from steppo_client.cli.progress import plain_table
from steppo_client.cli.show import show_trajectory
from steppo_env.mdp import StopReason
from steppo_env.store import TrajectoryFilter, open_store

__all__ = ["app"]

app = typer.Typer(help="Look into a trajectory store.", no_args_is_help=True)

StoreOption = Annotated[str, typer.Option("--store", help="Such as sqlite:///run.db.")]


@app.command("ls")
def ls(
    store: StoreOption,
    env: Annotated[str | None, typer.Option(help="Only this environment.")] = None,
    run_id: Annotated[str | None, typer.Option(help="Only this run.")] = None,
    stop_reason: Annotated[StopReason | None, typer.Option(help="Only this ending.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most trajectories shown.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where an earlier list ended.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List trajectories, newest first."""
    wanted = TrajectoryFilter(env_id=env, run_id=run_id, stop_reason=stop_reason)
    with open_store(store, create=False) as opened:
        page = opened.list(wanted, limit=limit, cursor=cursor)
        total = opened.count(wanted)
    if as_json:
        items = [cast(JsonValue, asdict(item)) for item in page.items]
        print_json({"total": total, "trajectories": items, "next_cursor": page.next_cursor})
        return
    table = plain_table(
        "trajectory", "environment", "task", "policy", "steps", "return", "ended by"
    )
    for item in page.items:
        table.add_row(
            escape(item.trajectory_id[:12]),
            escape(item.env_id),
            escape(item.task_id),
            escape(item.policy),
            str(item.num_steps),
            f"{item.return_:g}",
            item.stop_reason.value,
        )
    paper.print(table)
    paper.print(f"{len(page.items)} of {total}")


@app.command("show")
def show(
    trajectory_id: Annotated[str, typer.Argument(help="The id, or at least its first 6 letters.")],
    store: StoreOption,
    as_json: JsonOption = False,
) -> None:
    """Show one trajectory step by step."""
    with open_store(store, create=False) as opened:
        trajectory = opened.get(trajectory_id)
    if as_json:
        document = cast(dict[str, JsonValue], asdict(trajectory))
        document["return"] = trajectory.return_
        document["trainable"] = trajectory.trainable
        print_json(document)
        return
    show_trajectory(trajectory)
