import pytest

from steppo_env.errors import InvalidInput
from steppo_services.urls import check_url


@pytest.mark.parametrize(
    "url", ["http://a", "https://a.example:1/x", "http://[::1]:80", "http://a/"]
)
def test_a_url_of_a_server_passes(url: str) -> None:
    check_url(url, "it", "http://x")


@pytest.mark.parametrize(
    "url", ["", "a", "a:80", "ftp://a", "http://", "http://[::1", "http://a:b"]
)
def test_anything_else_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"^it has a URL such as http://x, not "):
        check_url(url, "it", "http://x")
