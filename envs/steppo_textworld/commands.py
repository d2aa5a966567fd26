"""`steppo data textworld`: games made ahead of time, and what the cache of games holds."""

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from steppo_env.errors import InvalidInput
from steppo_textworld.batch import Fate, MadeGame, make_games
from steppo_textworld.cache import damaged_games, list_games, remove_old
from steppo_textworld.games import CACHE_VERSION, games_home
from steppo_textworld.levels import FAMILIES, Family, GameSpec, Instructions, problem_with
from steppo_textworld.tasks import NUM_HELD_OUT

__all__ = ["Split", "textworld"]

EXIT_SOME_FAILED = 1
EXIT_INTERRUPTED = 130
MOST_GAMES = 100_000
"""Games of one call; ten thousand take about 5 GB and hours."""
MOST_REASONS = 5

screen = Console(stderr=True)
"""What is said to a person on the way."""


class Split(StrEnum):
    """Splits of the games."""

    TRAIN = "train"
    DEV = "dev"
    TEST = "test"


def textworld(
    family: Annotated[Family | None, typer.Option(help="The kind of game to make.")] = None,
    level: Annotated[
        list[int] | None,
        typer.Option(help="A level; may be repeated. Without it the family's default."),
    ] = None,
    split: Annotated[Split, typer.Option(help="The split the games are of.")] = Split.TRAIN,
    first: Annotated[int, typer.Option(min=0, help="Index of the first game.")] = 0,
    count: Annotated[
        int, typer.Option(min=1, max=MOST_GAMES, help="Games of each level, from the first on.")
    ] = 100,
    instructions: Annotated[
        Instructions, typer.Option(help="What the objective tells.")
    ] = Instructions.GOAL,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Processes that make games; one for each core."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show what the cache holds.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check all games against their checksums.")
    ] = False,
    remove: Annotated[
        bool,
        typer.Option("--remove-old", help="Remove games of other versions and what kills left."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout.")
    ] = False,
) -> None:
    """Make TextWorld games ahead of time, or look after the cache of games.

    Games that are there are skipped, so a call that was interrupted is simply made again. The exit
    code is 1 when games failed or are damaged, and 130 after Ctrl-C.
    """
    if (family is not None) + list_ + verify + remove != 1:
        raise InvalidInput(
            "name a --family to make games of, or give --list, --verify or --remove-old"
        )
    if list_:
        _list(as_json)
    elif verify:
        _verify(as_json)
    elif remove:
        _remove(as_json)
    elif family is not None:
        specs = _specs(
            family, level or [FAMILIES[family].default_level], split, instructions, first, count
        )
        _make(specs, workers or len(os.sched_getaffinity(0)), as_json)


def _specs(
    family: Family,
    levels: Sequence[int],
    split: Split,
    instructions: Instructions,
    first: int,
    count: int,
) -> list[GameSpec]:
    for level in levels:
        problem = problem_with(family, level)
        if problem is not None:
            raise InvalidInput(f"--level {level}: {problem}")
    if len(set(levels)) < len(levels):
        raise InvalidInput(f"a level is given twice: {', '.join(map(str, levels))}")
    if split is not Split.TRAIN and first + count > NUM_HELD_OUT:
        raise InvalidInput(
            f"{split} has the games 0 to {NUM_HELD_OUT - 1}; --first {first} --count {count} asks "
            f"for those up to {first + count - 1}"
        )
    return [
        GameSpec(family, level, instructions, split.value, index)
        for level in levels
        for index in range(first, first + count)
    ]


