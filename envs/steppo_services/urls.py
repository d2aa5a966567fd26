"""Addresses that people type."""

from collections.abc import Collection

import httpx

from steppo_env.errors import InvalidInput

__all__ = ["check_url"]


def check_url(
    text: str, what: str, example: str, *, schemes: Collection[str] = ("http", "https")
) -> None:
    """Refuse what is not a URL of one of the schemes.

    Raises:
        InvalidInput: It says `what` has which form.

    >>> check_url("http://127.0.0.1:8765", "a server", "http://127.0.0.1:8765")
    """
    try:
        url = httpx.URL(text)
        is_usable = url.scheme in schemes and bool(url.host)
    except httpx.InvalidURL:
        is_usable = False
    if not is_usable:
        raise InvalidInput(f"{what} has a URL such as {example}, not {text!r}")
