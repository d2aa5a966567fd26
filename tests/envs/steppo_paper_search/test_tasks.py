"""Which requests are served, and what counts as their answer."""

from pathlib import Path
from typing import Literal

from steppo_env.options import operator_fields
from steppo_paper_search.options import PaperSearchOptions
from steppo_paper_search.tasks import PaperTasks, paper_tasks


def tasks(
    pack: Path, queries: Literal["covered", "all"] = "all", date_cutoff: bool = True
) -> PaperTasks:
    return paper_tasks(PaperSearchOptions(data=pack, queries=queries, date_cutoff=date_cutoff))


def test_only_findable_papers_are_gold(pack: Path) -> None:
    late = tasks(pack).get("q-late")
    assert late.gold == ("c",)
    assert late.labels == {"set": "hand", "n_gold": 1, "n_gold_not_findable": 2}
    assert tasks(pack, date_cutoff=False).get("q-late").gold == ("c", "d")


def test_a_request_without_findable_gold_is_left_out_and_counted(pack: Path) -> None:
    served = tasks(pack)
    assert dict(served.splits) == {"train": 1, "dev": 2, "test": 2}
    assert (served.num_without_gold, served.num_not_covered) == (1, 0)
    assert tasks(pack, date_cutoff=False).num_without_gold == 0


def test_covered_leaves_out_requests_with_a_gold_paper_without_abstract(pack: Path) -> None:
    served = tasks(pack, "covered")
    # q-open and q-four want the paper without abstract, q-late one that is not there at all.
    assert dict(served.splits) == {"train": 1, "test": 1}
    assert (served.num_without_gold, served.num_not_covered) == (1, 3)


def test_the_paper_whose_references_are_asked_for_is_hidden(pack: Path) -> None:
    own = tasks(pack).get("q-own")
    assert (own.hidden, own.hidden_title) == (frozenset({"q-own", "c"}), "lunar dust")


def test_what_changes_the_tasks_changes_the_version(pack: Path) -> None:
    versions = {
        tasks(pack).version,
        tasks(pack, "covered").version,
        tasks(pack, date_cutoff=False).version,
    }
    assert len(versions) == 3


def test_tasks_are_made_once(pack: Path) -> None:
    assert tasks(pack) is tasks(pack.parent / "." / pack.name)


def test_only_the_operator_names_data_and_services() -> None:
    assert operator_fields(PaperSearchOptions) == {
        "data",
        "api_url",
        "api_key_env",
        "requests_per_second",
        "timeout_s",
        "attempts",
        "judge_url",
        "judge_model",
        "judge_api_key_env",
        "judge_style",
        "judge_logprobs",
        "judge_concurrency",
    }
