"""Options of PaperSearch."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from steppo_env.options import EnvOptions, OperatorOnly

__all__ = ["Coverage", "PaperSearchOptions"]

Coverage: TypeAlias = Literal["covered", "all"]

_Url: TypeAlias = Annotated[str, Field(min_length=1, max_length=2_000)]
_Variable: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]

TOP3_REPEAT_PENALTY = 0.5
"""What the reference takes off for a repeat."""


class PaperSearchOptions(EnvOptions):
    """Options of `steppo/PaperSearch-v0`."""

    step_limit: int = Field(
        default=10, ge=1, le=1000, description="Steps after which an episode is truncated."
    )
    data: Annotated[Path | None, OperatorOnly()] = Field(
        default=None, description="Folder of a data pack; None is the built-in library."
    )
    api_url: Annotated[_Url | None, OperatorOnly()] = Field(
        default=None,
        description="Search a Semantic-Scholar-compatible API here in place of the pack's papers.",
    )
    api_key_env: Annotated[_Variable | None, OperatorOnly()] = Field(
        default=None, description="Environment variable with the API's key, sent as x-api-key."
    )
    requests_per_second: Annotated[float | None, OperatorOnly()] = Field(
        default=None,
        gt=0.0,
        le=10_000.0,
        description="Most requests a second to the API from one process; None is without limit.",
    )
    timeout_s: Annotated[float, OperatorOnly()] = Field(
        default=30.0,
        gt=0.0,
        le=600.0,
        description="Seconds that a request to the API or the judge may take, each time it is sent.",
    )
    attempts: Annotated[int, OperatorOnly()] = Field(
        default=4,
        ge=1,
        le=20,
        description="Times that a request to the API or the judge is sent before the episode fails.",
    )
    queries: Coverage = Field(
        default="covered",
        description="Serve only requests of which every gold paper has an abstract, or all.",
    )
    date_cutoff: bool = Field(
        default=True, description="Hide papers younger than the year of the request."
    )
    search_top_k: int = Field(
        default=10, ge=1, le=100, description="Papers that one search brings at most."
    )
    expand_top_k: int = Field(
        default=30,
        ge=1,
        le=200,
        description="References that one expansion brings at most, and as many citations.",
    )
    list_size: int = Field(
        default=20,
        ge=2,
        le=200,
        description="Papers shown in a state, of which at most half are expanded ones.",
    )
    abstract_words: int = Field(
        default=100, ge=0, le=1000, description="Words after which a shown abstract is cut."
    )
    show_scores: bool = Field(
        default=False,
        description="Show the selector's score of each paper: leaks the reward to the policy.",
    )
    reward: Literal["recall_gain", "top3"] = Field(
        default="recall_gain",
        description="Share of the gold newly found, or the best new selector scores of each call.",
    )
    top_k_new: int = Field(
        default=3, ge=1, le=500, description="Scores of new papers that reward top3 sums per call."
    )
    min_score: float = Field(
        default=0.01,
        ge=0.0,
        le=1.0,
        description="Score under which a new paper counts nothing for reward top3.",
    )
    discrete_score: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Reward top3 counts 1 for this score or more, else 0; None takes scores as "
        "they are. The reference's discrete variant is 0.4.",
    )
    selector: Literal["gold", "lexical", "endpoint"] = Field(
        default="gold", description="Who scores papers for reward top3 and for show_scores."
    )
    judge_url: Annotated[_Url | None, OperatorOnly()] = Field(
        default=None, description="Base URL of the model that selector endpoint asks."
    )
    judge_model: Annotated[_Variable | None, OperatorOnly()] = Field(
        default=None, description="Name of that model."
    )
    judge_api_key_env: Annotated[_Variable | None, OperatorOnly()] = Field(
        default=None, description="Environment variable with its key, sent as a bearer token."
    )
    judge_style: Annotated[Literal["chat", "classify"], OperatorOnly()] = Field(
        default="chat",
        description="Ask {judge_url}/chat/completions for Yes or No, or {judge_url}/classify.",
    )
    judge_logprobs: Annotated[bool, OperatorOnly()] = Field(
        default=True,
        description="Ask chat for log-probabilities; without them a verdict is 0 or 1.",
    )
    judge_concurrency: Annotated[int, OperatorOnly()] = Field(
        default=8, ge=1, le=256, description="Papers that one process has judged at a time."
    )
    search_cost: float = Field(
        default=0.0, ge=0.0, le=10.0, description="Subtracted for each search that is executed."
    )
    expand_cost: float = Field(
        default=0.0, ge=0.0, le=10.0, description="Subtracted for each expansion that is executed."
    )
    repeat_penalty: float | None = Field(
        default=None,
        ge=0.0,
        le=10.0,
        description="Subtracted for each call made before; None is 0.5 with reward top3, else 0.",
    )
    answer_f1_weight: float = Field(
        default=0.0,
        ge=0.0,
        le=10.0,
        description="Weight of the F1 of the answered papers, given when the agent stops.",
    )
    success_recall: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Share of the gold that must have been listed for success.",
    )

    @property
    def penalty_of_a_repeat(self) -> float:
        """What each call made before takes off."""
        if self.repeat_penalty is not None:
            return self.repeat_penalty
        return TOP3_REPEAT_PENALTY if self.reward == "top3" else 0.0

    @model_validator(mode="after")
    def _has_a_judge(self) -> Self:
        if self.selector == "endpoint" and not (self.judge_url and self.judge_model):
            raise ValueError(
                'selector "endpoint" asks a model: the operator sets judge_url and judge_model'
            )
        return self
