"""`steppo data index`: build the index of a corpus before the environments need it."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from steppo_env.options import read_options
from steppo_multihop_qa.options import MultihopOptions
from steppo_multihop_qa.retrieval import Corpus, build_index
from steppo_multihop_qa.tasks import load_passages, world_pack

__all__ = ["IndexKind", "index"]


class IndexKind(StrEnum):
    """The retrievers that have an index on disk."""

    BM25S = "bm25s"
    """Scores of every word, computed ahead."""
    DENSE = "dense"
    """Embeddings of every passage by an OpenAI-compatible endpoint."""


def index(
    env_data: Annotated[
        Path | None,
        typer.Option(help="Folder with corpus.jsonl, plain or .gz [the built-in world]."),
    ] = None,
    retriever: Annotated[IndexKind, typer.Option(help="What is built.")] = IndexKind.BM25S,
    embeddings_url: Annotated[
        str | None, typer.Option(help="For dense: such as http://127.0.0.1:8000/v1.")
    ] = None,
    embeddings_model: Annotated[
        str | None, typer.Option(help="For dense: the model there.")
    ] = None,
    passage_prefix: Annotated[
        str, typer.Option(help="For dense: stands before each passage.")
    ] = "",
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the endpoint's key.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, max=2048, help="Passages that one request embeds.")
    ] = 64,
    timeout_s: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds that one request may take.")
    ] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Build the index of a multi-hop QA corpus, or go on where an earlier call stopped."""
    options = read_options(
        MultihopOptions,
        {
            "retriever": retriever,
            "embeddings_url": embeddings_url,
            "embeddings_model": embeddings_model,
            "passage_prefix": passage_prefix,
            "api_key_env": api_key_env,
        },
    )
    passages = world_pack().passages if env_data is None else load_passages(env_data)
    corpus = Corpus(passages.values())
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"indexing {len(corpus):,} passages", total=None)
        folder, was_built = build_index(
            options,
            corpus,
            batch_size=batch_size,
            timeout_s=timeout_s,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    num_bytes = sum(path.stat().st_size for path in folder.iterdir())
    if as_json:
        facts = {
            "folder": str(folder),
            "was_built": was_built,
            "num_passages": len(corpus),
            "num_bytes": num_bytes,
        }
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    what = "built" if was_built else "was there"
    sys.stdout.write(f"{what}: {folder} ({len(corpus):,} passages, {num_bytes / 1e6:.1f} MB)\n")
