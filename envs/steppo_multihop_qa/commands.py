"""Commands that this package brings to `steppo data`."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from steppo_multihop_qa.convert import Conversion, Kind, convert_files

__all__ = ["Split", "convert"]


class Split(StrEnum):
    """Splits of a data pack."""

    TRAIN = "train"
    DEV = "dev"
    TEST = "test"


def convert(
    kind: Annotated[Kind, typer.Argument(help="Which published format the files have.")],
    files: Annotated[
        list[Path], typer.Argument(help="The published files: JSON, JSON Lines, CSV, TSV, Parquet.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the pack to write; new or empty.")],
    split: Annotated[
        Split | None, typer.Option(help="Split of every file; else each file's name says it.")
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="A pack whose passages are searched as well.")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out bad records rather than write nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout.")
    ] = False,
) -> None:
    """Convert a published multi-hop question set into a data pack."""
    done = convert_files(
        kind, files, out, split=split, corpus=corpus, skip_bad=skip_bad, notice=_name_bad
    )
    if as_json:
        typer.echo(json.dumps({"pack": str(out), **done.to_json()}, indent=2, ensure_ascii=False))
    else:
        typer.echo(_summary(out, done))


def _name_bad(text: str) -> None:
    typer.echo(f"bad record: {' '.join(text.split())}", err=True)


def _summary(out: Path, done: Conversion) -> str:
    by_split = ", ".join(f"{name} {count:,}" for name, count in done.questions.items() if count)
    lines = [
        f"pack       {out}",
        f"questions  {sum(done.questions.values()):,} ({by_split})",
        f"no gold    {done.num_without_gold:,} of them name no supporting passage",
        f"passages   {done.num_passages:,} ({done.num_merged:,} duplicates merged)",
        f"skipped    {sum(done.skipped.values()):,}",
        *(f"           {count:,} {reason}" for reason, count in done.skipped.items()),
        f"bad        {done.num_bad:,}",
    ]
    return "\n".join(lines)
