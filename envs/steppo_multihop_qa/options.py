"""Options of `steppo/MultihopQA-v0`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field

from steppo_env.options import EnvOptions, OperatorOnly

__all__ = ["MultihopOptions", "Retrieval", "RewardKind"]


class Retrieval(StrEnum):
    """Which implementation of BM25 ranks the passages."""

    AUTO = "auto"
    """rank_bm25 up to 5,000 passages, bm25s above."""
    RANK_BM25 = "rank_bm25"
    """BM25Okapi of rank_bm25: nothing to precompute, slow over a large corpus."""
    BM25S = "bm25s"
    """Scores precomputed by bm25s: about a millisecond a query."""


class RewardKind(StrEnum):
    """How an answer is scored, both after SQuAD's normalisation and over all gold answers."""

    EM = "em"
    """Exact match: 1 or 0."""
    F1 = "f1"
    """Word-level F1 in [0, 1]."""


class MultihopOptions(EnvOptions):
    """Options of `steppo/MultihopQA-v0`."""

    step_limit: int = Field(
        default=8, ge=1, le=1000, description="Responses before the episode is truncated."
    )
    data: Annotated[Path | None, OperatorOnly()] = Field(
        default=None,
        description="Folder of a data pack (questions and corpus as JSON lines, plain or gzipped); "
        "None is the built-in world.",
    )
    retriever: Retrieval = Field(
        default=Retrieval.AUTO, description="Which implementation of BM25 ranks the passages."
    )
    top_k: int = Field(default=5, ge=1, le=20, description="Most passages that a search returns.")
    passage_chars: int = Field(
        default=1200,
        ge=100,
        le=20_000,
        description="Longest text of a passage as shown, in characters.",
    )
    forced_first_search: bool = Field(
        default=False,
        description="Search for the question itself before the first step, at no cost to the policy.",
    )
    reward: RewardKind = Field(default=RewardKind.EM, description="How the answer is scored.")
