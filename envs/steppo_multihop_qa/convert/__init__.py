"""Published multi-hop question sets turned into data packs."""

from steppo_multihop_qa.convert.conversion import Conversion, convert_files, split_of
from steppo_multihop_qa.convert.formats import Kind, SkipReason

__all__ = ["Conversion", "Kind", "SkipReason", "convert_files", "split_of"]
