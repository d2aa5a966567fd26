"""Options of `steppo/MultihopQA-v0`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from steppo_env.options import EnvOptions, OperatorOnly

__all__ = ["MultihopOptions", "Retrieval", "RewardKind"]

EVEN_WEIGHT = 0.5
_Text = Annotated[str, Field(min_length=1, max_length=2000)]


class Retrieval(StrEnum):
    """What ranks the passages."""

    AUTO = "auto"
    """rank_bm25 up to 5,000 passages, bm25s above."""
    RANK_BM25 = "rank_bm25"
    """BM25Okapi of rank_bm25: nothing to precompute, slow over a large corpus."""
    BM25S = "bm25s"
    """Scores precomputed by bm25s: about a millisecond a query."""
    DENSE = "dense"
    """Embeddings by an OpenAI-compatible endpoint, compared exactly with those of all passages."""
    REMOTE = "remote"
    """A search service over HTTP that has the same passages."""

    @property
    def matches_words(self) -> bool:
        """True when a query finds nothing but passages that have a word of it."""
        return self in (Retrieval.AUTO, Retrieval.RANK_BM25, Retrieval.BM25S)


class RewardKind(StrEnum):
    """How an answer is scored, both after SQuAD's normalisation and over all gold answers."""

    EM = "em"
    """Exact match: 1 or 0."""
    F1 = "f1"
    """Word-level F1 in [0, 1]."""
    MIXED = "mixed"
    """f1_weight * F1 + (1 - f1_weight) * exact match, as two reward terms."""


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
    retriever: Retrieval = Field(default=Retrieval.AUTO, description="What ranks the passages.")
    embeddings_url: Annotated[_Text | None, OperatorOnly()] = Field(
        default=None,
        description="Base URL of the OpenAI-compatible endpoint that dense retrieval asks, such as "
        "http://127.0.0.1:8000/v1.",
    )
    embeddings_model: Annotated[_Text | None, OperatorOnly()] = Field(
        default=None, description="Name of the embedding model there."
    )
    query_prefix: Annotated[str, OperatorOnly()] = Field(
        default="", max_length=1000, description="Stands before each query that is embedded."
    )
    passage_prefix: Annotated[str, OperatorOnly()] = Field(
        default="", max_length=1000, description="Stood before each passage that was embedded."
    )
    search_url: Annotated[_Text | None, OperatorOnly()] = Field(
        default=None,
        description="Base URL of the search service that remote retrieval asks; /retrieve is "
        "appended.",
    )
    api_key_env: Annotated[_Text | None, OperatorOnly()] = Field(
        default=None,
        description="Environment variable with the key of the endpoint or the search service.",
    )
    service_timeout_s: Annotated[float, OperatorOnly()] = Field(
        default=10.0,
        gt=0.0,
        le=600.0,
        description="Seconds that one attempt to embed or search may take.",
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
    f1_weight: float = Field(
        default=EVEN_WEIGHT,
        ge=0.0,
        le=1.0,
        description="Weight of F1 in the reward mixed; exact match has the rest.",
    )

    @model_validator(mode="after")
    def _check_services(self) -> "MultihopOptions":
        needed = {
            Retrieval.DENSE: ("embeddings_url", "embeddings_model"),
            Retrieval.REMOTE: ("search_url",),
        }
        missing = [name for name in needed.get(self.retriever, ()) if getattr(self, name) is None]
        if missing:
            raise ValueError(f"the retriever {self.retriever} needs {' and '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _check_weight(self) -> "MultihopOptions":
        if self.f1_weight != EVEN_WEIGHT and self.reward is not RewardKind.MIXED:
            raise ValueError(f"f1_weight goes with the reward mixed, not with {self.reward}")
        return self
