"""Which paper of a pack a record of a service is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_paper_search.graph import Paper
from steppo_paper_search.identity import Identities, arxiv_number

NEW = st.from_regex(r"[0-9]{4}\.[0-9]{4,5}", fullmatch=True)
OLD = st.tuples(
    st.sampled_from(["hep-th", "solv-int", "math", "cs", "q-bio", "chao-dyn"]),
    st.from_regex("[0-9]{7}", fullmatch=True),
).map("/".join)


@given(
    st.one_of(NEW, OLD), st.sampled_from(["", "v1", "v12", "V3"]), st.sampled_from(["", "arXiv:"])
)
def test_prefix_and_version_do_not_change_a_number(number: str, version: str, prefix: str) -> None:
    assert arxiv_number(f"{prefix}{number}{version}") == number


def test_a_subject_class_does_not_change_a_number() -> None:
    assert arxiv_number("math.GT/0309136v2") == "math/0309136"
    assert arxiv_number("cond-mat.stat-mech/0101001") == "cond-mat/0101001"


NO_NUMBERS = (
    *("", "p:2c2a5e5ca73e", "P1234", "2410.123", "2410.012345", "10.1000/1234567", "v2", "a/b"),
    *("2410.01234v", "2410.01234x2", "arxiv:", "hep-th/97112001"),
)


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_anything_else_is_no_number(text: str) -> None:
    assert arxiv_number(text) is None


def test_titles_that_two_papers_share_name_neither() -> None:
    known = Identities([Paper("p1", "Dust, I"), Paper("p2", "Dust I"), Paper("p3", "Ice")], ())
    assert known.identify("s", None, "dust i") == "s"
    assert known.identify("s", None, "ICE.") == "p3"


def test_a_paper_with_an_arxiv_id_is_never_taken_for_another_of_its_title() -> None:
    known = Identities([Paper("arxiv:2001.00001", "Dust")], ())
    assert known.identify("s", "2001.00002", "Dust") == "arxiv:2001.00002"
    assert known.identify("s", None, "Dust") == "s"
    assert known.identify("s", "2001.00001v9", "Renamed") == "arxiv:2001.00001"


def test_ids_named_by_requests_are_known_without_a_paper() -> None:
    known = Identities([], ["arXiv:2001.00001v2", "s7"])
    assert known.identify("s", "2001.00001", "X") == "arXiv:2001.00001v2"
    assert known.identify("s7", "2001.00003", "X") == "s7"
    assert known.identify("s8", "no arXiv id", "X") == "s8"
