"""`steppo data stats`: how many tasks there are, by split and by label.

The other commands of `steppo data` come from the packages whose data they make.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.markup import escape

from steppo_client.cli.common import (
    ConfigOption,
    JsonOption,
    ServerOption,
    SetOption,
    open_client,
    paper,
    print_json,
    read_settings,
    run_async,
)
from steppo_client.cli.progress import plain_table
from steppo_client.env_client import EnvClient
from steppo_client.summary import label_order
from steppo_client.task_refs import list_task_refs
from steppo_env.errors import InvalidInput

__all__ = ["stats"]

MAX_ROWS = 12
"""Values of a label that a table shows one by one; of more it shows how many there are."""


@dataclass(frozen=True, slots=True)
class SplitStats:
    """What the tasks of one split are labelled with.

    Attributes:
        num_counted: Tasks whose labels were read, from the start of the split.
        labels: For each label, how many of them have which value, in the order of the values.
    """

    num_tasks: int
    num_counted: int
    labels: Mapping[str, Mapping[str | int, int]]

    def num_without(self, label: str) -> int:
        """Return how many of the counted tasks do not have a label."""
        return self.num_counted - sum(self.labels.get(label, {}).values())

    def to_json(self) -> dict[str, JsonValue]:
        """Return the counts as a JSON object."""
        return {
            "num_tasks": self.num_tasks,
            "num_counted": self.num_counted,
            "labels": {
                label: {str(value): count for value, count in counts.items()}
                for label, counts in self.labels.items()
            },
            "num_without": {label: self.num_without(label) for label in self.labels},
        }


def stats(
    envs: Annotated[list[str], typer.Argument(help="Registered ids or named variants.")],
    server: ServerOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Most tasks of a split whose labels are read.")
    ] = 20_000,
    as_json: JsonOption = False,
) -> None:
    """Count the tasks of environments by split and label."""
    if len(set(envs)) < len(envs):
        raise InvalidInput(f"an environment is named twice: {', '.join(envs)}")
    options = read_settings(settings)

    async def work() -> dict[str, tuple[str, dict[str, SplitStats]]]:
        async with open_client(server, config) as client:
            return {env_id: await _count(client, env_id, options, limit) for env_id in envs}

    found = run_async(work)
    if as_json:
        document: dict[str, JsonValue] = {
            env_id: {
                "data_version": version,
                "splits": {name: split.to_json() for name, split in splits.items()},
            }
            for env_id, (version, splits) in found.items()
        }
        print_json({"environments": document})
        return
    for env_id, (_, splits) in found.items():
        _print(env_id, splits)


async def _count(
    client: EnvClient, env_id: str, options: Mapping[str, JsonValue], limit: int
) -> tuple[str, dict[str, SplitStats]]:
    """Return the version of the data and what each split holds."""
    detail = await client.describe(env_id, options)
    splits: dict[str, SplitStats] = {}
    for name, num_tasks in detail.splits.items():
        num_counted = min(num_tasks, limit)
        refs = await list_task_refs(client, env_id, name, num_counted, options)
        splits[name] = SplitStats(num_tasks, num_counted, _by_label([ref.labels for ref in refs]))
    return detail.data_version, splits


def _by_label(found: Sequence[Mapping[str, str | int]]) -> dict[str, dict[str | int, int]]:
    counts: dict[str, Counter[str | int]] = {}
    for labels in found:
        for label, value in labels.items():
            counts.setdefault(label, Counter())[value] += 1
    return {
        label: {value: values[value] for value in sorted(values, key=label_order)}
        for label, values in sorted(counts.items())
    }


def _print(env_id: str, splits: Mapping[str, SplitStats]) -> None:
    table = plain_table("label", "value", *splits, title=escape(env_id))
    for column in table.columns[2:]:
        column.justify = "right"
    table.add_row("tasks", "", *(f"{split.num_tasks:,}" for split in splits.values()))
    for label in sorted({label for split in splits.values() for label in split.labels}):
        counts = {name: split.labels.get(label, {}) for name, split in splits.items()}
        values = sorted({value for each in counts.values() for value in each}, key=label_order)
        if len(values) > MAX_ROWS:
            shown = f"{len(values):,} values, {values[0]} to {values[-1]}"
            cells = [f"{sum(each.values()):,}" for each in counts.values()]
            table.add_row(escape(label), escape(shown), *cells)
        else:
            for value in values:
                cells = [f"{each.get(value, 0):,}" for each in counts.values()]
                table.add_row(escape(label), escape(str(value)), *cells)
        missing = [split.num_without(label) for split in splits.values()]
        if any(missing):
            table.add_row(escape(label), "(none)", *(f"{count:,}" for count in missing))
    paper.print(table)
    for name, split in splits.items():
        if split.num_counted < split.num_tasks:
            paper.print(
                f"{name}: labels of the first {split.num_counted:,} of {split.num_tasks:,} tasks; "
                "--limit reads more",
                markup=False,
            )
