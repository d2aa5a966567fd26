"""Multi-hop question answering by searching a corpus of passages."""

from steppo_multihop_qa.env import MultihopQA
from steppo_multihop_qa.options import MultihopOptions, Retrieval, RewardKind
from steppo_multihop_qa.retrieval import Passage, Retriever
from steppo_multihop_qa.tasks import MultihopTask, Pack, load_pack

__all__ = [
    "MultihopOptions",
    "MultihopQA",
    "MultihopTask",
    "Pack",
    "Passage",
    "Retrieval",
    "Retriever",
    "RewardKind",
    "load_pack",
]