def _make(specs: Sequence[GameSpec], num_workers: int, as_json: bool) -> None:
    start = time.perf_counter()
    games: list[MadeGame] = []
    columns = (
        TextColumn("games"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    is_interrupted = False
    is_hidden = not screen.is_terminal
    with Progress(*columns, console=screen, transient=True, disable=is_hidden) as bar:
        shown = bar.add_task("games", total=len(specs), note="")
        try:
            with closing(make_games(specs, num_workers)) as finished:
                for game in finished:
                    games.append(game)
                    bar.update(shown, advance=1, note=_note(games))
        except KeyboardInterrupt:
            is_interrupted = True
    seconds = time.perf_counter() - start
    _report(games, len(specs), seconds, is_interrupted, as_json)
    if is_interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if any(game.fate is Fate.FAILED for game in games):
        raise typer.Exit(EXIT_SOME_FAILED)


def _note(games: Sequence[MadeGame]) -> str:
    counts = Counter(game.fate for game in games)
    return f"{counts[Fate.MADE]} made  {counts[Fate.FAILED]} failed"


def _report(
    games: Sequence[MadeGame],
    num_asked: int,
    seconds: float,
    is_interrupted: bool,
    as_json: bool,
) -> None:
    counts = Counter(game.fate for game in games)
    num_bytes = sum(game.num_bytes for game in games if game.fate is Fate.MADE)
    failed = sorted(
        (f"{game.spec.kind}/{game.spec.split}/{game.spec.index}", " ".join(game.reason.split()))
        for game in games
        if game.fate is Fate.FAILED
    )
    if as_json:
        _print_json(
            {
                "home": str(games_home()),
                "version": CACHE_VERSION,
                "asked": num_asked,
                **{fate.value: counts[fate] for fate in Fate},
                "interrupted": is_interrupted,
                "seconds": round(seconds, 3),
                "bytes_made": num_bytes,
                "failures": [{"task_id": task_id, "reason": reason} for task_id, reason in failed],
            }
        )
        return
    lines = [
        f"made           {counts[Fate.MADE]:,} ({num_bytes / 1e6:.1f} MB, {seconds:.1f} s)",
        f"already there  {counts[Fate.ALREADY_THERE]:,}",
        f"failed         {counts[Fate.FAILED]:,}",
        *(f"               {task_id}: {reason}" for task_id, reason in failed[:MOST_REASONS]),
        *(["               ..."] if len(failed) > MOST_REASONS else []),
        f"under          {games_home() / CACHE_VERSION}",
    ]
    if is_interrupted:
        lines.append(f"interrupted    {num_asked - len(games):,} to go; the same command goes on")
    typer.echo("\n".join(lines))


def _list(as_json: bool) -> None:
    found = list_games()
    if as_json:
        rows: list[JsonValue] = [
            {
                "version": each.version,
                "is_current": each.is_current,
                "kind": each.kind,
                "split": each.split,
                "games": each.num_games,
                "bytes": each.num_bytes,
            }
            for each in found
        ]
        _print_json({"home": str(games_home()), "games": rows})
        return
    table = Table("version", "kind", "split", "games", "MB", title=escape(str(games_home())))
    for each in found:
        version = each.version if each.is_current else f"{each.version} (old)"
        size = f"{each.num_bytes / 1e6:.1f}"
        table.add_row(escape(version), each.kind, each.split, f"{each.num_games:,}", size)
    Console().print(table)


def _verify(as_json: bool) -> None:
    damaged = damaged_games()
    num_games = sum(each.num_games for each in list_games())
    if as_json:
        paths: list[JsonValue] = [str(folder) for folder in damaged]
        _print_json({"home": str(games_home()), "games": num_games, "damaged": paths})
    else:
        lines = [f"{num_games:,} games, {len(damaged):,} damaged", *map(str, damaged)]
        if damaged:
            lines.append("a damaged game is made again when it is next played or made ahead")
        typer.echo("\n".join(lines))
    if damaged:
        raise typer.Exit(EXIT_SOME_FAILED)


def _remove(as_json: bool) -> None:
    removed = remove_old()
    if as_json:
        _print_json(
            {
                "home": str(games_home()),
                "versions": removed.num_versions,
                "workplaces": removed.num_workplaces,
                "bytes": removed.num_bytes,
            }
        )
        return
    typer.echo(
        f"removed {removed.num_versions:,} old versions and {removed.num_workplaces:,} unfinished "
        f"games ({removed.num_bytes / 1e6:.1f} MB)"
    )


def _print_json(value: JsonValue) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
