"""Retrieval over a corpus of passages: four ways behind one protocol."""

from steppo_multihop_qa.retrieval.dense import DenseRetriever
from steppo_multihop_qa.retrieval.factory import build_index, index_version, make_retriever
from steppo_multihop_qa.retrieval.lucene import BM25SRetriever
from steppo_multihop_qa.retrieval.okapi import RankBM25Retriever
from steppo_multihop_qa.retrieval.passages import Corpus, Passage, words_of
from steppo_multihop_qa.retrieval.protocol import Retriever
from steppo_multihop_qa.retrieval.remote import RemoteRetriever
from steppo_multihop_qa.retrieval.shared import shared_retriever

__all__ = [
    "BM25SRetriever",
    "Corpus",
    "DenseRetriever",
    "Passage",
    "RankBM25Retriever",
    "RemoteRetriever",
    "Retriever",
    "build_index",
    "index_version",
    "make_retriever",
    "shared_retriever",
    "words_of",
]
