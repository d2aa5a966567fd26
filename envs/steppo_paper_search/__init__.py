"""PaperSearch: find the papers that answer a request, by searching and by following citations."""

from steppo_paper_search.env import PaperSearch
from steppo_paper_search.options import PaperSearchOptions
from steppo_paper_search.tasks import PaperTask

__all__ = ["PaperSearch", "PaperSearchOptions", "PaperTask"]
