"""Information gain: a search is worth as much as it raises the probability of the gold answer."""

from steppo_information_gain.reward import (
    InformationGain,
    Quantity,
    ScoringProtocol,
    TaskWithAnswers,
)

__all__ = ["InformationGain", "Quantity", "ScoringProtocol", "TaskWithAnswers"]
